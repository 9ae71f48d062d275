"""The leases of worker processes in memory: `LeasePort` over the tables of the memory ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from callgate.adapters.memory.alert_conditions import Condition
from callgate.adapters.memory.alerts import add_alert
from callgate.adapters.memory.rows import LeaseRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.alerts import AlertKind


class MemoryLeases:
    """The memory ledger's leases; every method is one transaction under the ledger's lock."""

    def __init__(
        self, tables: MemoryTables, clock: Callable[[], datetime], lock: threading.Lock
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._lock = lock

    def renew(self, worker_id: str, lease_s: float, slots: int | None = None) -> datetime:
        """Grant or prolong a lease, `lease_s` seconds from now."""
        with self._lock:
            now, length = self._clock(), timedelta(seconds=lease_s)
            lease = self._tables.leases.get(worker_id)
            if lease is None:
                lease = LeaseRow(worker_id, now, now, now, now + length)
                self._tables.leases[worker_id] = lease
            if now - lease.renewed_at > length / 2:
                lease.stable_since = now
            lease.renewed_at, lease.expires_at, lease.slots = now, now + length, slots
            return lease.began_at

    def release(self, worker_id: str) -> None:
        """End a lease; the calls of its unposted attempts are due now."""
        with self._lock:
            self._release(worker_id, self._clock())

    def expire(self, reaper: str) -> list[str]:
        """Release expired leases, on behalf of a process whose own lease is stable."""
        with self._lock:
            now = self._clock()
            gone = [
                lease
                for lease in self._tables.leases.values()
                if lease.expires_at <= now and may_reap(self._tables, reaper, lease.length, now)
            ]
            newly_gone = {
                lease.worker_id: lease.renewed_at for lease in gone if not lease.is_given_away
            }
            for lease in gone:
                self._release(lease.worker_id, now)
            for worker_id, since in newly_gone.items():
                add_alert(self._tables, _lost(worker_id, since, now), now)
            return list(newly_gone)

    def _release(self, worker_id: str, now: datetime) -> None:
        is_unfinished = False
        for attempt in self._tables.attempts.values():
            if attempt.process == worker_id and not attempt.status.is_posted:
                call = self._tables.calls[attempt.key]
                if attempt.key in self._tables.locked:
                    is_unfinished |= call.due_at is not None and call.due_at > now
                else:
                    call.due_at = min(call.due_at or now, now)
        lease = self._tables.leases.pop(worker_id, None)
        if lease is not None and is_unfinished:
            # One of its calls is locked: the next reaper tries again.
            given_away = LeaseRow(worker_id, now, now, now - lease.length, now)
            self._tables.leases[worker_id] = given_away


def _lost(worker_id: str, since: datetime, now: datetime) -> Condition:
    # A process may lose its lease, wake up, and lose it again.
    key = f"lease_lost:{worker_id}:{now.timestamp()}"
    detail = {"worker_id": worker_id, "since": since.isoformat()}
    return Condition(AlertKind.LEASE_LOST, key, "", worker_id, detail)


def may_reap(tables: MemoryTables, worker_id: str, stable_for: timedelta, now: datetime) -> bool:
    """True if the process has a fresh lease that was stable long enough to reap."""
    lease = tables.leases.get(worker_id)
    if lease is None:
        return False
    is_fresh = now - lease.renewed_at <= lease.length / 2
    return is_fresh and now - lease.stable_since >= stable_for
