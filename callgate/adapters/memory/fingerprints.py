"""The fingerprints of worker processes in memory: fields of their leases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.alerts import AlertKind
from callgate.domain.fingerprints import (
    NO_SECTIONS,
    SILENT_SHOWN_S,
    ExpiredLease,
    Fingerprint,
    LiveWorker,
)

EXPIRED_MAX = 100


class MemoryFingerprints:
    """`FingerprintPort` over the tables of the memory ledger."""

    def __init__(
        self, tables: MemoryTables, clock: Callable[[], datetime], lock: threading.Lock
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._lock = lock

    def publish(
        self, worker_id: str, fingerprint: Fingerprint, sections: Mapping[str, str] = NO_SECTIONS
    ) -> None:
        """Keep it with the lease."""
        with self._lock:
            if lease := self._tables.leases.get(worker_id):
                lease.fingerprint, lease.sections = fingerprint, dict(sections)

    def workers(self) -> list[LiveWorker]:
        """List live workers."""
        with self._lock:
            leases = sorted(self._tables.leases.values(), key=lambda lease: lease.worker_id)
            return [
                LiveWorker(lease.worker_id, lease.began_at, lease.fingerprint, lease.sections)
                for lease in leases
                if lease.expires_at > self._clock()
            ]

    def expired(self) -> list[ExpiredLease]:
        """List expired leases, and those that were reaped within the last hour."""
        with self._lock:
            now = self._clock()
            kept = {x.worker_id: x for x in self._tables.leases.values() if not x.is_given_away}
            gone = {
                x.worker_id: (x.renewed_at, False) for x in kept.values() if x.expires_at <= now
            }
            for alert in self._tables.alerts.values():
                is_recent = now - alert.at < timedelta(seconds=SILENT_SHOWN_S)
                if alert.kind is AlertKind.LEASE_LOST and is_recent and alert.subject not in kept:
                    gone[alert.subject] = datetime.fromisoformat(alert.detail["since"]), True
            found = [
                ExpiredLease(worker_id, since, (now - since).total_seconds(), is_taken_over)
                for worker_id, (since, is_taken_over) in gone.items()
            ]
            found.sort(key=lambda lease: (-lease.since.timestamp(), lease.worker_id))
            return found[:EXPIRED_MAX]
