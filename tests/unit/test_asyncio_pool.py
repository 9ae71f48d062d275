"""The parts of the worker's machinery that need no broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured

from worker.celery_ext.body_result import BodyResult, BodyResultTask, TracerCall
from worker.celery_ext.pool import AsyncioPool, AsyncTask
from worker.celery_ext.retry_forever import RETRY_MAX_S, back_off_s
from worker.celery_ext.threads import LoopResource, LoopResourceStartError, LoopThread, TaskThreads

WAIT_S = 10.0


def never() -> None:
    """Stand in for the pool, which must not hear of a death that was asked for."""
    raise AssertionError("the loop died")


def a_service(name: str, log: list[str], error: Exception | None = None) -> LoopResource:
    """Return a service that logs when it is entered and left, or does not start."""

    @asynccontextmanager
    async def service() -> AsyncIterator[None]:
        if error is not None:
            raise error
        log.append(f"{name} entered")
        try:
            yield
        finally:
            log.append(f"{name} left")

    return service


def test_services_are_entered_in_order_and_left_in_reverse() -> None:
    """A service may rely on those before it, at both ends."""
    log: list[str] = []
    thread = LoopThread([a_service("a", log), a_service("b", log)], never)
    loop = thread.start(WAIT_S)
    ran = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "ran"), loop).result(WAIT_S)

    assert ran == "ran"
    assert thread.stop(WAIT_S)
    assert log == ["a entered", "b entered", "b left", "a left"]


def test_a_service_that_fails_to_start_leaves_those_before_it() -> None:
    """The error names the service and the cause, and nothing stays half started."""
    log: list[str] = []
    thread = LoopThread([a_service("a", log), a_service("b", log, OSError("no port"))], never)

    with pytest.raises(
        LoopResourceStartError, match=r"a_service.*did not start: OSError\('no port'\)"
    ):
        thread.start(WAIT_S)
    assert log == ["a entered", "a left"]


def test_the_wait_for_services_is_bounded() -> None:
    """A service that hangs at its start ends the worker too."""

    @asynccontextmanager
    async def hangs() -> AsyncIterator[None]:
        await asyncio.sleep(3600)
        yield

    with pytest.raises(LoopResourceStartError, match=r"not up within 0\.05 s"):
        LoopThread([hangs], never).start(0.05)


def test_a_loop_that_ends_unasked_is_reported() -> None:
    """A pool without its loop must not go on taking tasks."""
    is_dead = threading.Event()
    thread = LoopThread([], is_dead.set)
    loop = thread.start(WAIT_S)
    loop.call_soon_threadsafe(_exit)

    assert is_dead.wait(WAIT_S)
    assert thread.stop(WAIT_S)


def test_task_threads_outlive_what_their_work_raises(caplog: pytest.LogCaptureFixture) -> None:
    """An error is logged, and the thread takes the next piece of work."""
    threads = TaskThreads(1)
    threads.start()
    done = threading.Event()
    threads.submit(_exit)
    threads.submit(done.set)

    assert done.wait(WAIT_S)
    assert "SystemExit" in caplog.text


def test_task_threads_drop_only_what_has_not_begun() -> None:
    """A drain waits for what runs; the rest goes back to the broker."""
    threads = TaskThreads(1)
    threads.start()
    has_begun, may_end = threading.Event(), threading.Event()
    threads.submit(has_begun.set)
    threads.submit(lambda: may_end.wait(WAIT_S))
    assert has_begun.wait(WAIT_S)
    threads.submit(never)

    threads.drop_waiting()
    assert threads.unfinished <= 1
    may_end.set()


def test_an_outcome_is_a_value_or_an_error() -> None:
    """Celery's tracer gets back exactly what the body did."""
    assert BodyResult("value").unwrap() == "value"
    with pytest.raises(ValueError, match="no"):
        BodyResult(error=ValueError("no")).unwrap()


def test_two_deliveries_of_one_task_id_do_not_share_an_outcome() -> None:
    """The outcome travels in the request of its delivery."""
    app = Celery(set_as_current=False)
    task = app.register_task(_Echo())
    ended: list[tuple[int, object, float]] = []
    deliveries = [
        TracerCall(_tracer_of(task), "echo", "same id", {}, ([], {}, {}), ended.append)
        for _ in range(2)
    ]
    assert [delivery.begin() for delivery in deliveries] == [True, True]
    for word, delivery in zip(["first", "second"], deliveries, strict=True):
        delivery.end(BodyResult(word))
        delivery.report(1.5)

    assert ended == [(0, "first", 1.5), (0, "second", 1.5)]


def test_a_task_without_an_outcome_says_so() -> None:
    """A coroutine task in another pool fails with a reason and is not taken for done."""
    task = Celery(set_as_current=False).register_task(_Echo())

    with pytest.raises(RuntimeError, match="echo was started by something that cannot run it"):
        task()


def test_the_pool_refuses_a_broker_without_an_event_loop() -> None:
    """Its bookkeeping lives in the hub thread, so there has to be a hub."""
    with pytest.raises(ImproperlyConfigured, match="event loop"):
        AsyncioPool(4, app=Celery(set_as_current=False), threads=True)


def test_shrinking_leaves_one_slot() -> None:
    """A pool that runs nothing would hold its messages for ever."""
    pool = AsyncioPool(4, app=Celery(set_as_current=False))
    pool.shrink(10)
    assert pool.num_processes == 1

    pool.grow(2)
    assert pool.num_processes == 3


def test_back_off_doubles_up_to_its_bound() -> None:
    """Five seconds at most, however long an outage lasts, and never less than half of that."""
    for attempt in range(1, 100):
        longest = min(RETRY_MAX_S, 0.1 * 2 ** min(attempt - 1, 16))
        assert longest / 2 <= back_off_s(attempt) <= longest


class _Echo(AsyncTask):
    name = "echo"


def _tracer_of(task: BodyResultTask) -> Callable[..., tuple[int, object, float]]:
    def trace(name: str, task_id: str, request: dict[str, Any], *_: object) -> Any:
        task.push_request(**request)
        try:
            return (0, task.run(), 0.0)
        finally:
            task.pop_request()

    return trace


def _exit() -> None:
    raise SystemExit(1)
