"""
What this process could not do because somebody held the call: to be tried again, apart from everything else.

A client's login can hold the rows of its own calls for as long as it keeps a transaction open. Nobody waits for them:
what was locked is kept here and tried again, soon at first, then ever less often. What finds no room here is found by
the due query, or by a sweep.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from callgate.domain.ports import ClockPort

T = TypeVar("T")

PAUSE_S_MIN, PAUSE_S_MAX = 0.5, 30.0
ITEMS_MAX = 1_000
"""Tried again every thirty seconds by one process, that is little work; those who hold more wait for the due query."""


class SkippedRows(Generic[T]):
    """
    Items by the time they are to be tried again; any thread may use it.

    Args:
        lock: A lock of this process for it alone; where one thread does everything, a context that does nothing.
    """

    def __init__(self, clock: ClockPort, lock: AbstractContextManager[object]) -> None:
        self._clock = clock
        self._lock = lock
        self._waiting: dict[T, tuple[float, float]] = {}
        """When to try again, and how long the pause before is."""
        self._tried: dict[T, float] = {}
        """The last pauses of the items that are being tried."""

    def add(self, item: T) -> None:
        """Keep an item that was locked, or still is; its pause doubles each time."""
        with self._lock:
            if item not in self._waiting and len(self._waiting) < ITEMS_MAX:
                pause_s = min(2 * self._tried.pop(item, PAUSE_S_MIN / 2), PAUSE_S_MAX)
                self._waiting[item] = self._clock.monotonic() + pause_s, pause_s

    def take(self, limit: int) -> list[T]:
        """Take what is to be tried now; what is locked again is to be added again."""
        with self._lock:
            now = self._clock.monotonic()
            taken = [item for item, (at, _) in self._waiting.items() if at <= now][:limit]
            self._tried = {item: self._waiting.pop(item)[1] for item in taken}
            return taken
