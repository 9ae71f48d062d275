"""Suspects in processes of their own, with children that need no services."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from callgate.adapters.system_clock import monotonic
from callgate.domain.calls import CallKey
from callgate.services.delivery_result import Deferred, DeliveryResult
from tests.support.deployment import CHECKOUT, until
from tests.support.isolated_child import ANSWER, BABBLE, DIE, DOES_NOT_START, HANG
from worker.isolation import executor as isolation
from worker.isolation.executor import TURN_MAX_S, WAITING_PER_CHILD, QuarantineExecutor
from worker.isolation.forkserver import Child

LONG_S = 3_600.0
NOT_STUCK: Callable[[], float | None] = lambda: None  # noqa: E731

OWNER = """
import asyncio, sys
from tests.support.isolated_child import HANG
from worker.isolation.executor import QuarantineExecutor

async def main():
    isolation = QuarantineExecutor(sys.argv[1:], children_max=1, healthy_since=lambda: None)
    while True:
        await isolation(HANG, "acme", 3600.0)
        await asyncio.sleep(0.02)

asyncio.run(main())
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """The file in which children write that they started."""
    return tmp_path / "notes"


def argv(notes: Path, *how: str) -> list[str]:
    """The command of a child."""
    return [sys.executable, "-m", "tests.support.isolated_child", str(notes), *how]


def an_isolation(notes: Path, *how: str, **changes: Any) -> QuarantineExecutor:
    """An isolation with one child that is never called stuck."""
    return QuarantineExecutor(
        argv(notes, *how), **{"children_max": 1, "healthy_since": NOT_STUCK, **changes}
    )


def pids(notes: Path) -> list[int]:
    """The children that were started so far."""
    return (
        [int(line.split()[1]) for line in notes.read_text().splitlines()] if notes.exists() else []
    )


def is_gone(pid: int) -> bool:
    """True once there is no such process, or only its entry in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def patiently(
    isolate: QuarantineExecutor, key: CallKey, expires_in_s: float = LONG_S
) -> DeliveryResult:
    """Come again until a child is free."""
    give_up_at = time.monotonic() + 30
    while isinstance(executed := await isolate(key, "acme", expires_in_s), Deferred):
        assert time.monotonic() < give_up_at, "no child became free"
        await asyncio.sleep(0.02)
    return executed


async def eventually(is_so: Callable[[], object]) -> None:
    """Wait, while the loop runs, until something is so."""
    give_up_at = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < give_up_at, "it did not become so"
        await asyncio.sleep(0.02)


def run(
    story: Callable[[QuarantineExecutor], Coroutine[Any, Any, None]], isolate: QuarantineExecutor
) -> None:
    """Play a story, then let the children end."""

    async def play() -> None:
        try:
            await story(isolate)
        finally:
            await isolate.aclose()

    asyncio.run(play())


def test_a_child_is_kept_for_the_next_suspect(notes: Path) -> None:
    """The first suspect waits until a child has started; the next ones find the same."""

    async def story(isolate: QuarantineExecutor) -> None:
        assert [await isolate(ANSWER, "acme", LONG_S) for _ in range(5)] == [
            DeliveryResult.ANSWERED
        ] * 5

    run(story, an_isolation(notes))

    assert len(pids(notes)) == 1
    until(lambda: is_gone(pids(notes)[0]))


def test_what_kills_its_child_kills_nothing_else(notes: Path) -> None:
    """It is said to be lost, the next suspect gets another child."""

    async def story(isolate: QuarantineExecutor) -> None:
        assert await patiently(isolate, DIE) is DeliveryResult.WORKER_LOST
        assert await patiently(isolate, ANSWER) is DeliveryResult.ANSWERED

    run(story, an_isolation(notes))

    assert len(set(pids(notes))) == 2


def test_a_child_has_one_call_at_a_time(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it has one a few others wait, for a while; what comes then is put off, one behind the other."""
    monkeypatch.setattr(isolation, "WAIT_MAX_S", 2.0)

    async def story(isolate: QuarantineExecutor) -> None:
        hanging = asyncio.create_task(patiently(isolate, HANG))
        await eventually(lambda: isolate._busy)
        assert await isolate(HANG, "acme", LONG_S) is DeliveryResult.NOT_CLAIMED
        keys = [CallKey(UUID(int=n), 1) for n in range(10, 90)]
        came = [asyncio.ensure_future(isolate(key, "acme", LONG_S)) for key in keys]
        await eventually(lambda: all(call.done() for call in came[WAITING_PER_CHILD:]))
        assert not any(call.done() for call in came[:WAITING_PER_CHILD])
        waits = [
            b.retry_after_s
            for c in came[WAITING_PER_CHILD:]
            if isinstance(b := c.result(), Deferred)
        ]
        assert len(waits) == 80 - WAITING_PER_CHILD
        assert waits == sorted(waits)
        assert waits[0] < 3 < waits[10]
        assert waits[-1] == pytest.approx(TURN_MAX_S, abs=0.1)
        assert all(isinstance(busy, Deferred) for busy in await asyncio.gather(*came))
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

    run(story, an_isolation(notes))

    assert len(pids(notes)) == 1
    until(lambda: is_gone(pids(notes)[0]))


