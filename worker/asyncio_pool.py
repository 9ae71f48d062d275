"""
Run Celery tasks that are coroutines, thousands at a time in one process.

    hub thread (Celery's main thread)                      loop thread
    on_apply ─ slot free? ─ task-started ────────────────► task.arun(request, *args)
    Celery's tracer, events, ack ◄─ mailbox ────────────── outcome

The tracer runs after the coroutine, on its outcome (see `worker.outcome`). It needs no hop of its
own, because the ack has to cross to the hub anyway. Only a tail that may talk to something (to
store a result, to publish a callback) goes to the task threads, as do tasks that are functions.

Select the pool with the setting `worker_pool = "worker.asyncio_pool:AsyncioPool"` and without `-P`.
Intake needs no pausing: a task that waits for Postgres keeps its slot and its message, and with
all slots taken the prefetch limit stops the intake by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from celery import Celery, signals
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import ImproperlyConfigured, SoftTimeLimitExceeded
from celery.platforms import EX_FAILURE
from celery.worker import state as worker_state
from kombu.serialization import loads, prepare_accept_content

from worker.loop_thread import LoopThread, Service, TaskThreads
from worker.outcome import Outcome, OutcomeTask, Trace

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
_FOLLOW_UPS = ("callbacks", "errbacks", "chain", "chord")


def run_on_loop(app: Celery, service: Service) -> None:
    """Have every `AsyncioPool` of `app` enter `service` on its loop before intake, exit it last."""
    app.__dict__.setdefault(_SERVICES, []).append(service)


class AsyncTask(OutcomeTask):
    """
    A task whose body is a coroutine; runs in `AsyncioPool` only.

    Warning: Celery's hooks and signals around the body (`task_prerun`, `before_start`, ...) run
    after the coroutine and, for a task without result or callbacks, in the hub thread: they must
    not block. `self.retry` publishes synchronously, so it has no place in a coroutine.
    """

    abstract = True

    async def arun(self, request: Mapping[str, Any], *args: Any, **kwargs: Any) -> object:
        """
        Do the work of one delivery.

        Args:
            request: The message's headers (`id`, `retries`, ...) and `delivery_info`, `properties`.
        """
        raise NotImplementedError(f"{self.name} has no arun")


class _Job:
    """One delivery on its way through the loop; also the handle by which Celery stops it."""

    def __init__(
        self,
        task: AsyncTask,
        trace: Trace,
        accept: Callable[[int, float], None],
        on_timeout: Callable[[bool, float], None],
        limits_s: tuple[float | None, float | None],
    ) -> None:
        self.task = task
        self.trace = trace
        self.accept = accept
        self.on_timeout = on_timeout
        self.soft_s, self.hard_s = limits_s
        self.coroutine: asyncio.Task[None] | None = None
        self.is_stopped = False
        """Nobody waits for the outcome any more; it is dropped, and with it the ack."""

    def terminate(self, signal: int | None = None) -> None:
        """Stop the job without a word; callable from any thread and from a signal handler."""
        self.is_stopped = True
        if self.coroutine is not None:
            call_in(self.coroutine.get_loop(), self.coroutine.cancel)

    async def outcome(self) -> Outcome:
        """Await the body; whatever it raises is an outcome, for nothing may end the loop."""
        args, kwargs, _ = self.trace.body
        try:
            async with asyncio.timeout(self.soft_s) as soft:
                return Outcome(await self.task.arun(self.trace.request, *args, **kwargs))
        except TimeoutError as error:
            return Outcome(error=SoftTimeLimitExceeded(self.soft_s) if soft.expired() else error)
        except Exception as error:
            return Outcome(error=error)
        except BaseException as error:
            # A coroutine that was cancelled from outside, by `terminate` or by the end of the
            # loop, has no outcome. One that raises this by itself has failed.
            current = asyncio.current_task()
            self.is_stopped |= current is not None and current.cancelling() > 0
            return Outcome(error=RuntimeError(f"task body ended by {error!r}"))


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
        self._mailbox: deque[Callable[[], None]] = deque()
        self._bell, self._bell_ear = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_ear.setblocking(False)
        self._is_bell_rung = False
        # The two collections belong to the hub thread. Together they hold at most the prefetch.
        self._running: set[_Job] = set()
        self._waiting: deque[_Job] = deque()
        self._signals = 0
        self._is_draining = self._is_down = False

    # Start and intake.

    def on_start(self) -> None:
        """Start the threads and enter the services; an error here ends the worker."""
        self.loop = self._loop_thread.start(SERVICES_START_S)
        self.threads.start()
        signals.worker_shutting_down.connect(self._on_shutting_down)

    def register_with_event_loop(self, hub: Any) -> None:
        """Have the hub, whose thread owns all bookkeeping, read the mailbox."""
        # Not by hub.call_soon: what such a callback itself calls soon, like an ack, waits until
        # the hub's next poll returns, which takes up to a second when every slot is full.
        self._hub = hub
        hub.add_reader(self._bell_ear, self._read_mail)

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
    ) -> _Job | None:
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
        trace = Trace(target, name, task_id, request, body, callback)
        job = _Job(task, trace, accept_callback, timeout_callback, (soft_timeout, timeout))
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
                call_in(self.loop, self._launch, job)

    # In the loop thread.

    def _launch(self, job: _Job) -> None:
        job.coroutine = self.loop.create_task(self._run(job))
        if job.is_stopped:
            job.coroutine.cancel()

    async def _run(self, job: _Job) -> None:
        started = self.loop.time()
        hard = self.loop.call_later(job.hard_s, self._expire, job) if job.hard_s else None
        outcome = await job.outcome()
        if hard is not None:
            hard.cancel()
        if isinstance(outcome.error, SoftTimeLimitExceeded) and job.soft_s:
            self._post(partial(job.on_timeout, True, job.soft_s))
        self._post(partial(self._settle, job, outcome, self.loop.time() - started))

    def _expire(self, job: _Job) -> None:
        if not job.is_stopped and job.hard_s:
            self._post(partial(self.threads.submit, partial(job.on_timeout, False, job.hard_s)))
            job.terminate()

    # Back in the hub thread.

    def _post(self, letter: Callable[[], None]) -> None:
        self._mailbox.append(letter)
        if not self._is_bell_rung:
            self._is_bell_rung = True
            self._ring()

    def _ring(self) -> None:
        with suppress(OSError):
            self._bell.send(b"\0")

    def _read_mail(self) -> None:
        with suppress(OSError):
            self._bell_ear.recv(4096)
        # The flag falls before the box is emptied: a letter posted meanwhile is read now or later.
        self._is_bell_rung = False
        while self._mailbox:
            letter = self._mailbox.popleft()
            try:
                letter()
            except Exception:
                logger.exception("a finished task could not be settled; its message stays unacked")

    def _settle(self, job: _Job, outcome: Outcome, runtime_s: float) -> None:
        self._running.discard(job)
        self._fill_slots()
        if job.is_stopped:
            return
        finish = partial(job.trace.finish, outcome, runtime_s)
        if self._may_block(job, outcome):
            self.threads.submit(finish)
        else:
            finish()

    def _may_block(self, job: _Job, outcome: Outcome) -> bool:
        ignores_result = job.trace.request.get("ignore_result")
        if ignores_result is None:
            ignores_result = job.task.ignore_result
        stores_error = outcome.error is not None and job.task.store_errors_even_if_ignored
        follow_ups = job.trace.body[2] or {}
        return not ignores_result or stores_error or any(map(follow_ups.get, _FOLLOW_UPS))

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
        self._ring()

    def _shut_down(self, drain_s: float) -> None:
        if self._is_down:
            return
        self._is_draining = self._is_down = True
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

    def _has_work(self) -> bool:
        return bool(self._running) or self.threads.unfinished > 0

    def _turn_hub_while(self, condition: Callable[[], bool], timeout_s: float) -> None:
        # The hub goes on turning so that acks leave as tasks finish, and so that a message which
        # the last BRPOP has taken goes back to its queue now and not after the drain.
        if self._hub is None:
            return
        deadline = time.monotonic() + timeout_s
        tick = self._hub.call_repeatedly(_TICK_S, lambda: None)
        while condition() and time.monotonic() < deadline:
            try:
                self._hub.run_once()
            except Exception as error:
                logger.warning("the broker connection failed during the drain: %r", error)
                time.sleep(_TICK_S)
            self._read_mail()
        tick.cancel()

    def _on_loop_death(self) -> None:
        # From here on no task is taken; the worker ends, and its supervisor starts another.
        self._state = self.TERMINATE
        self._signals = 2
        worker_state.should_stop = EX_FAILURE
        self._ring()


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: Any) -> None:
    """Call in the loop's thread; a loop that is closed runs nothing, so nothing gets acked."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *args)
