"""A way for any thread to end a coroutine's pause early."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class WakeableSleep:
    """One coroutine pauses, any thread may nudge it; nudges during its work end its next pause at once."""

    def __init__(self) -> None:
        self._nudged = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def give(self) -> None:
        """End the pause, or the next one. Before the first and after the last there is nobody to nudge."""
        if self._loop is not None:
            # A loop that is closed pauses no more.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._nudged.set)

    async def pause(self, seconds: float) -> None:
        """Wait until nudged, at most `seconds`."""
        self._loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._nudged.wait(), seconds)
        self._nudged.clear()
