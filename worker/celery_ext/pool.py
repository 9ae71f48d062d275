"""
Run Celery tasks that are coroutines, thousands at a time in one process.

    hub thread (Celery's main thread)                      loop thread
    on_apply ─ slot free? ─ task-started ────────────────► Celery's tracer ┬ task_prerun
                                                                           ├ task.arun(request, *args)
    events, ack ◄─ mailbox ──────────────────────────────────────────────── └ task_postrun

The tracer runs around the coroutine, in its thread and its context (see `worker.celery_ext.body_result`). One that
may talk to something (to store a result, to publish a callback) has a thread of its own; callgate's
tasks do neither. Tasks that are functions go to a few task threads.

Select the pool with the setting `worker_pool = "worker.celery_ext.pool:AsyncioPool"` and without `-P`.
Intake needs no pausing: a task that waits for Postgres keeps its slot and its message, and with
all slots taken the prefetch limit stops the intake by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

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

logger = logging.getLogger(__name__)

DRAIN_S = 60.0
"""How long a warm shutdown waits for tasks in flight, unless `callgate_drain_s` is set."""

TASK_THREADS_MAX = 8
"""Threads for code that blocks, unless `callgate_task_threads_max` is set."""

CANCEL_S = 5.0
"""How long a cancelled coroutine may clean up before it is abandoned."""

SERVICES_START_S = 30.0
SERVICES_STOP_S = 10.0

_TICK_S = 0.2
_SERVICES = "callgate_loop_services"


def run_on_loop(app: Celery, service: LoopResource) -> None:
    """Have every `AsyncioPool` of `app` enter `service` on its loop before intake, exit it last."""
    app.__dict__.setdefault(_SERVICES, []).append(service)


class AsyncTask(BodyResultTask):
    """
    A task whose body is a coroutine; runs in `AsyncioPool` only.

    Warning: Celery's hooks and signals around the body (`task_prerun`, `before_start`, ...) run, for
    a task without result or callbacks, in the loop thread: they must not block. `self.retry`
    publishes synchronously, so it has no place in a coroutine.
    """

    abstract = True

    def check(self, *args: Any, **kwargs: Any) -> None:
        """
        Look at the arguments of a message before the task is taken.

        Raises:
            TypeError, ValueError: `arun` could do nothing with them; the message is a stray.
        """

    async def arun(self, request: Mapping[str, Any], *args: Any, **kwargs: Any) -> object:
        """
        Do the work of one delivery.

        Args:
            request: The message's headers (`id`, `retries`, ...) and `delivery_info`, `properties`.
        """
        raise NotImplementedError(f"{self.name} has no arun")


class AsyncioPool(BasePool):  # type: ignore[misc]
    """Execute `AsyncTask`s on one event loop and every other task in a few threads."""

    body_can_be_buffer = True
    signal_safe = False

    limit: int
    app: Celery
    loop: asyncio.AbstractEventLoop
    """The loop of the tasks and services; set while the pool runs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if options.get("threads"):
            raise ImproperlyConfigured("AsyncioPool needs a broker transport with an event loop")
        conf = self.app.conf
        self.drain_s = float(conf.get("callgate_drain_s", DRAIN_S))
        self.threads = TaskThreads(int(conf.get("callgate_task_threads_max", TASK_THREADS_MAX)))
        self._accept_content = prepare_accept_content(conf.accept_content)
        self._loop_thread = LoopThread(self.app.__dict__.get(_SERVICES, ()), self._on_loop_death)
        self._hub: Any = None
        # The two collections belong to the hub thread. Together they hold at most the prefetch.
        self._running: set[AsyncJob] = set()
        self._waiting: deque[AsyncJob] = deque()
        self._signals = 0
        """Two and more mean now: a second warm signal, a cold one, or a dead loop."""
        self._is_draining = False

    # Start and intake.

    def on_start(self) -> None:
        """Start the threads and enter the services; an error here ends the worker."""
        self._mailbox = HubInbox()
        self.loop = self._loop_thread.start(SERVICES_START_S)
        self.threads.start()
        signals.worker_shutting_down.connect(self._on_shutting_down)

    def register_with_event_loop(self, hub: Any) -> None:
        """Have the hub, whose thread owns all bookkeeping, read the mailbox."""
        self._hub = hub
        self._mailbox.attach(hub)

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
        """Take one task; what is not started before a shutdown stays unacknowledged."""
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
        trace = TracerCall.of(
            task,
            body,
            target=target,
            name=name,
            task_id=task_id,
            request=request,
            callback=callback,
        )
        job = AsyncJob(task, trace, accept_callback, timeout_callback, (soft_timeout, timeout))
        self._waiting.append(job)
        self._fill_slots()
        return job

    def flush(self) -> None:
        """Drop what has not begun, after a lost connection: the broker delivers it again."""
        self._waiting.clear()

    def _fill_slots(self) -> None:
        while self._waiting and len(self._running) < self.limit and not self._is_draining:
            job = self._waiting.popleft()
            # The acceptance of a task that was revoked while it waited terminates it.
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
            if job.trace.begin():
                # Through the context of the tracer, which the coroutine then has a copy of.
                body = job.trace.context.run(
                    asyncio.run_coroutine_threadsafe, self._body(job), self.loop
                )
                job.end(body.result())
        except Exception:
            job.fail_to_trace()
        self._mailbox.post(partial(self._settle, job, time.monotonic() - started))

    # In the loop thread.

    def _launch(self, job: AsyncJob) -> None:
        job.coroutine = self.loop.create_task(self._trace(job), context=job.trace.context)

    async def _trace(self, job: AsyncJob) -> None:
        started = self.loop.time()
        try:
            if job.trace.begin():
                job.end(await self._body(job))
        except Exception:
            job.fail_to_trace()
        self._mailbox.post(partial(self._settle, job, self.loop.time() - started))

    async def _body(self, job: AsyncJob) -> BodyResult:
        job.coroutine = asyncio.current_task()
        if job.is_stopped:
            return BodyResult()
        hard = self.loop.call_later(job.hard_s, self._expire, job) if job.hard_s else None
        outcome = await job.outcome()
        if hard is not None:
            hard.cancel()
        if isinstance(outcome.error, SoftTimeLimitExceeded) and job.soft_s:
            self._mailbox.post(partial(job.on_timeout, True, job.soft_s))
        return outcome

    def _expire(self, job: AsyncJob) -> None:
        if not job.is_stopped and job.hard_s:
            self._mailbox.post(
                partial(self.threads.submit, partial(job.on_timeout, False, job.hard_s))
            )
            job.terminate()

    # Back in the hub thread.

    def _settle(self, job: AsyncJob, runtime_s: float) -> None:
        self._running.discard(job)
        self._fill_slots()
        if not job.is_stopped:
            job.trace.report(runtime_s)

    # Size.

    @property
    def num_processes(self) -> int:
        """How many coroutines may run at once; Celery derives the prefetch from it."""
        return self.limit

    def grow(self, n: int = 1) -> None:
        """Allow `n` more coroutines at once."""
        self.limit += n
        self._fill_slots()

    def shrink(self, n: int = 1) -> None:
        """Allow `n` fewer, but at least one; nothing that runs is stopped."""
        self.limit = max(1, self.limit - n)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Do nothing: Celery calls `terminate` of the job right after, and that stops it."""

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
        """Let tasks in flight finish for `drain_s`, then cut them off, unacknowledged."""
        # A cold shutdown calls this from its signal handler, perhaps in the middle of a drain.
        # There it may only raise the flag: the interrupted code, or `on_terminate`, does the rest.
        if self._state == self.RUN or self._is_draining:
            self._signals = 2
            return
        self._shut_down(self.drain_s)

    def on_terminate(self) -> None:
        """Cut off everything at once, unacknowledged."""
        self._shut_down(0)

    def _on_shutting_down(self, how: str = "Warm", **_: Any) -> None:
        self._signals += 1 if how == "Warm" else 2
        # A signal alone does not end the hub's poll, and until then it would go on taking tasks.
        self._mailbox.ring()

    def _shut_down(self, drain_s: float) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        self._waiting.clear()
        self.threads.drop_waiting()
        logger.info("draining %d coroutines for %s s at most", len(self._running), drain_s)
        self._turn_hub_while(lambda: self._signals < 2 and self._has_work(), drain_s)
        for job in self._running:
            job.terminate()
        self._turn_hub_while(lambda: bool(self._running), CANCEL_S)
        if self._has_work():
            logger.error(
                "abandoned %d coroutines and %d threads that did not end",
                len(self._running),
                self.threads.unfinished,
            )
        if not self._loop_thread.stop(SERVICES_STOP_S):
            logger.error("services did not stop within %s s", SERVICES_STOP_S)
        self._mailbox.close()

    def _has_work(self) -> bool:
        return bool(self._running) or self.threads.unfinished > 0

    def _turn_hub_while(self, condition: Callable[[], bool], timeout_s: float) -> None:
        # The hub goes on turning so that acks leave as tasks finish, and so that a message which
        # the last BRPOP has taken goes back to its queue now and not after the drain.
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
                    logger.warning("the broker was lost during the drain: %r", error)
                is_broken = True
                time.sleep(_TICK_S)
            self._mailbox.read()
        tick.cancel()

    def _on_loop_death(self) -> None:
        # From here on no task is taken; the worker ends, and its supervisor starts another.
        self._state = self.TERMINATE
        self._signals = 2
        worker_state.should_stop = EX_FAILURE
        self._mailbox.ring()
