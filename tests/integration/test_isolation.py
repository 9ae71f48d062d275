"""Quarantined calls in child processes that need no services."""

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
from tests.support.isolated_child import ANSWER, BABBLE, DIE, DOES_NOT_START, HANG
from tests.support.processes import CHECKOUT
from tests.support.waiting import until, until_async
from worker.isolation import executor as isolation
from worker.isolation.executor import DEFER_MAX_S, WAITING_PER_CHILD, QuarantineExecutor
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


def an_executor(notes: Path, *how: str, **changes: Any) -> QuarantineExecutor:
    """An executor with one child that is never considered stuck."""
    return QuarantineExecutor(
        argv(notes, *how), **{"children_max": 1, "healthy_since": NOT_STUCK, **changes}
    )


def pids(notes: Path) -> list[int]:
    """The children that were started so far."""
    return (
        [int(line.split()[1]) for line in notes.read_text().splitlines()] if notes.exists() else []
    )


def is_gone(pid: int) -> bool:
    """Whether the process has ended, or is only a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def until_it_runs(
    isolate: QuarantineExecutor, key: CallKey, expires_in_s: float = LONG_S
) -> DeliveryResult:
    """Repeat the call until a child is free."""
    give_up_at = time.monotonic() + 30
    while isinstance(executed := await isolate(key, "acme", expires_in_s), Deferred):
        assert time.monotonic() < give_up_at, "no child became free"
        await asyncio.sleep(0.02)
    return executed


def run(
    story: Callable[[QuarantineExecutor], Coroutine[Any, Any, None]], isolate: QuarantineExecutor
) -> None:
    """Run a story, then let the children end."""

    async def tell() -> None:
        try:
            await story(isolate)
        finally:
            await isolate.aclose()

    asyncio.run(tell())


def test_a_child_is_kept_for_the_next_call(notes: Path) -> None:
    """The first call waits until a child has started; the next ones find the same child."""

    async def story(isolate: QuarantineExecutor) -> None:
        assert [await isolate(ANSWER, "acme", LONG_S) for _ in range(5)] == [
            DeliveryResult.ANSWERED
        ] * 5

    run(story, an_executor(notes))

    assert len(pids(notes)) == 1
    until(lambda: is_gone(pids(notes)[0]))


def test_a_call_that_kills_its_child_affects_no_other(notes: Path) -> None:
    """It counts as lost, and the next call gets another child."""

    async def story(isolate: QuarantineExecutor) -> None:
        assert await until_it_runs(isolate, DIE) is DeliveryResult.WORKER_LOST
        assert await until_it_runs(isolate, ANSWER) is DeliveryResult.ANSWERED

    run(story, an_executor(notes))

    assert len(set(pids(notes))) == 2


def test_a_child_runs_one_call_at_a_time(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile a few calls wait for some time; later ones are deferred, each a little longer."""
    monkeypatch.setattr(isolation, "WAIT_MAX_S", 2.0)

    async def story(isolate: QuarantineExecutor) -> None:
        hanging = asyncio.create_task(until_it_runs(isolate, HANG))
        await until_async(lambda: isolate._busy)
        assert await isolate(HANG, "acme", LONG_S) is DeliveryResult.NOT_CLAIMED
        keys = [CallKey(UUID(int=n), 1) for n in range(10, 90)]
        came = [asyncio.ensure_future(isolate(key, "acme", LONG_S)) for key in keys]
        await until_async(lambda: all(call.done() for call in came[WAITING_PER_CHILD:]))
        assert not any(call.done() for call in came[:WAITING_PER_CHILD])
        waits = [
            b.retry_after_s
            for c in came[WAITING_PER_CHILD:]
            if isinstance(b := c.result(), Deferred)
        ]
        assert len(waits) == 80 - WAITING_PER_CHILD
        assert waits == sorted(waits)
        assert waits[0] < 3 < waits[10]
        assert waits[-1] == pytest.approx(DEFER_MAX_S, abs=0.1)
        assert all(isinstance(busy, Deferred) for busy in await asyncio.gather(*came))
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

    run(story, an_executor(notes))

    assert len(pids(notes)) == 1
    until(lambda: is_gone(pids(notes)[0]))


