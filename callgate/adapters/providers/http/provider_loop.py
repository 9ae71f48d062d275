"""
An event loop for one provider, in its own thread.

A provider can make its replies expensive to read, for example by sending a million chunks or a million interim
responses. In its own loop that slows down only this provider's calls. Other threads still get their share of the CPU.
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
    """Runs coroutines in its own thread, for callers in one other event loop. The first call starts the thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: _LoopThread | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Run the coroutine in the provider's loop and return its result. Cancellation is passed on to it.

        Raises:
            OSError, RuntimeError: A loop or a thread cannot be created.
            ConnectionAbortedError: `stop` was called meanwhile.
        """
        try:
            self._thread = thread = self._thread or _LoopThread(self._name)
        except BaseException:
            work.close()
            raise
        remote = _RemoteTask(work, thread)
        thread.inbound.call(remote.begin)
        try:
            return await remote.result
        except asyncio.CancelledError:
            thread.inbound.call(remote.cancel)
            raise

    def stop(self) -> None:
        """Cancel everything that runs and end the thread. A later `run` starts another one."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            thread.inbound.call(thread.end.set)


class _LoopThread:
    """A running loop in its thread, and call queues into it and back to the loop of the callers."""

    def __init__(self, name: str) -> None:
        started: Started = Future()
        threading.Thread(target=_run_loop, args=(started,), name=name, daemon=True).start()
        self.loop, self.end = started.result()
        self.inbound = _CallQueue(self.loop)
        self.outbound = _CallQueue(asyncio.get_running_loop())


class _CallQueue:
    """Callbacks for a loop in another thread. All calls before the loop looks cost one wake-up together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._is_woken = False

    def call(self, callback: Callable[[], object]) -> None:
        """Call it in the loop's thread; do nothing if the loop is closed. The callback must not raise."""
        self._calls.append(callback)
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        """Run all queued callbacks. Called in the loop's thread."""
        # Reset first: a call that is added during the loop below wakes the loop again.
        self._is_woken = False
        for _ in range(len(self._calls)):
            self._calls.popleft()()


class _RemoteTask(Generic[T]):
    """One coroutine that runs in the provider's loop, and a future for its result in the caller's loop."""

    def __init__(self, work: Coroutine[Any, Any, T], thread: _LoopThread) -> None:
        self.result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work = work
        self._thread = thread
        self._context: Context = copy_context()
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        """Start the coroutine. Called in the provider's loop."""
        self._task = self._thread.loop.create_task(self._work, context=self._context)
        self._task.add_done_callback(self._send_back)

    def cancel(self) -> None:
        """Cancel the coroutine. Called in the provider's loop."""
        if self._task is not None:
            self._task.cancel()

    def _send_back(self, task: asyncio.Task[T]) -> None:
        """Queue the result for the caller's loop. Called in the provider's loop."""
        self._thread.outbound.call(lambda: self._set_result(task))

    def _set_result(self, task: asyncio.Task[T]) -> None:
        """Set the caller's future. Called in the caller's loop."""
        # The exception is read even if the caller is gone. Otherwise asyncio logs that it was never retrieved.
        error = ConnectionAbortedError() if task.cancelled() else task.exception()
        if self.result.done():
            return
        if error is not None:
            self.result.set_exception(error)
        else:
            self.result.set_result(task.result())


def _run_loop(started: Started) -> None:
    """The thread's body: run a loop until its `end` event. `started` gets the loop and that event, or the error."""
    runner = asyncio.Runner()
    try:
        runner.get_loop()
    except OSError as exc:
        # No file descriptor was free. Without this the caller would wait without end.
        started.set_exception(exc)
        return
    with runner:
        runner.run(_serve(started))


async def _serve(started: Started) -> None:
    """Report the running loop and its end event, then wait for that event."""
    end = asyncio.Event()
    started.set_result((asyncio.get_running_loop(), end))
    await end.wait()
