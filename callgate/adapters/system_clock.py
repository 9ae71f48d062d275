"""The time of a worker process: it counts on while the host is suspended, so that nothing is sent late after that."""

from __future__ import annotations

import asyncio
import random
import time

CLOCK_ID: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops CLOCK_MONOTONIC while the host is suspended; macOS, which has no other, does not."""


def monotonic() -> float:
    """Seconds that never go back, nor stand still while the host is suspended."""
    return time.clock_gettime(CLOCK_ID)


class SystemClock:
    """`ClockPort` of a real process."""

    def monotonic(self) -> float:
        """Seconds that never go back; see `monotonic`."""
        return monotonic()

    def jitter(self) -> float:
        """A random number in [0, 1)."""
        return random.random()  # noqa: S311 - spreads load, guards nothing

    async def sleep(self, seconds: float) -> None:
        """Wait. The event loop's timers stand still while the host is suspended: it may take that much longer."""
        await asyncio.sleep(seconds)
