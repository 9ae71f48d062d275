"""The time of a client: what it waits by, for results and for room. The testing kit has one that does not sleep."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

from callgate.adapters.system_clock import SystemClock


class ClientClock(Protocol):
    """A client's own time, and how it lets time pass."""

    def now(self) -> datetime:
        """The time of day, aware."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""

    def jitter(self) -> float:
        """A random number in [0, 1)."""

    def pause(self, seconds: float) -> None:
        """Wait at most so long, in this thread."""

    async def apause(self, seconds: float) -> None:
        """Wait at most so long, without blocking the event loop."""


class SystemClientClock(SystemClock):
    """`ClientClock` over the system's clocks."""

    def now(self) -> datetime:
        """The time of day, aware."""
        return datetime.now(UTC)

    def pause(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    async def apause(self, seconds: float) -> None:
        """Sleep, without blocking the event loop."""
        await asyncio.sleep(seconds)


SYSTEM_TIME = SystemClientClock()
