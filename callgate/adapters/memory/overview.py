"""What the pages "Overview" and "Action log" read and change in the memory ledger: `OverviewPort`."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from callgate.adapters.memory.rows import AttemptRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.calls import AttemptStatus, CallKey, CallState
from callgate.domain.overview import ActionFilter, Glance, LoggedAction, ProviderHealth
from callgate.domain.reports import By

LOGIN = "memory"


class MemoryOverview:
    """`OverviewPort` over the memory ledger's tables."""

    def __init__(
        self, tables: MemoryTables, clock: Callable[[], datetime], lock: threading.Lock
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._lock = lock

    def glance(self, *, dead_s: float, rows_max: int) -> Glance:
        """Read what is wrong or held now."""
        with self._lock:
            now, t = self._clock(), self._tables
            since = now - timedelta(seconds=dead_s)
            dead = [
                c
                for c in t.calls.values()
                if c.state is CallState.DEAD
                and c.attempt_id
                and t.attempts[c.attempt_id].started_at >= since
            ]
            held = [a.hold_nano_usd for a in t.attempts.values() if not a.status.is_posted]
            days = [
                b
                for b in t.budgets.values()
                if b.ends_at > now and (b.scope, b.window) == (ORG_SCOPE, Window.DAY)
            ]
            return Glance(
                at=now,
                dead=len(dead[:rows_max]),
                held_nano_usd=sum(held[:rows_max]),
                day_budgets=len(days),
                day_limit_nano_usd=sum(b.limit_nano_usd for b in days),
                day_held_nano_usd=sum(b.reserved_nano_usd for b in days),
                day_spent_nano_usd=sum(b.spent_nano_usd for b in days),
            )

    def provider_health(self, *, age_s: float, attempts_max: int) -> list[ProviderHealth]:
        """Look at the newest attempts."""
        with self._lock:
            since = self._clock() - timedelta(seconds=age_s)
            newest = [a for a in self._tables.attempts.values() if a.started_at >= since]
            newest.sort(key=lambda a: a.attempt_id, reverse=True)
            groups: defaultdict[tuple[str, str], list[AttemptRow]] = defaultdict(list)
            for attempt in newest[:attempts_max]:
                call = self._tables.calls[attempt.key]
                groups[call.provider, call.model].append(attempt)
        found = [_health(*key, attempts) for key, attempts in groups.items()]
        return sorted(found, key=lambda h: (-h.attempts, h.provider, h.model))

    def states(self, keys: Sequence[CallKey]) -> dict[CallKey, CallState]:
        """Read the states of calls."""
        with self._lock:
            return {k: self._tables.calls[k].state for k in keys if k in self._tables.calls}

    def actions_page(
        self, which: ActionFilter, *, before: int | None = None, limit: int
    ) -> list[LoggedAction]:
        """List actions."""
        with self._lock:
            numbered = [
                LoggedAction(n, LOGIN, a) for n, a in enumerate(self._tables.actions, start=1)
            ]
        found = [
            a
            for a in reversed(numbered)
            if which.operator in (None, a.done.by.operator)
            and which.org_id in (None, a.done.org_id)
            and which.action in (None, a.done.action)
            and (before is None or a.number < before)
        ]
        return found[:limit]

    def note(self, org_id: str | None, *, by: By) -> None:
        """Write a note."""
        with self._lock:
            self._tables.log_action(self._clock(), by, "note", org_id, org_id or "everybody")


def _health(provider: str, model: str, attempts: Sequence[AttemptRow]) -> ProviderHealth:
    statuses = [a.status for a in attempts]
    times = sorted(a.latency_ms for a in attempts if a.latency_ms is not None)
    return ProviderHealth(
        provider,
        model,
        len(attempts),
        statuses.count(AttemptStatus.SUCCEEDED),
        statuses.count(AttemptStatus.FAILED),
        statuses.count(AttemptStatus.UNKNOWN),
        *(times[math.ceil(part * len(times)) - 1] if times else None for part in (0.5, 0.95)),
    )
