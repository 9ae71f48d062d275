"""Set the limits of an organisation, or of one of its call types."""

from __future__ import annotations

from collections.abc import Mapping

from callgate.domain.budgets import ORG_SCOPE, BudgetFigures, Window, scopes_of
from callgate.domain.operator_ports import OperationsPort

DEFAULT_TIMEZONE = "UTC"


def set_limits(
    operations: OperationsPort,
    org_id: str,
    limits: Mapping[Window, int],
    *,
    call_type: str | None = None,
    timezone: str | None = None,
) -> list[BudgetFigures]:
    """
    Set limits, now. A time zone without limits changes the budgets that exist.

    Returns:
        The budgets that were set; none if there was nothing to set.

    Raises:
        UnknownTimeZone, LedgerUnavailable
    """
    scope = scopes_of(call_type)[1] if call_type else ORG_SCOPE
    known = {b.window: b for b in operations.budgets(org_id) if b.scope == scope}
    if timezone and not limits:
        limits = {window: budget.limit_nano_usd for window, budget in known.items()}
    figures = []
    for window, limit_nano_usd in limits.items():
        # A new limit must not change when the days of a budget begin.
        current = known[window].timezone if window in known else DEFAULT_TIMEZONE
        figures.append(
            operations.set_budget(org_id, scope, window, limit_nano_usd, timezone or current)
        )
    return figures