def test_waiting_calls_get_freed_children_in_order(notes: Path) -> None:
    """A call that kills its child leaves the next one to another child."""

    async def story(isolate: QuarantineExecutor) -> None:
        keys = [ANSWER, DIE, *(CallKey(UUID(int=n), 1) for n in range(10, 14))]
        done = await asyncio.gather(*(isolate(key, "acme", LONG_S) for key in keys))
        assert done == [
            DeliveryResult.ANSWERED,
            DeliveryResult.WORKER_LOST,
            *[DeliveryResult.ANSWERED] * 4,
        ]

    run(story, an_executor(notes))

    assert len(pids(notes)) == 2


def test_one_organisation_does_not_delay_another(notes: Path) -> None:
    """However many of its calls hang or wait: half of the children are for others."""

    async def story(isolate: QuarantineExecutor) -> None:
        hostile = [CallKey(HANG.call_id, generation) for generation in range(1, 90)]
        came = [asyncio.ensure_future(isolate(key, "mallory", LONG_S)) for key in hostile]
        await until_async(lambda: list(isolate._busy.values()) == ["mallory"])
        assert [await isolate(ANSWER, "acme", LONG_S) for _ in range(3)] == [
            DeliveryResult.ANSWERED
        ] * 3
        assert sum(call.done() for call in came) == len(came) - 1 - WAITING_PER_CHILD
        for call in came:
            call.cancel()
        await asyncio.wait(came)

    run(story, an_executor(notes, children_max=2))

    assert len(pids(notes)) == 2


def test_organisations_take_turns(notes: Path) -> None:
    """A late call waits for one earlier call, not for all of them."""
    ended: list[str] = []

    async def story(isolate: QuarantineExecutor) -> None:
        async def one(key: CallKey, org_id: str) -> None:
            assert await isolate(key, org_id, LONG_S) is DeliveryResult.ANSWERED
            ended.append(org_id)

        keys = [CallKey(UUID(int=n), 1) for n in range(10, 18)]
        await asyncio.gather(*(one(key, "mallory") for key in keys), one(ANSWER, "acme"))

    run(story, an_executor(notes))

    assert ended.index("acme") <= 2