def test_who_waits_gets_the_child_that_becomes_free(notes: Path) -> None:
    """First come, first served; a call that takes its child along leaves the next one to another child."""

    async def story(isolate: QuarantineExecutor) -> None:
        keys = [ANSWER, DIE, *(CallKey(UUID(int=n), 1) for n in range(10, 14))]
        done = await asyncio.gather(*(isolate(key, "acme", LONG_S) for key in keys))
        assert done == [
            DeliveryResult.ANSWERED,
            DeliveryResult.WORKER_LOST,
            *[DeliveryResult.ANSWERED] * 4,
        ]

    run(story, an_isolation(notes))

    assert len(pids(notes)) == 2


def test_one_organisation_keeps_no_other_waiting(notes: Path) -> None:
    """However many of its suspects hang, or wait: half of the children are for others, who are next in turn."""

    async def story(isolate: QuarantineExecutor) -> None:
        hostile = [CallKey(HANG.call_id, generation) for generation in range(1, 90)]
        came = [asyncio.ensure_future(isolate(key, "mallory", LONG_S)) for key in hostile]
        await eventually(lambda: list(isolate._busy.values()) == ["mallory"])
        assert [await isolate(ANSWER, "acme", LONG_S) for _ in range(3)] == [
            DeliveryResult.ANSWERED
        ] * 3
        assert sum(call.done() for call in came) == len(came) - 1 - WAITING_PER_CHILD
        for call in came:
            call.cancel()
        await asyncio.wait(came)

    run(story, an_isolation(notes, children_max=2))

    assert len(pids(notes)) == 2


def test_organisations_take_turns(notes: Path) -> None:
    """Who comes last waits for one suspect of those who came before, not for all."""
    ended: list[str] = []

    async def story(isolate: QuarantineExecutor) -> None:
        async def one(key: CallKey, org_id: str) -> None:
            assert await isolate(key, org_id, LONG_S) is DeliveryResult.ANSWERED
            ended.append(org_id)

        keys = [CallKey(UUID(int=n), 1) for n in range(10, 18)]
        await asyncio.gather(*(one(key, "mallory") for key in keys), one(ANSWER, "acme"))

    run(story, an_isolation(notes))

    assert ended.index("acme") <= 2


