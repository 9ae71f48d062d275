"""What operators see of workers, in the memory ledger: `WorkersPort`."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime

from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import QUARANTINE_SWEEPS, CallState, WaitReason
from callgate.domain.worker_lines import (
    QUARANTINED_MAX,
    WORKERS_MAX,
    OpenLine,
    QuarantinedCall,
    WorkerLine,
)


class MemoryWorkers:
    """`WorkersPort` over the tables of the memory ledger."""

    def __init__(
        self, tables: MemoryTables, clock: Callable[[], datetime], lock: threading.Lock
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._lock = lock

    def worker_lines(self) -> list[WorkerLine]:
        """List worker processes."""
        with self._lock:
            now = self._clock()
            open_attempts = (a for a in self._tables.attempts.values() if not a.status.is_posted)
            busy = Counter(attempt.process for attempt in open_attempts)
            lines = [
                WorkerLine(
                    lease.worker_id, lease.began_at, (now - lease.renewed_at).total_seconds(),
                    lease.expires_at > now, lease.slots, busy[lease.worker_id], lease.fingerprint,
                )
                for lease in self._tables.leases.values()
                if not lease.is_given_away
            ]  # fmt: skip
            return sorted(lines, key=lambda w: (not w.is_live, w.worker_id))[:WORKERS_MAX]

    def open_lines(self) -> list[OpenLine]:
        """Count open calls."""
        with self._lock:
            groups: defaultdict[tuple[str, str, str], list[datetime]] = defaultdict(list)
            for call in self._open():
                is_queued = call.state is CallState.QUEUED
                reason = call.wait_reason.value if call.wait_reason else ""
                lane = call.lane.value if is_queued else ""
                groups[call.state.value, reason, lane].append(call.created_at)
            return [
                OpenLine(*name, len(times), min(times)) for name, times in sorted(groups.items())
            ]

    def quarantined(self, *, limit: int = QUARANTINED_MAX) -> list[QuarantinedCall]:
        """List calls that may have killed a worker."""
        with self._lock:
            lines = [
                self._line(call, sum(a.is_lost for a in self._tables.attempts_of[call.key]))
                for call in self._open()
            ]
            found = [
                line
                for line in lines
                if line.worker_losses
                or line.sweeps >= QUARANTINE_SWEEPS
                or line.wait_reason == WaitReason.QUARANTINE
            ]
            return sorted(found, key=lambda c: (c.created_at, c.key.call_id))[:limit]

    def _open(self) -> list[CallRow]:
        return [call for call in self._tables.calls.values() if call.state.is_open]

    def _line(self, call: CallRow, losses: int) -> QuarantinedCall:
        return QuarantinedCall(
            key=call.key,
            org_id=call.org_id,
            call_type=call.call_type,
            provider=call.provider,
            model=call.model,
            state=call.state.value,
            wait_reason=call.wait_reason.value if call.wait_reason else "",
            attempts=call.attempt,
            worker_losses=losses,
            sweeps=call.sweeps,
            created_at=call.created_at,
            due_at=call.due_at,
        )
