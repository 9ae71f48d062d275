"""What the tasks of one worker process find: its services, and what lives as long as its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from celery import Celery

from callgate.adapters.broker.app import RUNTIME
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.ports import LLMProviderPort
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.llm_service import LLMService
from callgate.services.recovery import RecoveryService
from worker.isolation.executor import QuarantineExecutor
from worker.lease_renewer import LeaseRenewer
from worker.lock_watch import LockWatch
from worker.loops import SharedLoops
from worker.status import Status


@dataclass(frozen=True, slots=True)
class Runtime:
    """The services of one worker process, and their lifetime."""

    llm: LLMService
    call_logger: AICallLogger
    recovery: RecoveryService
    operations: OperationsPort
    providers: Mapping[str, LLMProviderPort]
    isolation: QuarantineExecutor | None
    _loops: SharedLoops
    _lease_renewer: LeaseRenewer
    _lock_watch: LockWatch
    _status: Status
    _check: Callable[[], None]
    _close: Callable[[], None]

    @asynccontextmanager
    async def running(self, *, run_shared_loops: bool = True) -> AsyncIterator[None]:
        """
        Run everything that lives as long as the event loop: lease, loops, child processes, provider connections.

        Args:
            run_shared_loops: False in a child process, whose worker runs them.
        """
        self._lease_renewer.start()
        if run_shared_loops:
            self._lock_watch.start()
            self._status.start()
        coroutines = self._loops.coroutines() if run_shared_loops else ()
        loops = [asyncio.create_task(coroutine) for coroutine in coroutines]
        try:
            yield
        finally:
            self._status.drain()
            for loop in loops:
                loop.cancel()
                with suppress(asyncio.CancelledError):
                    await loop
            if self.isolation is not None:
                await self.isolation.aclose()
            for provider in self.providers.values():
                await provider.aclose()
            # Last: the calls in flight have ended or were cut off, so nothing is sent any more.
            stops = (self._lease_renewer.stop, self._lock_watch.stop)
            await asyncio.gather(*(asyncio.to_thread(stop) for stop in stops))
            await self._status.stop()

    def check(self) -> None:
        """
        Query the ledger once, so that a worker without a usable ledger does not start.

        Raises:
            NotMigrated, LedgerUnavailable, ConfigurationError
        """
        self._check()

    def close(self) -> None:
        """Close threads and connections."""
        self._close()


def attach(app: Celery, runtime: Runtime) -> None:
    """Make this the runtime of all tasks of the app."""
    setattr(app, RUNTIME, runtime)


def runtime_of(app: Celery) -> Runtime:
    """
    Return the runtime of an app's tasks.

    Raises:
        RuntimeError: The worker was not started with `callgate worker`.
    """
    runtime = getattr(app, RUNTIME, None)
    if not isinstance(runtime, Runtime):
        raise RuntimeError("callgate's tasks run in a process started by `callgate worker`")
    return runtime
