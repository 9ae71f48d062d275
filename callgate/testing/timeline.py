"""Time that passes only when somebody waits: coroutines sleep until a time, and the time jumps to the next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Coroutine, Generator
from datetime import datetime, timedelta
from types import coroutine
from typing import Any

JITTER = 0.5
"""Every random share is this one, so that a test does the same each time."""


class Timeline:
    """
    `ClockPort` in virtual time, and the coroutines that sleep by it.

    Nothing of the product's services waits for anything but its clock, so no event loop is needed.
    """

    def __init__(self, begins_at: datetime) -> None:
        self._begins_at = begins_at
        self._now_s = 0.0
        self._sleepers: list[tuple[float, int, Coroutine[Any, Any, object]]] = []
        self._numbers = itertools.count()

    def now(self) -> datetime:
        """The time of day."""
        return self._begins_at + timedelta(seconds=self._now_s)

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        return self._now_s

    def jitter(self) -> float:
        """Always the same."""
        return JITTER

    async def sleep(self, seconds: float) -> None:
        """Let others run until then."""
        await _until(self._now_s + max(seconds, 0.0))

    def pass_time(self, seconds: float) -> None:
        """Move on, and wake nobody yet."""
        self._now_s += max(seconds, 0.0)

    def move_to(self, at_s: float) -> None:
        """Move on to a time."""
        self._now_s = max(self._now_s, at_s)

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine up to its first sleep."""
        self._go_on(work)

    def wake(self) -> bool:
        """Run one coroutine whose time has come; False if there is none."""
        if not self._sleepers or self._sleepers[0][0] > self._now_s:
            return False
        self._go_on(heapq.heappop(self._sleepers)[2])
        return True

    def next_s(self) -> float | None:
        """When the next coroutine wakes."""
        return self._sleepers[0][0] if self._sleepers else None

    def close(self) -> None:
        """End the coroutines that still sleep."""
        while self._sleepers:
            self._sleepers.pop()[2].close()

    def _go_on(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            wakes_at_s = work.send(None)
        except StopIteration:
            return
        if not isinstance(wakes_at_s, float):
            work.close()
            raise TypeError("it waits for something else than the clock of this test")
        heapq.heappush(self._sleepers, (wakes_at_s, next(self._numbers), work))


@coroutine
def _until(at_s: float) -> Generator[float, None, None]:
    yield at_s
