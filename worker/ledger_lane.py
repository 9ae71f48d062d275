"""The ledger as coroutines see it: single items, grouped into batches, written in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

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
from callgate.domain.ports import LedgerPort, QueuePort
from callgate.services.group_commit import GroupCommit

In = TypeVar("In")
Out = TypeVar("Out")


class LedgerLane:
    """`CallLedger` for one process: a group commit per step, and one for publishing log tasks."""

    def __init__(self, ledger: LedgerPort, queue: QueuePort, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._read = GroupCommit(self._batched(lambda keys: ledger.read(keys, Bodies.REQUEST)))
        self._reserve = GroupCommit(self._batched(ledger.reserve))
        self._record = GroupCommit(self._batched(ledger.record))
        self._publish = GroupCommit(self._batched(partial(_published, queue)))

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

    def _batched(
        self, run: Callable[[Sequence[In]], Sequence[Out]]
    ) -> Callable[[Sequence[In]], asyncio.Future[Sequence[Out]]]:
        return lambda batch: asyncio.get_running_loop().run_in_executor(self._threads, run, batch)


def _published(queue: QueuePort, refs: Sequence[AttemptRef]) -> Sequence[None]:
    queue.publish_logs(refs)
    return [None] * len(refs)
