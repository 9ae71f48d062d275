"""
Group commit: all callers that arrive while a batch is written form the next batch.

There is no timer. A lone item is written at once. Under load batches grow, because more callers arrive while the
previous batch is written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class GroupCommit(Generic[In, Out]):
    """
    Turns a batch function into one that takes a single item.

    Args:
        run: Takes a batch and returns results in the same order. Its error is raised in every caller of the batch.
        batch_max: Items in one batch.
        weigh: The bytes of an item.
        weight_max: Bytes in one batch; a heavier item is written alone. A batch that is too large to be written in time
            would fail all its callers, and they would form the same batch again.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Awaitable[Sequence[Out]]],
        *,
        batch_max: int = 256,
        weigh: Callable[[In], int] = lambda _: 0,
        weight_max: int = 4 * 2**20,
    ) -> None:
        self._run = run
        self._batch_max = batch_max
        self._weigh = weigh
        self._weight_max = weight_max
        self._waiting: deque[tuple[In, asyncio.Future[Out]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, item: In) -> Out:
        """Write one item, together with all that wait."""
        answer: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await answer

    async def _write(self) -> None:
        try:
            while batch := self._take():
                await self._write_batch(batch)
        finally:
            self._writer = None

    def _take(self) -> list[tuple[In, asyncio.Future[Out]]]:
        batch: list[tuple[In, asyncio.Future[Out]]] = []
        weight = 0
        while self._waiting and len(batch) < self._batch_max:
            weight += self._weigh(self._waiting[0][0])
            if batch and weight > self._weight_max:
                break
            item, answer = self._waiting.popleft()
            # Its caller was cancelled while it waited.
            if not answer.done():
                batch.append((item, answer))
        return batch

    async def _write_batch(self, batch: list[tuple[In, asyncio.Future[Out]]]) -> None:
        try:
            outcomes = await self._run([item for item, _ in batch])
        except Exception as exc:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(exc)
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():
                answer.set_result(outcome)
