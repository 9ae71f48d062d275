"""The ledger as coroutines see it: single items, grouped into batches, written in a few threads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from callgate.domain.ledger import (
    AttemptRef,
    Bodies,
    CallKey,
    CallView,
    Record,
    RecordOutcome,
    Reserve,
    ReserveOutcome,
)
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ports import ClockPort, LedgerPort, QueuePort
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.group_commit import GroupCommit
from callgate.services.llm_service import Patience

log = structlog.get_logger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")


class LedgerLane:
    """`CallLedger` for one process: a group commit per step, and one for publishing log tasks."""

    def __init__(self, ledger: LedgerPort, queue: QueuePort, threads: ThreadPoolExecutor) -> None:
        def read(keys: Sequence[CallKey]) -> Sequence[CallView | None]:
            return ledger.read(keys, Bodies.REQUEST)

        def publish(refs: Sequence[AttemptRef]) -> Sequence[None]:
            queue.publish_logs(refs)
            return [None] * len(refs)

        self._read = GroupCommit(_in_threads(threads, read))
        self._reserve = GroupCommit(_in_threads(threads, ledger.reserve))
        self._record = GroupCommit(_in_threads(threads, ledger.record))
        self._publish = GroupCommit(_in_threads(threads, publish))

    async def read(self, key: CallKey) -> CallView | None:
        """Look at one call, with its request."""
        return await self._read(key)

    async def reserve(self, reserve: Reserve) -> ReserveOutcome:
        """Claim it and hold its cost."""
        return await self._reserve(reserve)

    async def record(self, record: Record) -> RecordOutcome:
        """Keep its answer."""
        return await self._record(record)

    async def publish_log(self, ref: AttemptRef) -> None:
        """Publish the log task of an answered attempt."""
        await self._publish(ref)


class LogLane:
    """Settles attempts for one process, in batches; the log task's other half."""

    def __init__(
        self,
        logger: AICallLogger,
        clock: ClockPort,
        grace_s: float,
        threads: ThreadPoolExecutor,
        *,
        batch_max: int,
    ) -> None:
        def settle(refs: Sequence[AttemptRef]) -> Sequence[str]:
            states = {s.ref: s.state.value for s in logger.settle(refs)}
            return [states.get(ref, "settled before") for ref in refs]

        self._settle = GroupCommit(_in_threads(threads, settle), batch_max=batch_max)
        self._patience = Patience(grace_s=grace_s)
        self._clock = clock

    async def settle(self, ref: AttemptRef) -> str:
        """
        Settle one attempt.

        Raises:
            LedgerUnavailable: Settling it again is safe, and the due query will.
        """
        return await self._settle(ref)

    async def log(self, ref: AttemptRef) -> str:
        """Settle one attempt, however long the ledger is away: its message stays unacknowledged meanwhile."""
        for failures in itertools.count():
            try:
                return await self._settle(ref)
            except LedgerUnavailable as exc:
                log.warning("log_waits_for_the_ledger", attempt_id=str(ref.attempt_id), reason=str(exc))
                pause_s = self._patience.backoff_s(failures, self._clock.jitter())
                await self._clock.sleep(pause_s)
        raise AssertionError("unreachable")


def _in_threads(
    threads: ThreadPoolExecutor, run: Callable[[Sequence[In]], Sequence[Out]]
) -> Callable[[Sequence[In]], asyncio.Future[Sequence[Out]]]:
    return lambda batch: asyncio.get_running_loop().run_in_executor(threads, run, batch)
