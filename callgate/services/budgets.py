"""Set the limits of an organisation, or of one of its call types, and say beforehand what that lets run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from callgate.domain.budget_states import BudgetName, LimitPreview, preview
from callgate.domain.budgets import ORG_SCOPE, BudgetFigures, Window, scopes_of
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.reports import By

LIMIT_MAX_USD = 1_000_000_000
"""Far above any budget, and far below the largest amount of the ledger."""
WAITERS_MAX = 2_000
"""Waiting calls that a preview looks at, the oldest."""
BUDGETS_MAX = 1_000
"""Budgets of one organisation that a preview looks at."""


def set_limits(
    operations: OperationsPort,
    org_id: str,
    limits: Mapping[Window, int],
    *,
    call_type: str | None = None,
    timezone: str | None = None,
    by: By,
) -> list[BudgetFigures]:
    """
    Set limits, now. A time zone without limits changes the budgets that exist.

    Returns:
        The budgets that were set; none if there was nothing to set.

    Raises:
        ChangedMeanwhile: Somebody else has set one of them just now.
        UnknownTimeZone, LedgerUnavailable
    """
    scope = scope_of(call_type)
    known = {b.window: b for b in operations.budgets(org_id) if b.scope == scope}
    if timezone and not limits:
        limits = {window: budget.limit_nano_usd for window, budget in known.items()}
    return [
        operations.change_limit(
            BudgetName(org_id, scope, window),
            limit_nano_usd,
            seen_nano_usd=known[window].limit_nano_usd if window in known else None,
            timezone=timezone,
            by=by,
        )
        for window, limit_nano_usd in limits.items()
    ]


def budgets_of(
    operations: OperationsPort,
    org_id: str,
    *,
    call_type: str | None = None,
    window: Window | None = None,
) -> list[BudgetFigures]:
    """The budgets of an organisation's scope; of one window, if it is given."""
    scope = scope_of(call_type)
    return [
        b for b in operations.budgets(org_id) if b.scope == scope and window in (None, b.window)
    ]


def remove_budgets(operations: OperationsPort, budgets: Sequence[BudgetFigures], *, by: By) -> None:
    """
    Remove budgets that an operator has looked at.

    Raises:
        ChangedMeanwhile: The limit of one is another now; it and those after it are there still.
        LedgerUnavailable
    """
    for budget in budgets:
        name = BudgetName.of(budget)
        operations.remove_budget(name, seen_nano_usd=budget.limit_nano_usd, by=by)


def preview_limit(
    operations: OperationsPort, name: BudgetName, limit_nano_usd: int, *, at: datetime
) -> LimitPreview:
    """
    What a new limit would let run, of the calls that wait now. Nothing is changed.

    Args:
        at: Now, by the ledger's clock.

    Raises:
        LedgerUnavailable
    """
    waiters = operations.money_waiters(name.org_id, limit=WAITERS_MAX + 1)
    states = operations.budgets_by_name(org_id=name.org_id, limit=BUDGETS_MAX)
    return preview(
        [state.figures for state in states],
        waiters[:WAITERS_MAX],
        name,
        limit_nano_usd,
        at=at,
        is_more=len(waiters) > WAITERS_MAX,
    )


def scope_of(call_type: str | None) -> str:
    """The scope of an organisation's budget, or of that of one of its call types."""
    return scopes_of(call_type)[1] if call_type else ORG_SCOPE
