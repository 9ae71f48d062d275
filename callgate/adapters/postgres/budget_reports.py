"""What pages of operators read about budgets, pauses and unknown bills in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.budget_ports import UnknownSum
from callgate.domain.budget_states import (
    PERIODS_SHOWN,
    RATE_QUARTERS,
    Affected,
    BudgetName,
    BudgetState,
    MoneyWaiter,
    PastPeriod,
    Short,
    limit_changed,
)
from callgate.domain.budgets import CALL_TYPE_SCOPE, BudgetFigures, Window
from callgate.domain.calls import AttemptStatus, CallKey
from callgate.domain.errors import ChangedMeanwhile, UnknownTimeZone
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.unknown import UnknownBill, UnknownFilter

NAMES = """SELECT id FROM callgate_budget_names_v1(
    %(org_id)s, %(after_org)s, %(after_scope)s, %(after_window)s, %(limit)s) AS id"""
FULLEST = "SELECT id FROM callgate_fullest_budgets_v1(%(limit)s, %(read_max)s) AS id"
STATES = "SELECT * FROM callgate_budget_states_v1(%(ids)s::bigint[], %(quarters)s, %(periods)s, %(counted_max)s)"
PERIODS = "SELECT * FROM callgate_budget_periods_v1(%(org_id)s, %(scope)s, %(window)s, %(limit)s)"
SPENT = "SELECT * FROM callgate_spent_by_quarter_v1(%(org_id)s, %(call_type)s, %(since)s)"
WAITERS = "SELECT * FROM callgate_money_waiters_v1(%(org_id)s, %(limit)s)"
AFFECTED = "SELECT * FROM callgate_affected_v1(%(provider)s, %(model)s, %(call_type)s, %(org_id)s, %(read_max)s)"
CHANGE_BUDGET = """SELECT * FROM callgate_change_budget_v1(
    %(org_id)s, %(scope)s, %(window)s, %(limit)s::bigint, %(timezone)s, %(seen)s::bigint, %(operator)s, %(reason)s)"""
REMOVE_BUDGET = """SELECT * FROM callgate_remove_budget_v1(
    %(org_id)s, %(scope)s, %(window)s, %(seen)s::bigint, %(operator)s, %(reason)s)"""
UNKNOWN_PAGE = """SELECT * FROM callgate_unknown_page_v1(
    %(org_id)s, %(provider)s, %(model)s, %(since)s, %(before)s, %(after_at)s, %(after_id)s::uuid, %(limit)s)"""
UNKNOWN_SUMS = """SELECT * FROM callgate_unknown_sums_v1(
    %(org_id)s, %(provider)s, %(model)s, %(since)s, %(before)s, %(attempts_max)s)"""
RUNNING_READ_MAX = 10_000
"""Running periods that are compared for the fullest ones."""
WAITERS_READ_MAX = 2_000
"""Calls that wait for money and are looked at, for each budget of a list."""
OPEN_READ_MAX = 20_000
"""Open calls of each state that are looked at to tell what a pause concerns."""


class PostgresBudgetReports:
    """`BudgetReportsPort` over Postgres, and the change of a limit that was looked at."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def fullest_budgets(self, *, limit: int) -> list[BudgetState]:
        """Read the fullest budgets; see `BudgetReportsPort.fullest_budgets`."""
        return self._states(FULLEST, {"limit": limit, "read_max": RUNNING_READ_MAX})

    def budgets_by_name(
        self, *, org_id: str | None = None, after: BudgetName | None = None, limit: int
    ) -> list[BudgetState]:
        """Read budgets by name; see `BudgetReportsPort.budgets_by_name`."""
        names = ("after_org", "after_scope", "after_window")
        start = dict(zip(names, after or (None, None, None), strict=True))
        return self._states(NAMES, {**start, "org_id": org_id, "limit": limit})

    def budget_state(self, name: BudgetName) -> BudgetState | None:
        """Read one budget; see `BudgetReportsPort.budget_state`."""
        newest = self.budget_periods(name, limit=1)
        states = self._read_states([b.budget_id for b in newest])
        return states[0] if states else None

    def budget_periods(self, name: BudgetName, *, limit: int) -> list[BudgetFigures]:
        """Read the periods of a budget; see `BudgetReportsPort.budget_periods`."""
        rows = self._session.answers(PERIODS, {**name._asdict(), "limit": limit})
        return [figures_of(row) for row in rows]

    def spent_by_quarter(self, name: BudgetName, since: datetime) -> list[tuple[datetime, int]]:
        """What was spent by quarter hour; see `BudgetReportsPort.spent_by_quarter`."""
        call_type = name.scope.partition(CALL_TYPE_SCOPE)[2] or None
        which = {"org_id": name.org_id, "call_type": call_type, "since": since}
        return [(row.starts_at, row.posted_nano_usd) for row in self._session.answers(SPENT, which)]

    def money_waiters(self, org_id: str, *, limit: int) -> list[MoneyWaiter]:
        """Read the calls that wait for money; see `BudgetReportsPort.money_waiters`."""
        rows = self._session.answers(WAITERS, {"org_id": org_id, "limit": limit})
        return [MoneyWaiter(row.call_type, row.hold_nano_usd) for row in rows]

    def affected(self, key: PauseKey) -> Affected:
        """Count what a pause would cover; see `BudgetReportsPort.affected`."""
        (row,) = self._session.answers(AFFECTED, {**asdict(key), "read_max": OPEN_READ_MAX})
        return Affected(**row._asdict())

    def unknown_page(
        self, which: UnknownFilter, *, after: tuple[datetime, UUID] | None = None, limit: int
    ) -> list[UnknownBill]:
        """List unknown bills; see `BudgetReportsPort.unknown_page`."""
        after_at, after_id = after or (None, None)
        start = {"after_at": after_at, "after_id": after_id, "limit": limit}
        return [
            bill_of(row) for row in self._session.answers(UNKNOWN_PAGE, {**asdict(which), **start})
        ]

    def unknown_sums(self, which: UnknownFilter, *, attempts_max: int) -> list[UnknownSum]:
        """Sum up unknown bills; see `BudgetReportsPort.unknown_sums`."""
        rows = self._session.answers(UNKNOWN_SUMS, {**asdict(which), "attempts_max": attempts_max})
        return [UnknownSum(**row._asdict()) for row in rows]

    def change_limit(
        self,
        name: BudgetName,
        limit_nano_usd: int,
        *,
        seen_nano_usd: int | None,
        timezone: str | None = None,
        by: By,
    ) -> BudgetFigures:
        """Set a limit that was looked at; see `OperationsPort.change_limit`."""
        wish = {"limit": limit_nano_usd, "timezone": timezone, "seen": seen_nano_usd}
        (row,) = self._session.answers(CHANGE_BUDGET, {**name._asdict(), **wish, **asdict(by)})
        if row.is_set is None:
            raise UnknownTimeZone(unknown_zone(row.timezone))
        if not row.is_set:
            raise ChangedMeanwhile(limit_changed(row.before_nano_usd))
        return figures_of(row)

    def remove_budget(self, name: BudgetName, *, seen_nano_usd: int, by: By) -> None:
        """Remove a budget that was looked at; see `OperationsPort.remove_budget`."""
        wish = {**name._asdict(), "seen": seen_nano_usd, **asdict(by)}
        (row,) = self._session.answers(REMOVE_BUDGET, wish)
        if not row.is_removed:
            raise ChangedMeanwhile(limit_changed(row.before_nano_usd))

    def _states(self, ids: str, which: dict[str, Any]) -> list[BudgetState]:
        return self._read_states([row.id for row in self._session.answers(ids, which)])

    def _read_states(self, ids: Sequence[int]) -> list[BudgetState]:
        bounds = {
            "quarters": RATE_QUARTERS,
            "periods": PERIODS_SHOWN,
            "counted_max": WAITERS_READ_MAX,
        }
        rows = self._session.answers(STATES, {"ids": list(ids), **bounds}) if ids else []
        return [_state(row) for row in rows]


