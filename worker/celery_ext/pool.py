"""
Run Celery tasks that are coroutines, thousands at a time in one process.

    hub thread (Celery's main thread)                      loop thread
    on_apply ─ slot free? ─ task-started ────────────────► Celery's tracer ┬ task_prerun
                                                                           ├ task.arun(request, *args)
    events, ack ◄─ HubInbox ◄────────────────────────────────────────────── └ task_postrun

The tracer runs around the coroutine, in the loop thread and in one context (see `worker.celery_ext.body_result`). A
tracer that may block, because it stores a result or publishes a callback, gets its own thread; callgate's tasks do
neither. Tasks that are functions run in a few task threads.

Select the pool with the setting `worker_pool = "worker.celery_ext.pool:AsyncioPool"` and without `-P`. The intake
is never paused: a task that waits for Postgres keeps its slot and its message, and when all slots are taken the
prefetch limit stops the intake.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog
from celery import Celery, signals
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import ImproperlyConfigured, SoftTimeLimitExceeded
from celery.platforms import EX_FAILURE
from celery.worker import state as worker_state
from kombu.serialization import loads, prepare_accept_content

from worker.celery_ext.body_result import BodyResult, BodyResultTask, TracerCall
from worker.celery_ext.hub_inbox import HubInbox
from worker.celery_ext.job import AsyncJob, call_in
from worker.celery_ext.threads import LoopResource, LoopThread, TaskThreads

log = structlog.get_logger(__name__)

DRAIN_S = 60.0
"""How long a warm shutdown waits for tasks in flight; the setting `callgate_drain_s` overrides it."""

TASK_THREADS_MAX = 8
"""Threads for blocking code; the setting `callgate_task_threads_max` overrides it."""

CANCEL_S = 5.0
"""How long a cancelled coroutine may clean up before it is abandoned."""

RESOURCES_START_S = 30.0
RESOURCES_STOP_S = 10.0

BEAT_S = 1.0

_TICK_S = 0.2
_RESOURCES = "callgate_loop_resources"
_BEATS = "callgate_hub_beats"


def run_on_loop(app: Celery, resource: LoopResource) -> None:
    """Have every `AsyncioPool` of `app` enter `resource` on its loop before the intake, and exit it last."""
    app.__dict__.setdefault(_RESOURCES, []).append(resource)


def beat_in_hub(app: Celery, beat: Callable[[], None]) -> None:
    """Have the hub of `app` call `beat` every second while it takes messages."""
    app.__dict__.setdefault(_BEATS, []).append(beat)


class AsyncTask(BodyResultTask):
    """
    A task whose body is a coroutine; runs in `AsyncioPool` only.

    Warning: Celery's hooks and signals around the body (`task_prerun`, `before_start`, ...) must not block: for a task
    without result or callbacks they run in the loop thread. `self.retry` publishes synchronously, so a coroutine must
    not call it.
    """

    abstract = True

    def check(self, *args: Any, **kwargs: Any) -> None:
        """
        Check the arguments of a message before Celery accepts the task.

        Raises:
            TypeError, ValueError: `arun` cannot use them; the message is unprocessable.
        """

    async def arun(self, request: Mapping[str, Any], *args: Any, **kwargs: Any) -> object:
        """
        Do the work of one delivery.

        Args:
            request: The message's headers (`id`, `retries`, ...) and `delivery_info`, `properties`.
        """
        raise NotImplementedError(f"{self.name} has no arun")


class AsyncioPool(BasePool):  # type: ignore[misc]
    """Runs `AsyncTask`s on one event loop, and every other task in a few threads."""

    body_can_be_buffer = True
    signal_safe = False

    limit: int
    app: Celery
    loop: asyncio.AbstractEventLoop
    """The loop of the tasks and resources; set while the pool runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if options.get("threads"):
            raise ImproperlyConfigured("AsyncioPool needs a broker transport with an event loop")
        conf = self.app.conf
        self.drain_s = float(conf.get("callgate_drain_s", DRAIN_S))
        self.threads = TaskThreads(int(conf.get("callgate_task_threads_max", TASK_THREADS_MAX)))
        self._accept_content = prepare_accept_content(conf.accept_content)
        self._loop_thread = LoopThread(self.app.__dict__.get(_RESOURCES, ()), self._on_loop_death)
        self._hub: Any = None
        # Only the hub thread uses these two. Together they hold at most the prefetch.
        self._running: set[AsyncJob] = set()
        self._waiting: deque[AsyncJob] = deque()
        self._signals = 0
        """From two on the shutdown is immediate: a second warm signal, a cold one, or a dead loop."""
        self._is_draining = False
        self._timers: list[Any] = []

    # Start and intake.

    def on_start(self) -> None:
        """Start the threads and enter the resources; an error here ends the worker."""
        self._inbox = HubInbox()
        self.loop = self._loop_thread.start(RESOURCES_START_S)
        self.threads.start()
        signals.worker_shutting_down.connect(self._on_shutting_down)

    def register_with_event_loop(self, hub: Any) -> None:
        """Have the hub read the inbox: all bookkeeping happens in the hub thread."""
        self._hub = hub
        self._inbox.attach(hub)
        # After a lost connection the hub is another one, or has forgotten its timers.
        for timer in self._timers:
            timer.cancel()
        beats = self.app.__dict__.get(_BEATS, ())
        self._timers = [hub.call_repeatedly(BEAT_S, beat) for beat in beats]

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        timeout_callback: Any = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> AsyncJob | None:
        """Accept one task; a task that a shutdown keeps from starting stays unacknowledged."""
        if self._state != self.RUN:
            return None
        task = self.app.tasks.get(args[0]) if target in (fast_trace_task, trace_task_ret) else None
        if not isinstance(task, AsyncTask):
            work = partial(apply_target, target, args, kwargs, callback, accept_callback)
            self.threads.submit(work)
            return None
        name, task_id, request, body, content_type, encoding = args
        if content_type:
            body = loads(body, content_type, encoding, accept=self._accept_content)
        tracer_call = TracerCall.of(
            task,
            body,
            target=target,
            name=name,
            task_id=task_id,
            request=request,
            callback=callback,
        )
        limits_s = (soft_timeout, timeout)
        job = AsyncJob(task, tracer_call, accept_callback, timeout_callback, limits_s)
        self._waiting.append(job)
        self._fill_slots()
        return job

    def flush(self) -> None:
        """Drop the tasks that have not started, after a lost connection: the broker delivers them again."""
        self._waiting.clear()

    def _fill_slots(self) -> None:
        while self._waiting and len(self._running) < self.limit and not self._is_draining:
            job = self._waiting.popleft()
            # `accept` terminates a task that was revoked while it waited.
            job.accept(os.getpid(), time.monotonic())
            if not job.is_stopped:
                self._running.add(job)
                self._start(job)

    def _start(self, job: AsyncJob) -> None:
        if job.may_block():
            work = partial(self._trace_in_thread, job)
            threading.Thread(target=work, name="tracer", daemon=True).start()
        else:
            call_in(self.loop, self._launch, job)

    def _trace_in_thread(self, job: AsyncJob) -> None:
        started = time.monotonic()
        try:
            if job.tracer_call.begin():
                # In the tracer's context, of which the coroutine then gets a copy.
                body = job.tracer_call.context.run(
                    asyncio.run_coroutine_threadsafe, self._body(job), self.loop
                )
                job.end(body.result())
        # The tracer may raise anything; without `_finish_job` the job would never give back its slot.
        except Exception:
            job.log_tracer_error()
        self._inbox.submit(partial(self._finish_job, job, time.monotonic() - started))

    # In the loop thread.

    def _launch(self, job: AsyncJob) -> None:
        job.coroutine = self.loop.create_task(self._trace(job), context=job.tracer_call.context)

    async def _trace(self, job: AsyncJob) -> None:
        started = self.loop.time()
        try:
            if job.tracer_call.begin():
                job.end(await self._body(job))
        # The tracer may raise anything; without `_finish_job` the job would never give back its slot.
        except Exception:
            job.log_tracer_error()
        self._inbox.submit(partial(self._finish_job, job, self.loop.time() - started))

    async def _body(self, job: AsyncJob) -> BodyResult:
        job.coroutine = asyncio.current_task()
        if job.is_stopped:
            return BodyResult()
        hard = self.loop.call_later(job.hard_s, self._expire, job) if job.hard_s else None
        result = await job.run_body()
        if hard is not None:
            hard.cancel()
        if isinstance(result.error, SoftTimeLimitExceeded) and job.soft_s:
            self._inbox.submit(partial(job.on_timeout, True, job.soft_s))
        return result

    def _expire(self, job: AsyncJob) -> None:
        if not job.is_stopped and job.hard_s:
            self._inbox.submit(
                partial(self.threads.submit, partial(job.on_timeout, False, job.hard_s))
            )
            job.terminate()

    # Back in the hub thread.

    def _finish_job(self, job: AsyncJob, runtime_s: float) -> None:
        self._running.discard(job)
        self._fill_slots()
        if not job.is_stopped:
            job.tracer_call.report(runtime_s)

    # Size.

    @property
    def num_processes(self) -> int:
        """How many coroutines may run at once; Celery derives the prefetch count from it."""
        return self.limit

    def grow(self, n: int = 1) -> None:
        """Allow `n` more coroutines at once."""
        self.limit += n
        self._fill_slots()

    def shrink(self, n: int = 1) -> None:
        """Allow `n` fewer coroutines, at least one; nothing that runs is stopped."""
        self.limit = max(1, self.limit - n)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Do nothing: Celery then calls `terminate` of the job, which stops it."""

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "in-flight": len(self._running),
            "waiting": len(self._waiting),
            "threads": self.threads.threads_max,
            "in-threads": self.threads.unfinished,
        }

    # Shutdown.

    def on_stop(self) -> None:
        """Let tasks in flight finish for `drain_s`, then stop them, unacknowledged."""
        # A cold shutdown calls this from its signal handler, perhaps during a drain. There it may only set the flag:
        # the interrupted code, or `on_terminate`, does the rest.
        if self._state == self.RUN or self._is_draining:
            self._signals = 2
            return
        self._shut_down(self.drain_s)

    def on_terminate(self) -> None:
        """Stop everything at once, unacknowledged."""
        self._shut_down(0)

    def _on_shutting_down(self, how: str = "Warm", **_: Any) -> None:
        self._signals += 1 if how == "Warm" else 2
        # A signal does not end the hub's poll, and until the poll ends the hub goes on accepting tasks.
        self._inbox.wake()

    def _shut_down(self, drain_s: float) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        self._waiting.clear()
        self.threads.drop_waiting()
        log.info("drain.started", coroutines=len(self._running), timeout_s=drain_s)
        self._turn_hub_while(lambda: self._signals < 2 and self._has_work(), drain_s)
        for job in self._running:
            job.terminate()
        self._turn_hub_while(lambda: bool(self._running), CANCEL_S)
        if self._has_work():
            log.error(
                "drain.abandoned", coroutines=len(self._running), threads=self.threads.unfinished
            )
        if not self._loop_thread.stop(RESOURCES_STOP_S):
            log.error("loop_resources.stop_failed", timeout_s=RESOURCES_STOP_S)
        self._inbox.close()

    def _has_work(self) -> bool:
        return bool(self._running) or self.threads.unfinished > 0

    def _turn_hub_while(self, condition: Callable[[], bool], timeout_s: float) -> None:
        # The hub keeps running so that acks are sent as tasks finish, and so that a message which the last BLMPOP has
        # taken returns to its queue now and not after the drain.
        if self._hub is None:
            return
        deadline = time.monotonic() + timeout_s
        tick = self._hub.call_repeatedly(_TICK_S, lambda: None)
        is_broken = False
        while condition() and time.monotonic() < deadline:
            try:
                self._hub.run_once()
            except Exception as error:
                if not is_broken:
                    log.warning("drain.broker_lost", reason=repr(error))
                is_broken = True
                time.sleep(_TICK_S)
            self._inbox.read()
        tick.cancel()

    def _on_loop_death(self) -> None:
        # No further task is accepted. The worker ends, and its supervisor starts another.
        self._state = self.TERMINATE
        self._signals = 2
        worker_state.should_stop = EX_FAILURE
        self._inbox.wake()
