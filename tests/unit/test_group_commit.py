"""Group commit: a lone item is written at once, waiting ones together, and no caller hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from worker.group_commit import GroupCommit


class Writer:
    """Doubles numbers, batch by batch; a batch is written when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def write(self, batch: Sequence[int]) -> list[int]:
        """Wait for the test, then answer in order."""
        self.batches.append(list(batch))
        await self.gate.wait()
        if 13 in batch:
            raise ValueError("thirteen")
        return [2 * number for number in batch]


def test_waiting_items_form_the_next_batch() -> None:
    """The first is written alone; the others arrive meanwhile and share a batch, bounded by `batch_max`."""

    async def story() -> tuple[list[int], list[list[int]]]:
        writer = Writer()
        commit = GroupCommit(writer.write, batch_max=3)
        callers = [asyncio.create_task(commit(n)) for n in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writer.gate.set()
        return await asyncio.gather(*callers), writer.batches

    answers, batches = asyncio.run(story())

    assert answers == [0, 2, 4, 6, 8]
    assert [len(batch) for batch in batches] in ([1, 3, 1], [3, 2])


def test_an_error_reaches_every_caller_of_its_batch_and_no_other() -> None:
    """No caller hangs, and the next batch is written."""

    async def story() -> list[object]:
        writer = Writer()
        writer.gate.set()
        commit = GroupCommit(writer.write)
        bad = await asyncio.gather(commit(13), commit(1), return_exceptions=True)
        return [*bad, await commit(4)]

    first, second, later = asyncio.run(story())

    assert isinstance(first, ValueError)
    assert isinstance(second, ValueError)
    assert later == 8


def test_a_cancelled_item_is_not_written() -> None:

    async def story() -> list[list[int]]:
        writer = Writer()
        commit = GroupCommit(writer.write)
        first = asyncio.create_task(commit(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = asyncio.create_task(commit(2))
        await asyncio.sleep(0)
        second.cancel()
        writer.gate.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
        return writer.batches

    assert asyncio.run(story()) == [[1]]


def test_a_batch_has_a_bounded_weight() -> None:
    """An item over the limit is written alone, and delays no other."""

    async def story() -> list[list[int]]:
        writer = Writer()
        commit = GroupCommit(writer.write, weigh=lambda number: number, weight_max=10)
        callers = [asyncio.create_task(commit(n)) for n in (7, 6, 4, 3, 99, 2, 2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        writer.gate.set()
        await asyncio.gather(*callers)
        return writer.batches

    assert asyncio.run(story()) == [[7], [6, 4], [3], [99], [2, 2]]