def unknown_zone(timezone: str) -> str:
    """Why a time zone was refused."""
    return f"{timezone!r} is no time zone that Postgres knows, such as Europe/Berlin"


def figures_of(row: Any) -> BudgetFigures:
    """A row of the table `budget`."""
    return BudgetFigures(
        budget_id=row.id,
        org_id=row.org_id,
        scope=row.scope,
        window=Window(row.window),
        timezone=row.timezone,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        limit_nano_usd=row.limit_nano_usd,
        reserved_nano_usd=row.reserved_nano_usd,
        spent_nano_usd=row.spent_nano_usd,
    )


def bill_of(row: Any) -> UnknownBill:
    """A row of `callgate_unknown_v1`."""
    fields = row._asdict()
    key = CallKey(fields.pop("call_id"), fields.pop("generation"))
    fields |= {"status": AttemptStatus(row.status), "anomalies": tuple(row.anomalies)}
    return UnknownBill(key=key, **fields)


def _state(row: Any) -> BudgetState:
    past = zip(row.past_starts, row.past_limits, row.past_spent, strict=True)
    return BudgetState(
        figures=figures_of(row),
        at=row.at,
        lately_nano_usd=row.lately_nano_usd,
        short=Short(row.short_calls, row.short_nano_usd, row.is_more),
        past=tuple(PastPeriod(*period) for period in past),
    )
