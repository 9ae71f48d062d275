"""
An event loop for one provider, in a thread of its own.

A provider can make the reading of its bytes as dear as it likes: in a million chunks, or after a million interim
responses. In a loop of its own that is taken from its own calls; other threads have their turn all the same.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
Started = Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]


class ProviderLoop:
    """Runs coroutines for callers that are all in one other loop; its thread begins with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there; cancelled here, it is cancelled there."""
        if self._running is None:
            started: Started = Future()
            threading.Thread(
                target=lambda: asyncio.run(_serve(started)), name=self._name, daemon=True
            ).start()
            self._running = started.result()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running[0]))

    def stop(self) -> None:
        """Cancel what still runs; what is run later gets another thread."""
        if self._running is not None:
            (loop, end), self._running = self._running, None
            loop.call_soon_threadsafe(end.set)


async def _serve(started: Started) -> None:
    end = asyncio.Event()
    started.set_result((asyncio.get_running_loop(), end))
    await end.wait()
