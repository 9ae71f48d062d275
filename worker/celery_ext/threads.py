"""
The two kinds of threads of a worker process: one event loop, and a few task threads.

All are daemon threads, and every wait for them is bounded: code that never returns loses its own work, but it cannot
keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from queue import Empty, SimpleQueue

import structlog

log = structlog.get_logger(__name__)

_JOIN_S = 1.0

LoopResource = Callable[[], AbstractAsyncContextManager[object]]
"""Makes a context manager that lives as long as the loop: entered before intake, exited after the drain."""


class LoopResourceStartError(RuntimeError):
    """A resource of the loop did not start, so the worker does not start either."""


class LoopThread:
    """One event loop, and the resources that live as long as it, in its own thread."""

    def __init__(self, resources: Sequence[LoopResource], on_death: Callable[[], None]) -> None:
        """
        Prepare; nothing runs before `start`.

        Args:
            on_death: Called in the loop thread if the loop ends without `stop`.
        """
        self._resources = tuple(resources)
        self._on_death = on_death
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop: asyncio.Event | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asyncio-pool", daemon=True)

    def start(self, timeout_s: float) -> asyncio.AbstractEventLoop:
        """
        Enter the resources, in order, and return the running loop.

        Raises:
            LoopResourceStartError: One failed, or all together took longer than `timeout_s`.
        """
        self._thread.start()
        try:
            return self._started.result(timeout_s)
        except TimeoutError as error:
            raise LoopResourceStartError(f"resources were not up within {timeout_s} s") from error

    def stop(self, timeout_s: float) -> bool:
        """Exit the resources in reverse order and end the loop; False if that took too long."""
        if self._stop is not None:
            # RuntimeError: the loop is closed, and has no resources left to exit.
            with suppress(RuntimeError):
                self._started.result().call_soon_threadsafe(self._stop.set)
        is_over = self._is_over.wait(timeout_s)
        # A thread that still runs has coroutines that suppress their cancellation.
        self._thread.join(_JOIN_S)
        return is_over

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except LoopResourceStartError as error:
            self._started.set_exception(error)
        except BaseException:
            log.critical("event_loop.died", exc_info=True)
        self._is_over.set()
        if self._stop is not None and not self._stop.is_set():
            self._on_death()

    async def _main(self) -> None:
        async with AsyncExitStack() as stack:
            for resource in self._resources:
                await _enter(stack, resource)
            self._stop = asyncio.Event()
            self._started.set_result(asyncio.get_running_loop())
            await self._stop.wait()
        self._is_over.set()


async def _enter(stack: AsyncExitStack, resource: LoopResource) -> None:
    try:
        await stack.enter_async_context(resource())
    except Exception as error:
        name = getattr(resource, "__qualname__", repr(resource))
        raise LoopResourceStartError(f"resource {name} did not start: {error!r}") from error


class TaskThreads:
    """A few threads for blocking code, with a queue in front of them."""

    def __init__(self, threads_max: int) -> None:
        self.threads_max = threads_max
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._unfinished = 0
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all threads."""
        for number in range(self.threads_max):
            threading.Thread(target=self._run, name=f"task-{number}", daemon=True).start()

    def submit(self, work: Callable[[], object]) -> None:
        """Run `work` in one of the threads. Its error is logged, its return value dropped."""
        with self._lock:
            self._unfinished += 1
        self._work.put(work)

    @property
    def unfinished(self) -> int:
        """How many calls wait or run."""
        return self._unfinished

    def drop_waiting(self) -> None:
        """Drop the work that no thread has started."""
        while True:
            try:
                self._work.get_nowait()
            except Empty:
                return
            self._done()

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            except BaseException:
                log.exception("task_thread.failed")
            # While the thread waits, it must not keep the last task's arguments alive.
            del work
            self._done()

    def _done(self) -> None:
        with self._lock:
            self._unfinished -= 1