def test_who_gave_up_keeps_its_turn(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who have had a child since come behind it: else two who hold children for long would be served alone."""
    ended: list[str] = []

    async def story(isolate: QuarantineExecutor) -> None:
        free = asyncio.Semaphore(0)

        async def held(child: Child, key: CallKey, expires_in_s: float) -> DeliveryResult:
            await free.acquire()
            return DeliveryResult.ANSWERED

        async def one(number: int, org_id: str) -> None:
            assert (
                await isolate(CallKey(UUID(int=number), 1), org_id, LONG_S)
                is DeliveryResult.ANSWERED
            )
            ended.append(org_id)

        monkeypatch.setattr(isolate, "_watched", held)
        first = asyncio.ensure_future(one(10, "mallory"))
        await eventually(lambda: isolate._busy)
        monkeypatch.setattr(isolation, "WAIT_MAX_S", 0.01)
        assert isinstance(await isolate(CallKey(UUID(int=11), 1), "acme", LONG_S), Deferred)
        monkeypatch.undo()
        monkeypatch.setattr(isolate, "_watched", held)
        again = [asyncio.ensure_future(one(n, org)) for n, org in ((12, "mallory"), (11, "acme"))]
        await eventually(lambda: len(isolate._here) == 3)
        for _ in range(3):
            free.release()
        await asyncio.gather(first, *again)

    run(story, an_isolation(notes))

    assert ended == ["mallory", "acme", "mallory"]


def test_children_are_bounded(notes: Path) -> None:
    """As many as are wanted, but no more than there may be."""

    async def story(isolate: QuarantineExecutor) -> None:
        keys = [CallKey(HANG.call_id, generation) for generation in range(1, 5)]
        tasks = [asyncio.create_task(patiently(isolate, key)) for key in keys]
        await eventually(lambda: len(isolate._busy) == 2)
        await asyncio.sleep(0.3)
        assert len(isolate._busy) == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(story, an_isolation(notes, children_max=4))

    assert len(pids(notes)) == 2


def test_a_call_cut_off_dies_with_its_child(notes: Path) -> None:
    """When a drain is over, or a second signal ends it, nothing is left behind."""

    async def story(isolate: QuarantineExecutor) -> None:
        task = asyncio.create_task(patiently(isolate, HANG))
        await eventually(lambda: isolate._busy)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_gone(pids(notes)[0])

    run(story, an_isolation(notes))


def test_a_child_that_is_stuck_is_killed(notes: Path) -> None:
    """Past its call's lease nobody waits for it any more."""

    async def story(isolate: QuarantineExecutor) -> None:
        assert await patiently(isolate, HANG, 0.2) is DeliveryResult.WORKER_LOST

    run(story, an_isolation(notes, healthy_since=lambda: 0.0))


def test_nobody_is_called_stuck_by_who_was_away_himself(notes: Path) -> None:
    """During an outage a child may hold an answer that it cannot record: it is not killed, nor right after it."""
    healthy: list[float | None] = [None]

    async def story(isolate: QuarantineExecutor) -> None:
        task = asyncio.create_task(patiently(isolate, HANG, 1.0))
        await eventually(lambda: isolate._busy)
        await asyncio.sleep(1.6)
        assert not task.done()
        back_at = healthy[0] = monotonic()
        assert await task is DeliveryResult.WORKER_LOST
        assert monotonic() - back_at >= 1.0

    run(story, an_isolation(notes, healthy_since=lambda: healthy[0]))


def test_an_answer_nobody_knows_is_a_lost_child(notes: Path) -> None:
    """It is killed, for nobody can say what it does."""

    async def story(isolate: QuarantineExecutor) -> None:
        assert await patiently(isolate, BABBLE) is DeliveryResult.WORKER_LOST
        assert is_gone(pids(notes)[0])

    run(story, an_isolation(notes))


def test_children_that_do_not_start_are_not_started_in_a_loop(
    notes: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Suspects are put off meanwhile; nothing was claimed."""
    monkeypatch.setattr(isolation, "START_AGAIN_S", 0.5)
    monkeypatch.setattr(isolation, "WAIT_MAX_S", 0.05)

    async def story(isolate: QuarantineExecutor) -> None:
        began = time.monotonic()
        while len(pids(notes)) < 3:
            assert isinstance(await isolate(ANSWER, "acme", LONG_S), Deferred)
            await asyncio.sleep(0.02)
        assert time.monotonic() - began >= 1.0

    run(story, an_isolation(notes, DOES_NOT_START))


def nursery_of(isolate: QuarantineExecutor) -> int:
    """Its nursery's process."""
    assert isolate._fork_server is not None
    return isolate._fork_server._process.pid


def test_a_nursery_that_dies_is_replaced(notes: Path) -> None:
    """Its children die with it: their calls are lost, the next ones run."""

    async def story(isolate: QuarantineExecutor) -> None:
        task = asyncio.create_task(patiently(isolate, HANG))
        await eventually(lambda: isolate._busy)
        os.kill(nursery_of(isolate), signal.SIGKILL)
        assert await task is DeliveryResult.WORKER_LOST
        assert await patiently(isolate, ANSWER) is DeliveryResult.ANSWERED

    run(story, an_isolation(notes))

    assert len(set(pids(notes))) == 2


def test_nothing_is_kept_for_ever(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no suspect has come for a while children and nursery end; a later suspect gets new ones."""
    monkeypatch.setattr(isolation, "IDLE_S", 0.2)

    async def story(isolate: QuarantineExecutor) -> None:
        assert await patiently(isolate, ANSWER) is DeliveryResult.ANSWERED
        first = nursery_of(isolate)
        await eventually(lambda: is_gone(first) and is_gone(pids(notes)[0]))
        assert await patiently(isolate, ANSWER) is DeliveryResult.ANSWERED
        assert nursery_of(isolate) != first

    run(story, an_isolation(notes))


def test_a_child_ends_with_its_owner(notes: Path) -> None:
    """Even if that is killed in the middle of a call."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, *argv(notes)], cwd=CHECKOUT)  # noqa: S603
    try:
        until(lambda: pids(notes))
        (child,) = pids(notes)
        assert not is_gone(child)
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()

    until(lambda: is_gone(child))
