"""The clock of a worker process. It includes time in which the host is suspended, so deadlines hold after a resume."""

from __future__ import annotations

import asyncio
import random
import time

CLOCK_ID: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""On Linux CLOCK_MONOTONIC stops while the host is suspended. macOS has no CLOCK_BOOTTIME and does not need it."""


def monotonic() -> float:
    """Seconds since an arbitrary start. They never decrease, and they include suspended time."""
    return time.clock_gettime(CLOCK_ID)


class SystemClock:
    """`ClockPort` over the system's clocks."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; see the function `monotonic`."""
        return monotonic()

    def jitter(self) -> float:
        """A random number in [0, 1)."""
        return random.random()  # noqa: S311 - spreads load, guards nothing

    async def sleep(self, seconds: float) -> None:
        """Wait at least so long. Timers of the event loop stop while the host is suspended, so it may take longer."""
        await asyncio.sleep(seconds)
