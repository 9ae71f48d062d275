"""Costs over time, out of the sums in Postgres: `CostSeriesPort`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.sums import COSTS, cost_line
from callgate.domain.cost_series import TOP_MAX, Grid, SeriesPoint
from callgate.domain.sums import CostFilter, CostLine

LINES = f"{COSTS} ORDER BY posted_nano_usd DESC, 1, 2, 3, 4, 5, 6, 7, 8, 9 LIMIT %(limit)s"
SERIES = """SELECT * FROM callgate_cost_series_v1(
    %(org_id)s, %(since)s, %(until)s, %(starts)s::timestamptz[], %(by_day)s, %(by)s, %(top_max)s,
    %(project)s, %(call_type)s, %(provider)s, %(model)s, %(tier)s, %(kind)s, %(outcome)s)"""


class PostgresCostSeries:
    """`CostSeriesPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def cost_lines(self, which: CostFilter, by: Sequence[str], *, limit: int) -> list[CostLine]:
        """Sum by dimensions; see `CostSeriesPort.cost_lines`."""
        since, until = which.period
        parameters = {**asdict(which), "since": since, "until": until, "by": list(by)}
        rows = self._session.answers(LINES, {**parameters, "limit": limit})
        return [cost_line(row, by) for row in rows]

    def cost_series(
        self, which: CostFilter, grid: Grid, by: str, *, top_max: int = TOP_MAX
    ) -> list[SeriesPoint]:
        """Sum by step and value; see `CostSeriesPort.cost_series`."""
        since, until = which.period
        if since is None or until is None:
            raise ValueError("a series begins and ends")
        chart = {
            "starts": list(grid.starts(since, until)),
            "by_day": grid.is_of_days,
            "by": by,
            "top_max": top_max,
        }
        rows = self._session.answers(
            SERIES, {**asdict(which), "since": since, "until": until, **chart}
        )
        return [SeriesPoint(**row._asdict()) for row in rows]
