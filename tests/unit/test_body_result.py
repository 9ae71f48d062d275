"""Celery's own tracer around a body that runs elsewhere: signals and hooks last as long as the body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from celery import Celery, signals
from celery.app.trace import trace_task_ret

from worker.celery_ext.body_result import BodyResult, TracerCall
from worker.celery_ext.pool import AsyncTask

SPAN: ContextVar[str] = ContextVar("span", default="none")
LENGTH_S = 0.2


class Noted(AsyncTask):
    """Notes its hooks."""

    name = "noted"
    ignore_result = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Fail, if the argument says so."""
        self.app.seen.append(("before_start", task_id, SPAN.get()))
        if args == ["early"]:
            raise ValueError("early")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Note the request that Celery keeps for this delivery."""
        self.app.seen.append(("on_success", self.request.id, SPAN.get()))

    def after_return(self, status: str, retval: Any, task_id: str, *rest: Any) -> None:
        """Note the state."""
        self.app.seen.append((f"after_return {status}", self.request.id, SPAN.get()))

    async def arun(self, request: Mapping[str, Any], *args: Any) -> str:
        """Take some time."""
        self.app.seen.append(("body", request["id"], SPAN.get()))
        await asyncio.sleep(LENGTH_S)
        return "done"


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app that notes in `seen` what happens to its task, and in what span."""
    app = Celery(set_as_current=False)
    app.seen = []
    app.register_task(Noted())

    def prerun(task_id: str, task: Any, **_: Any) -> None:
        SPAN.set(f"span of {task_id}")
        app.seen.append(("prerun", task_id, SPAN.get()))

    def postrun(task_id: str, task: Any, state: str | None, **_: Any) -> None:
        app.seen.append((f"postrun {state}", task_id, SPAN.get()))

    signals.task_prerun.connect(prerun, weak=False)
    signals.task_postrun.connect(postrun, weak=False)
    yield app
    signals.task_prerun.disconnect(prerun)
    signals.task_postrun.disconnect(postrun)


def a_tracer_call(
    app: Celery, task_id: str, *args: str, ended: list[Any] | None = None
) -> TracerCall:
    """One delivery, traced by Celery's own tracer."""
    request = {"id": task_id, "task": "noted", "delivery_info": {}, "args": args}
    return TracerCall.of(
        app.tasks["noted"],
        (list(args), {}, {}),
        target=partial(trace_task_ret, app=app),
        name="noted",
        task_id=task_id,
        request=request,
        callback=(ended if ended is not None else []).append,
    )


async def run(app: Celery, tracer_call: TracerCall) -> None:
    """Run one delivery as the pool does."""

    async def within() -> None:
        if tracer_call.begin():
            task = app.tasks["noted"]
            tracer_call.end(BodyResult(await task.arun(tracer_call.request, *tracer_call.body[0])))

    await asyncio.get_running_loop().create_task(within(), context=tracer_call.context)


def test_a_span_lasts_as_long_as_the_body(app: Celery) -> None:
    """What a signal sets before the body is there in the body and at the end, and nowhere else."""
    tracer_call, began, runtimes = a_tracer_call(app, "1"), time.monotonic(), []
    signals.task_success.connect(
        told := lambda runtime, **_: runtimes.append(runtime),  # type: ignore[misc]
        weak=False,
    )
    try:
        asyncio.run(run(app, tracer_call))
    finally:
        signals.task_success.disconnect(told)

    names = [name for name, _, _ in app.seen]
    assert names == [
        "prerun", "before_start", "body", "on_success", "after_return SUCCESS", "postrun SUCCESS"
    ]  # fmt: skip
    assert {span for _, _, span in app.seen} == {"span of 1"}
    assert SPAN.get() == "none"
    assert LENGTH_S <= runtimes[0] <= time.monotonic() - began


def test_deliveries_at_once_do_not_mix(app: Celery) -> None:
    """Each has its own request and its own span, though one thread runs them all."""

    async def many() -> None:
        await asyncio.gather(*(run(app, a_tracer_call(app, str(number))) for number in range(20)))

    asyncio.run(many())

    assert all(span == f"span of {task_id}" for _, task_id, span in app.seen)
    bodies = [index for index, (name, _, _) in enumerate(app.seen) if name == "body"]
    ends = [index for index, (name, _, _) in enumerate(app.seen) if name.startswith("postrun")]
    assert max(bodies) < min(ends), "they did not run at once"
    assert len(ends) == 20


def test_a_body_that_fails_ends_its_span(app: Celery) -> None:
    """The span sees the final state."""
    ended: list[Any] = []
    tracer_call = a_tracer_call(app, "1", ended=ended)
    assert tracer_call.begin()
    tracer_call.end(BodyResult(error=ValueError("no")))
    tracer_call.report(1.5)

    assert [name for name, _, _ in app.seen][-2:] == ["after_return FAILURE", "postrun FAILURE"]
    assert (ended[0][0], ended[0][2]) == (1, 1.5)


def test_an_aborted_body_ends_its_span(app: Celery) -> None:
    """Neither success nor failure is reported."""
    tracer_call = a_tracer_call(app, "1")
    assert tracer_call.begin()
    tracer_call.abort()

    assert [name for name, _, _ in app.seen] == ["prerun", "before_start", "postrun None"]
    assert not tracer_call.is_over


def test_a_hook_that_fails_before_the_body_fails_the_task(app: Celery) -> None:
    """The body does not run, as in every pool of Celery."""
    ended: list[Any] = []
    tracer_call = a_tracer_call(app, "1", "early", ended=ended)

    asyncio.run(run(app, tracer_call))
    tracer_call.report(0.0)

    assert "body" not in [name for name, _, _ in app.seen]
    assert app.seen[-1][0] == "postrun FAILURE"
    assert ended[0][0] == 1
