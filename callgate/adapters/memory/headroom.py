"""Release calls of the memory ledger that wait for a budget's headroom: oldest first, only as many as fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.budgets import BudgetFigures, Window, scopes_of
from callgate.domain.calls import CallState


def freed(before: dict[int, BudgetFigures], after: dict[int, BudgetFigures]) -> list[str]:
    """The organisations with a budget that is less used than before."""
    return sorted({b.org_id for b in before.values() if _used(after[b.budget_id]) < _used(b)})


def orgs_with_waiters(tables: MemoryTables) -> list[str]:
    """The organisations with calls that wait for headroom. (Postgres chooses a hundred of them at random.)"""
    return sorted(
        {c.org_id for c in tables.calls.values() if c.requested_hold_nano_usd is not None}
    )


def release_budget_waiters(tables: MemoryTables, org_ids: Iterable[str], now: datetime) -> bool:
    """
    Make waiting calls due if their holds fit now. True if there were any.

    A call that was released before and is not claimed yet counts as if it had its hold. A call that does not fit is
    skipped, and is tried first the next time.
    """
    released = [call for org_id in org_ids for call in _fitting(tables, org_id)]
    released = [
        call for call in released if call.state is CallState.WAITING and _is_later(call, now)
    ]
    for call in released:
        call.due_at = now
    return bool(released)


def _fitting(tables: MemoryTables, org_id: str) -> list[CallRow]:
    left: dict[str, float] = {}
    fitting = []
    for call, requested_nano_usd in _waiters(tables, org_id):
        scopes = scopes_of(call.call_type)
        for scope in scopes:
            left.setdefault(scope, _headroom(tables, org_id, scope))
        if all(requested_nano_usd <= left[scope] for scope in scopes):
            fitting.append(call)
            left.update({scope: left[scope] - requested_nano_usd for scope in scopes})
    return fitting


def _waiters(tables: MemoryTables, org_id: str) -> list[tuple[CallRow, int]]:
    found = [
        (call, call.requested_hold_nano_usd)
        for call in tables.calls.values()
        if call.org_id == org_id and call.requested_hold_nano_usd is not None
    ]
    return sorted(found, key=lambda pair: (pair[0].created_at, pair[0].key))


def _headroom(tables: MemoryTables, org_id: str, scope: str) -> float:
    """The headroom of a scope: the least of its windows."""
    newest = [tables.newest_budget.get((org_id, scope, window)) for window in Window]
    return min((tables.budgets[i].left_nano_usd for i in newest if i is not None), default=math.inf)


def _used(figures: BudgetFigures) -> int:
    return figures.reserved_nano_usd + figures.spent_nano_usd


def _is_later(call: CallRow, now: datetime) -> bool:
    return call.due_at is not None and call.due_at > now
