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
from structlog.testing import capture_logs

from worker.celery_ext.body_result import BodyResult, BodyResultTask, TracerCall
from worker.celery_ext.pool import AsyncioPool, AsyncTask
from worker.celery_ext.retry_forever import RETRY_MAX_S, back_off_s
from worker.celery_ext.threads import LoopResource, LoopResourceStartError, LoopThread, TaskThreads

WAIT_S = 10.0


def never() -> None:
    """Stand in for the pool: `stop` must not count as a death of the loop."""
    raise AssertionError("the loop died")


def a_resource(name: str, log: list[str], error: Exception | None = None) -> LoopResource:
    """Return a resource that logs when it is entered and left, or does not start."""

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        if error is not None:
            raise error
        log.append(f"{name} entered")
        try:
            yield
        finally:
            log.append(f"{name} left")

    return resource


def test_resources_are_entered_in_order_and_left_in_reverse() -> None:
    """A resource may rely on those before it, when it starts and when it stops."""
    log: list[str] = []
    thread = LoopThread([a_resource("a", log), a_resource("b", log)], never)
    loop = thread.start(WAIT_S)
    ran = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "ran"), loop).result(WAIT_S)

    assert ran == "ran"
    assert thread.stop(WAIT_S)
    assert log == ["a entered", "b entered", "b left", "a left"]


def test_a_resource_that_fails_to_start_leaves_those_before_it() -> None:
    """The error names the resource and the cause, and no other resource stays open."""
    log: list[str] = []
    thread = LoopThread([a_resource("a", log), a_resource("b", log, OSError("no port"))], never)

    with pytest.raises(
        LoopResourceStartError, match=r"a_resource.*did not start: OSError\('no port'\)"
    ):
        thread.start(WAIT_S)
    assert log == ["a entered", "a left"]


def test_the_wait_for_resources_is_bounded() -> None:
    """A resource that hangs at its start ends the worker too."""

    @asynccontextmanager
    async def hangs() -> AsyncIterator[None]:
        await asyncio.sleep(3600)
        yield

    with pytest.raises(LoopResourceStartError, match=r"not up within 0\.05 s"):
        LoopThread([hangs], never).start(0.05)


def test_a_loop_that_ends_by_itself_is_reported() -> None:
    """A pool without its loop must not accept tasks."""
    is_dead = threading.Event()
    thread = LoopThread([], is_dead.set)
    loop = thread.start(WAIT_S)
    loop.call_soon_threadsafe(_exit)

    assert is_dead.wait(WAIT_S)
    assert thread.stop(WAIT_S)


def test_task_threads_survive_errors_of_their_work() -> None:
    """An error is logged, and the thread runs the next call."""
    threads = TaskThreads(1)
    threads.start()
    done = threading.Event()
    with capture_logs() as logged:
        threads.submit(_exit)
        threads.submit(done.set)
        assert done.wait(WAIT_S)

    assert [(line["event"], line["log_level"]) for line in logged] == [
        ("task_thread.failed", "error")
    ]
    assert logged[0]["exc_info"] is True


def test_task_threads_drop_only_work_that_has_not_started() -> None:
    """A drain waits for the work that runs; the rest returns to the broker."""
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


def test_a_body_result_is_a_value_or_an_error() -> None:
    """Celery's tracer gets exactly the body's value or error."""
    assert BodyResult("value").unwrap() == "value"
    with pytest.raises(ValueError, match="no"):
        BodyResult(error=ValueError("no")).unwrap()


def test_two_deliveries_of_one_task_id_do_not_share_a_result() -> None:
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


def test_a_coroutine_task_in_another_pool_fails_with_a_reason() -> None:
    task = Celery(set_as_current=False).register_task(_Echo())

    with pytest.raises(RuntimeError, match="echo cannot run in this pool"):
        task()


def test_the_pool_refuses_a_broker_without_an_event_loop() -> None:
    """All bookkeeping happens in the hub thread."""
    with pytest.raises(ImproperlyConfigured, match="event loop"):
        AsyncioPool(4, app=Celery(set_as_current=False), threads=True)


def test_shrinking_leaves_one_slot() -> None:
    """A pool without slots would never finish its messages."""
    pool = AsyncioPool(4, app=Celery(set_as_current=False))
    pool.shrink(10)
    assert pool.num_processes == 1

    pool.grow(2)
    assert pool.num_processes == 3


def test_back_off_doubles_up_to_its_bound() -> None:
    """Five seconds at most, however long an outage lasts."""
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