def test_an_organisation_whose_call_gave_up_keeps_its_turn(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Organisations that had a child since come after it; otherwise two that hold children for long would get all."""
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
        await until_async(lambda: isolate._busy)
        monkeypatch.setattr(isolation, "WAIT_MAX_S", 0.01)
        assert isinstance(await isolate(CallKey(UUID(int=11), 1), "acme", LONG_S), Deferred)
        monkeypatch.undo()
        monkeypatch.setattr(isolate, "_watched", held)
        again = [asyncio.ensure_future(one(n, org)) for n, org in ((12, "mallory"), (11, "acme"))]
        await until_async(lambda: len(isolate._calls) == 3)
        for _ in range(3):
            free.release()
        await asyncio.gather(first, *again)

    run(story, an_executor(notes))

    assert ended == ["mallory", "acme", "mallory"]


def test_children_are_bounded(notes: Path) -> None:
    """As many as there are calls, up to the limit."""

    async def story(isolate: QuarantineExecutor) -> None:
        keys = [CallKey(HANG.call_id, generation) for generation in range(1, 5)]
        tasks = [asyncio.create_task(until_it_runs(isolate, key)) for key in keys]
        await until_async(lambda: len(isolate._busy) == 2)
        await asyncio.sleep(0.3)
        assert len(isolate._busy) == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(story, an_executor(notes, children_max=4))

    assert len(pids(notes)) == 2


def test_a_call_that_is_cut_off_dies_with_its_child(notes: Path) -> None:
    """At the end of a drain, or at a second signal."""

    async def story(isolate: QuarantineExecutor) -> None:
        task = asyncio.create_task(until_it_runs(isolate, HANG))
        await until_async(lambda: isolate._busy)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_async(lambda: is_gone(pids(notes)[0]))

    run(story, an_executor(notes))


def test_a_stuck_child_is_killed(notes: Path) -> None:
    """It is stuck once its attempt has expired."""

    async def story(isolate: QuarantineExecutor) -> None:
        assert await until_it_runs(isolate, HANG, 0.2) is DeliveryResult.WORKER_LOST

    run(story, an_executor(notes, healthy_since=lambda: 0.0))


def test_no_child_is_considered_stuck_during_an_outage(notes: Path) -> None:
    """It may hold an answer that it cannot record yet: it is not killed, nor right after the outage."""
    healthy: list[float | None] = [None]

    async def story(isolate: QuarantineExecutor) -> None:
        task = asyncio.create_task(until_it_runs(isolate, HANG, 1.0))
        await until_async(lambda: isolate._busy)
        await asyncio.sleep(1.6)
        assert not task.done()
        back_at = healthy[0] = monotonic()
        assert await task is DeliveryResult.WORKER_LOST
        assert monotonic() - back_at >= 1.0

    run(story, an_executor(notes, healthy_since=lambda: healthy[0]))


def test_an_unknown_answer_counts_as_a_lost_child(notes: Path) -> None:
    """The child is killed, because its state is unknown."""

    async def story(isolate: QuarantineExecutor) -> None:
        assert await until_it_runs(isolate, BABBLE) is DeliveryResult.WORKER_LOST
        await until_async(lambda: is_gone(pids(notes)[0]))

    run(story, an_executor(notes))


def test_children_that_do_not_start_are_not_started_in_a_loop(
    notes: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls are deferred meanwhile; none is claimed."""
    monkeypatch.setattr(isolation, "START_AGAIN_S", 0.5)
    monkeypatch.setattr(isolation, "WAIT_MAX_S", 0.05)

    async def story(isolate: QuarantineExecutor) -> None:
        began = time.monotonic()
        while len(pids(notes)) < 3:
            assert isinstance(await isolate(ANSWER, "acme", LONG_S), Deferred)
            await asyncio.sleep(0.02)
        assert time.monotonic() - began >= 1.0

    run(story, an_executor(notes, DOES_NOT_START))


def fork_server_of(isolate: QuarantineExecutor) -> int:
    """The pid of its fork server."""
    assert isolate._fork_server is not None
    return isolate._fork_server._process.pid


def test_a_fork_server_that_dies_is_replaced(notes: Path) -> None:
    """Its children die with it: their calls are lost, the next ones run."""

    async def story(isolate: QuarantineExecutor) -> None:
        task = asyncio.create_task(until_it_runs(isolate, HANG))
        await until_async(lambda: isolate._busy)
        os.kill(fork_server_of(isolate), signal.SIGKILL)
        assert await task is DeliveryResult.WORKER_LOST
        assert await until_it_runs(isolate, ANSWER) is DeliveryResult.ANSWERED

    run(story, an_executor(notes))

    assert len(set(pids(notes))) == 2


def test_idle_processes_end(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some time without calls. A later call gets new ones."""
    monkeypatch.setattr(isolation, "IDLE_S", 0.2)

    async def story(isolate: QuarantineExecutor) -> None:
        assert await until_it_runs(isolate, ANSWER) is DeliveryResult.ANSWERED
        first = fork_server_of(isolate)
        await until_async(lambda: is_gone(first) and is_gone(pids(notes)[0]))
        assert await until_it_runs(isolate, ANSWER) is DeliveryResult.ANSWERED
        assert fork_server_of(isolate) != first

    run(story, an_executor(notes))


def test_a_child_ends_with_its_owner(notes: Path) -> None:
    """Even if the owner is killed during a call."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER, *argv(notes)], cwd=CHECKOUT)  # noqa: S603
    try:
        until(lambda: pids(notes))
        (child,) = pids(notes)
        assert not is_gone(child)
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()

    until(lambda: is_gone(child))
