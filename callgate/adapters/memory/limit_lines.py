"""The provider limits of the memory ledger, as operators see them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from callgate.adapters.memory import limits
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallState
from callgate.domain.limits import Limit, Measure
from callgate.domain.reports import LimitLine


def limit_lines(tables: MemoryTables, now: datetime) -> list[LimitLine]:
    """All limits that count now."""
    found = sorted(tables.limits.items())
    return [_line(tables, limit.at(now)) for _, limit in found if limit.is_current(now)]


def _line(tables: MemoryTables, limit: Limit) -> LimitLine:
    is_counted = limit.measure is Measure.CONCURRENCY
    used = limits.in_flight(tables, limit) if is_counted else 0
    waiting = Counter(
        call.org_id
        for call in tables.calls.values()
        if call.state is CallState.WAITING and call.waits_for and limit.applies_to(*call.waits_for)
    )
    return LimitLine(
        limit.provider,
        limit.model,
        limit.credential,
        limit.source,
        limit.measure,
        limit.window_s,
        limit.amount,
        limit.is_shared,
        capacity=float(limit.amount) if is_counted else limit.capacity,
        free=max(0.0, limit.amount - used if is_counted else limit.level),
        refill_per_s=0.0 if is_counted else limit.refill_per_s,
        changed_at=limit.changed_at,
        granted_at=limit.granted_at,
        waiting=dict(waiting),
    )
