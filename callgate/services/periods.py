"""What `today` is for an organisation: the day in the time zone of its budgets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from callgate.domain.budgets import ORG_SCOPE, BudgetFigures, Window, period_of
from callgate.domain.operator_ports import OperationsPort

UTC = "UTC"


@dataclass(frozen=True, slots=True)
class Today:
    """The day that holds a moment."""

    since: datetime
    until: datetime
    zone: str


def today(operations: OperationsPort, org_id: str | None, now: datetime) -> Today:
    """
    Return today for an organisation: in the zone of its daily budget, else of another budget of it, else in UTC.

    A zone that only Postgres knows counts as UTC.

    Raises:
        LedgerUnavailable
    """
    budgets = operations.budgets(org_id) if org_id else []
    zones = [budget.timezone for budget in sorted(budgets, key=_rank)]
    for zone in (*zones[:1], UTC):
        if period := period_of(now, Window.DAY, zone):
            return Today(*period, zone)
    raise AssertionError("UTC has days")


def _rank(budget: BudgetFigures) -> tuple[bool, bool, str]:
    return budget.scope != ORG_SCOPE, budget.window is not Window.DAY, budget.scope
