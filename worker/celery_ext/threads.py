"""
The two kinds of threads of a worker process: one event loop, and a few task threads.

Both are daemons and every wait for them is bounded: code that never returns may cost its own
work, but it cannot keep the process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from queue import Empty, SimpleQueue

logger = logging.getLogger(__name__)

_JOIN_S = 1.0

LoopResource = Callable[[], AbstractAsyncContextManager[object]]
"""Makes something that lives as long as the loop: entered before intake, exited after the drain."""


class LoopResourceStartError(RuntimeError):
    """A service of the loop did not start, so neither does the worker."""


class LoopThread:
    """Run one event loop, and its services, in a thread of its own."""

    def __init__(self, services: Sequence[LoopResource], on_death: Callable[[], None]) -> None:
        """
        Prepare; nothing runs before `start`.

        Args:
            on_death: Called in the loop thread if the loop ends though nobody asked it to.
        """
        self._services = tuple(services)
        self._on_death = on_death
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop: asyncio.Event | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asyncio-pool", daemon=True)

    def start(self, timeout_s: float) -> asyncio.AbstractEventLoop:
        """
        Enter every service, in order, and return the running loop.

        Raises:
            ServiceStartError: one failed, or all together took longer than `timeout_s`.
        """
        self._thread.start()
        try:
            return self._started.result(timeout_s)
        except TimeoutError as error:
            raise LoopResourceStartError(f"services were not up within {timeout_s} s") from error

    def stop(self, timeout_s: float) -> bool:
        """Exit the services in reverse order and end the loop; False if that took too long."""
        if self._stop is not None:
            # A loop that is closed has no services left to exit.
            with suppress(RuntimeError):
                self._started.result().call_soon_threadsafe(self._stop.set)
        is_over = self._is_over.wait(timeout_s)
        # What is left can only be coroutines that do not let themselves be cancelled.
        self._thread.join(_JOIN_S)
        return is_over

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except LoopResourceStartError as error:
            self._started.set_exception(error)
        except BaseException:
            logger.critical("the event loop failed", exc_info=True)
        self._is_over.set()
        if self._stop is not None and not self._stop.is_set():
            self._on_death()

    async def _main(self) -> None:
        async with AsyncExitStack() as stack:
            for service in self._services:
                await _enter(stack, service)
            self._stop = asyncio.Event()
            self._started.set_result(asyncio.get_running_loop())
            await self._stop.wait()
        self._is_over.set()


async def _enter(stack: AsyncExitStack, service: LoopResource) -> None:
    try:
        await stack.enter_async_context(service())
    except Exception as error:
        name = getattr(service, "__qualname__", repr(service))
        raise LoopResourceStartError(f"service {name} did not start: {error!r}") from error


class TaskThreads:
    """A few threads for code that blocks; work beyond them waits its turn."""

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
        """Run `work` in one of the threads; what it raises is logged, what it returns is lost."""
        with self._lock:
            self._unfinished += 1
        self._work.put(work)

    @property
    def unfinished(self) -> int:
        """How many pieces of work wait or run."""
        return self._unfinished

    def drop_waiting(self) -> None:
        """Forget the work that no thread has begun."""
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
                logger.exception("a task thread's work failed outside of its task")
            # A waiting thread must not keep the last task's arguments alive.
            del work
            self._done()

    def _done(self) -> None:
        with self._lock:
            self._unfinished -= 1
