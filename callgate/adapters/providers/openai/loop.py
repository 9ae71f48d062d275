"""
An event loop for one provider, in a thread of its own.

A provider can make the reading of its bytes as dear as it likes: in a million chunks, or after a million interim
responses. In a loop of its own that is taken from its own calls; other threads have their turn all the same.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Started = Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]


class ProviderLoop:
    """Runs coroutines for callers that are all in one other loop; its thread begins with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: _Running | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Run it there; cancelled here, it is cancelled there.

        Raises:
            OSError, RuntimeError: No loop or thread can be had.
            ConnectionAbortedError: The loop was stopped meanwhile.
        """
        try:
            self._running = running = self._running or _Running(self._name)
        except BaseException:
            work.close()
            raise
        errand = _Errand(work, running)
        running.there.call(errand.begin)
        try:
            return await errand.result
        except asyncio.CancelledError:
            running.there.call(errand.cancel)
            raise

    def stop(self) -> None:
        """Cancel what still runs; what is run later gets another thread."""
        if self._running is not None:
            running, self._running = self._running, None
            running.there.call(running.end.set)


class _Running:
    """A loop in its thread, the way into it, and the way back to the loop that began it."""

    def __init__(self, name: str) -> None:
        started: Started = Future()
        threading.Thread(target=_live, args=(started,), name=name, daemon=True).start()
        self.loop, self.end = started.result()
        self.there = _Way(self.loop)
        self.back = _Way(asyncio.get_running_loop())


class _Way:
    """Into a loop of another thread. What is called before that loop looks costs one wake-up together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._is_woken = False

    def call(self, callback: Callable[[], object]) -> None:
        """Have it called there, unless that loop is closed; it must not raise."""
        self._calls.append(callback)
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        # Before the first is taken: what comes later wakes it up again.
        self._is_woken = False
        for _ in range(len(self._calls)):
            self._calls.popleft()()


class _Errand(Generic[T]):
    """One coroutine on its way there, and its result on its way back."""

    def __init__(self, work: Coroutine[Any, Any, T], running: _Running) -> None:
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work = work
        self._running = running
        self._context: Context = copy_context()
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        self._task = self._running.loop.create_task(self._work, context=self._context)
        self._task.add_done_callback(self._return)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _return(self, task: asyncio.Task[T]) -> None:
        self._running.back.call(lambda: self._land(task))

    def _land(self, task: asyncio.Task[T]) -> None:
        # Asked also where nobody waits for it: else the loop would log that nobody did.
        error = ConnectionAbortedError() if task.cancelled() else task.exception()
        if self.result.done():
            return
        if error is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())


def _live(started: Started) -> None:
    runner = asyncio.Runner()
    try:
        runner.get_loop()
    except OSError as exc:
        # No file descriptor was free: else the caller would wait for a loop that never is.
        started.set_exception(exc)
        return
    with runner:
        runner.run(_serve(started))


async def _serve(started: Started) -> None:
    end = asyncio.Event()
    started.set_result((asyncio.get_running_loop(), end))
    await end.wait()
