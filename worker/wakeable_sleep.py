"""A sleep that other threads can end early."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class WakeableSleep:
    """One coroutine sleeps; any thread wakes it. A wake between two sleeps ends the next one at once."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """End the sleep, or the next one; without effect before the first sleep and after the loop has closed."""
        if self._loop is not None:
            # RuntimeError: the loop is closed.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._woken.set)

    async def sleep(self, seconds: float) -> None:
        """Wait until woken, at most `seconds`."""
        self._loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
        self._woken.clear()
