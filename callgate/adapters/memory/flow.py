"""Provider limits in memory: `FlowPort` over the tables of the memory ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from callgate.adapters.memory import limits
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.limits import Declaration, Learned


class MemoryFlow:
    """What the memory ledger knows about limits; every method is one transaction under the ledger's lock."""

    def __init__(
        self, tables: MemoryTables, clock: Callable[[], datetime], lock: threading.Lock
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._lock = lock

    def publish(self, worker_id: str, declaration: Declaration) -> None:
        """Let a declaration count; see `FlowPort.publish`."""
        with self._lock:
            limits.publish(self._tables, worker_id, declaration, self._clock())

    def learn(self, batch: Sequence[Learned]) -> None:
        """Keep what providers named; see `FlowPort.learn`."""
        with self._lock:
            for each in batch:
                limits.learn(self._tables, each, self._clock())
