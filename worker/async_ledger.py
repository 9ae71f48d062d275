"""The ledger for coroutines: they pass single items, which are written in batches by a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.ledger import RecordAnswer, RecordOutcome, ReserveCommand, ReserveOutcome
from callgate.domain.ports import LedgerPort, QueuePort
from worker.group_commit import GroupCommit

In = TypeVar("In")
Out = TypeVar("Out")


class AsyncLedger:
    """`CallLedger` for one process: one group commit per step, and one that publishes log tasks."""

    def __init__(self, ledger: LedgerPort, queue: QueuePort, threads: ThreadPoolExecutor) -> None:
        def read(keys: Sequence[CallKey]) -> Sequence[CallView | None]:
            return list(ledger.read(keys, Bodies.LIGHT))

        def read_whole(keys: Sequence[CallKey]) -> Sequence[CallView | None]:
            return list(ledger.read(keys, Bodies.REQUEST))

        def read_answer(refs: Sequence[AttemptRef]) -> Sequence[CallView | None]:
            return list(ledger.read(refs, Bodies.REPLY))

        def publish(refs: Sequence[AttemptRef]) -> Sequence[None]:
            queue.publish_settle_tasks(refs)
            return [None] * len(refs)

        self._read = GroupCommit(_in_threads(threads, read))
        # One at a time: each large request has its own deadline.
        self._read_whole = GroupCommit(_in_threads(threads, read_whole), batch_max=1)
        self._read_answer = GroupCommit(_in_threads(threads, read_answer), batch_max=1)
        self._reserve = GroupCommit(_in_threads(threads, ledger.reserve))
        self._record = GroupCommit(_in_threads(threads, ledger.record), weigh=_bytes_of)
        self._publish = GroupCommit(_in_threads(threads, publish))

    async def read(self, key: CallKey) -> CallView | None:
        """Read one call, with its request unless that is large."""
        return await self._read(key)

    async def read_whole(self, key: CallKey) -> CallView | None:
        """Read one call, with its request of any size."""
        return await self._read_whole(key)

    async def read_answer(self, ref: AttemptRef) -> CallView | None:
        """Read one call, with the reply of an attempt."""
        return await self._read_answer(ref)

    async def reserve(self, command: ReserveCommand) -> ReserveOutcome:
        """Claim it and hold its cost, or reject or defer it."""
        return await self._reserve(command)

    async def record(self, record: RecordAnswer) -> RecordOutcome:
        """Store its answer."""
        return await self._record(record)

    async def publish_settle_task(self, ref: AttemptRef) -> None:
        """Publish the log task of an answered attempt."""
        await self._publish(ref)


def _bytes_of(record: RecordAnswer) -> int:
    return len(record.reply or b"") + len(record.error or "")


def _in_threads(
    threads: ThreadPoolExecutor, run: Callable[[Sequence[In]], Sequence[Out]]
) -> Callable[[Sequence[In]], asyncio.Future[Sequence[Out]]]:
    return lambda batch: asyncio.get_running_loop().run_in_executor(threads, run, batch)
