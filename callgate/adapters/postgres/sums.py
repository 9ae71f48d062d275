"""The sums in Postgres: `SumsPort`, and what operators read of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.operator_ports import EVERYTHING
from callgate.domain.sums import (
    BY_DAY,
    DEFAULT_BY,
    DIMENSIONS,
    MEASURES,
    CostFilter,
    CostLine,
    Measures,
    SumProof,
)

COSTS = """SELECT * FROM callgate_costs_v2(
    %(org_id)s, coalesce(%(since)s, '-infinity')::timestamptz, coalesce(%(until)s, 'infinity')::timestamptz,
    %(by)s::text[], %(project)s, %(call_type)s, %(provider)s, %(model)s, %(tier)s, %(kind)s, %(outcome)s)"""
FOLD = "SELECT coalesce(callgate_fold_sums_v1(%(limit)s), 0) AS moved"
FILL = "SELECT callgate_fill_sums_v1() AS day"
DAYS = "SELECT day FROM callgate_sum_days_v1(%(everything)s) AS d(day)"
PROVE = "SELECT * FROM callgate_prove_sums_v1(%(since)s, %(until)s)"


class PostgresSums:
    """`SumsPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def costs(
        self, which: CostFilter = EVERYTHING, by: Sequence[str] = DEFAULT_BY
    ) -> list[CostLine]:
        """Sum what was used; see `OperationsPort.costs`."""
        since, until = which.period
        parameters = {**asdict(which), "since": since, "until": until, "by": list(by)}
        return [cost_line(row, by) for row in self._session.answers(COSTS, parameters)]

    def fold_sums(self, *, limit: int) -> int:
        """Move deltas into the sums; see `SumsPort.fold_sums`."""
        (row,) = self._session.answers(FOLD, {"limit": limit})
        return int(row.moved)

    def fill_sums(self) -> date | None:
        """Sum up a day of before; see `SumsPort.fill_sums`."""
        days: list[date] = [row.day for row in self._session.answers(FILL, {})]
        return days[0] if days else None

    def sum_days(self, *, everything: bool = False) -> list[date]:
        """List the days to be proven; see `OperationsPort.sum_days`."""
        return [row.day for row in self._session.answers(DAYS, {"everything": everything})]

    def prove_sums(self, since: datetime, until: datetime) -> SumProof:
        """Compare sums with rows; see `OperationsPort.prove_sums`."""
        (row,) = self._session.answers(PROVE, {"since": since, "until": until})
        return SumProof(**row._asdict())


def cost_line(row: Any, by: Sequence[str]) -> CostLine:
    """A row of `COSTS` as a line, with the dimensions by which it is grouped."""
    fields = row._asdict()
    used = Measures(**{name: fields.pop(name) for name in MEASURES})
    grouped = {name: fields.pop(name) for name in (BY_DAY, *DIMENSIONS)}
    return CostLine(used, **fields, **{name: grouped[name] for name in by})
