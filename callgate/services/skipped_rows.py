"""
Items whose calls were locked when this process tried to change them; they are tried again later.

A client's login can lock the rows of its own calls for as long as it keeps a transaction open. No worker waits for such
a lock. The item is kept here and tried again after growing pauses. If `ITEMS_MAX` items are kept already, the due query
or a sweep finds the call.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from callgate.domain.ports import ClockPort

T = TypeVar("T")

PAUSE_MIN_S, PAUSE_MAX_S = 0.5, 30.0
ITEMS_MAX = 1_000
"""Bounds the memory and the work: even if all are tried every thirty seconds, that is little."""


class SkippedRows(Generic[T]):
    """
    Items and when to try them again; any thread may use it.

    Args:
        lock: A lock for this object only. A process with one thread gives a context that does nothing.
    """

    def __init__(self, clock: ClockPort, lock: AbstractContextManager[object]) -> None:
        self._clock = clock
        self._lock = lock
        self._waiting: dict[T, tuple[float, float]] = {}
        """When to try again, and how long the pause before is."""
        self._tried: dict[T, float] = {}
        """The last pauses of the items that are being tried."""

    def add(self, item: T) -> None:
        """Keep an item that is locked; its pause doubles each time."""
        with self._lock:
            if item not in self._waiting and len(self._waiting) < ITEMS_MAX:
                pause_s = min(2 * self._tried.pop(item, PAUSE_MIN_S / 2), PAUSE_MAX_S)
                self._waiting[item] = self._clock.monotonic() + pause_s, pause_s

    def take(self, limit: int) -> list[T]:
        """Take the items to try now. The caller adds again what is still locked."""
        with self._lock:
            now = self._clock.monotonic()
            taken = [item for item, (at, _) in self._waiting.items() if at <= now][:limit]
            self._tried = {item: self._waiting.pop(item)[1] for item in taken}
            return taken
