"""
Run many messages of one task as one batch, for example as one SQL statement.

    hub thread                                 a thread of the pool
    message ► buffer ─ a batch is due ───────► run_batch(messages)
                ▲                              Celery's tracer over each result, acks
                └────────── one batch ended ◄──┘

While no batch runs, a message starts one at once. While one runs, the buffer fills for the next (group commit).
`batch_wait_s` is only an upper bound: after it, or with a full buffer, another batch starts beside a slow one, up to
`batches_max`.

**Prefetch.** Messages in the buffer and in running batches are unacknowledged, so they count against the worker's
prefetch limit, which calls and batches share. When calls have used it up, batches stay small.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from celery import Celery, bootsteps, signals
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.exceptions import ImproperlyConfigured, InvalidTaskError
from celery.utils.imports import symbol_by_name
from celery.worker import state as worker_state
from celery.worker.request import create_request_cls

from worker.celery_ext.body_result import BodyResult, BodyResultTask, TracerCall
from worker.celery_ext.retry_forever import RetryForever

log = structlog.get_logger(__name__)
_ack_log = logging.getLogger(__name__)
"""For kombu, which logs an ack that fails by itself, in the standard library's form."""


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One message of a batch."""

    task_id: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    request: Mapping[str, Any]
    """The message's headers, and its `delivery_info` (with `redelivered`) and `properties`."""


class CloseBatches(bootsteps.StartStopStep):  # type: ignore[misc]
    """Close the buffers before the connection that their messages came from is closed."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def stop(self, consumer: Any) -> None:
        """Flush on a warm shutdown; after a lost connection drop the messages, which the broker redelivers."""
        is_lost = consumer.blueprint.state == bootsteps.RUN
        for strategy in consumer.strategies.values():
            if isinstance(strategy, BatchStrategy):
                strategy.close(flush=not is_lost and not worker_state.should_terminate)


class BatchTask(BodyResultTask):
    """
    A task that runs many messages at a time.

    Without ETA and rate limit, and only in pools of threads (`AsyncioPool`, `threads`).
    """

    abstract = True
    acks_late = True
    rate_limit = None
    Strategy = "worker.celery_ext.batches:BatchStrategy"

    batch_size_max: int = 200
    batch_wait_s: float = 0.02
    batches_max: int = 2
    """How many batches may run at once, including those that wait for a retry."""

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Have the worker close the buffers of its batched tasks."""
        app.steps["consumer"].add(CloseBatches)

    def run_batch(self, messages: Sequence[BatchMessage]) -> Sequence[BodyResult]:
        """
        Do the work of up to `batch_size_max` messages, in a thread of the pool.

        Returns:
            One result per message, in order. A message whose result is an error has failed finally, and is
            acknowledged like the others.

        Raises:
            Exception: Nothing was done. The same batch runs again after a back-off, until it succeeds; meanwhile its
                messages are neither acknowledged nor requeued.
        """
        raise NotImplementedError(f"{self.name} has no run_batch")

    def run_undecodable(self, message: Any, error: Exception) -> None:
        """
        Divert a message whose arguments cannot be read; it is then acknowledged.

        Runs in a thread of the pool, again and again until it raises nothing.

        Args:
            message: The `kombu.Message`, with `body` (bytes or text), `headers`, `delivery_info`.
        """
        log.error("message.discarded", task=self.name, reason=type(error).__name__)


class BatchStrategy:
    """Collects the messages of one task on one connection. Only the batches run outside the hub thread."""

    def __init__(self, task: BatchTask, app: Celery, consumer: Any) -> None:
        """
        Prepare; Celery makes one per task and broker connection.

        Raises:
            ImproperlyConfigured: The pool forks, there is no event loop, or there is a rate limit.
        """
        if getattr(consumer.pool, "uses_semaphore", False) or consumer.hub is None:
            raise ImproperlyConfigured(f"{task.name} needs a thread pool and an event loop")
        if task.rate_limit:
            raise ImproperlyConfigured(f"{task.name} is batched and takes no rate_limit")
        self._task = task
        self._consumer = consumer
        self._request_options = {
            "app": app,
            "task": task,
            "hostname": consumer.hostname,
            "eventer": consumer.event_dispatcher,
            "connection_errors": consumer.connection_errors,
        }
        self._request_class = create_request_cls(
            symbol_by_name(task.Request),
            *(task, consumer.pool, consumer.hostname, consumer.event_dispatcher),
            app=app,
        )
        self._target = fast_trace_task if app.use_fast_trace_task else trace_task_ret
        self._retry = RetryForever(consumer, task.name)
        self._buffer: deque[tuple[float, Any]] = deque()
        """Requests with their time of arrival, oldest first; bounded by the prefetch limit."""
        self._running = 0
        self._is_timer_set = False

    def __call__(
        self,
        message: Any,
        body: object,
        ack: Callable[..., None],
        reject: Callable[..., None],
        callbacks: Iterable[Callable[[Any], None]],
        **_: Any,
    ) -> None:
        """Accept one message from the consumer."""
        try:
            request = self._request(message, body, ack, reject)
        except Exception as error:
            work = partial(self._divert, message, error, ack)
            self._retry.start(work, _ignore_finished)
            return
        if request.revoked():
            return
        self._announce(request, callbacks)
        self._buffer.append((time.monotonic(), request))
        self._start_due_batches()

    def close(self, flush: bool) -> None:
        """Accept no more; run the buffered messages once, in this thread, or drop them for redelivery."""
        self._retry.close()
        while self._buffer:
            batch = self._next_batch()
            if not flush:
                _release(batch)
                continue
            try:
                self._run_batch(batch)
            except Exception:
                # The worker ends now, so there is no time for another try.
                log.exception("batch.redelivered", task=self._task.name)
                flush = False

    def _request(
        self, message: Any, body: object, ack: Callable[..., None], reject: Callable[..., None]
    ) -> Any:
        if body is not None:
            raise InvalidTaskError("a batched task takes messages of protocol 2 only")
        args, kwargs, callbacks = message.payload
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
            raise InvalidTaskError("args is not a list, or kwargs is not a mapping")
        if not isinstance(callbacks, dict):
            raise InvalidTaskError("the callbacks are not a mapping")
        request = self._request_class(
            message, on_ack=ack, on_reject=reject, **self._request_options
        )
        if request.eta:
            raise InvalidTaskError("a batched task takes no ETA or countdown")
        return request

    def _announce(self, request: Any, callbacks: Iterable[Callable[[Any], None]]) -> None:
        signals.task_received.send(sender=self._consumer, request=request)
        request.send_event(
            "task-received",
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            root_id=request.root_id,
            parent_id=request.parent_id,
            retries=request.request_dict.get("retries", 0),
            eta=None,
            expires=request.expires and request.expires.isoformat(),
        )
        worker_state.task_reserved(request)
        for callback in callbacks:
            callback(request)

    def _start_due_batches(self) -> None:
        while self._buffer and self._is_due():
            batch = self._next_batch()
            if batch:
                self._running += 1
                self._retry.start(partial(self._run_batch, batch), partial(self._end, batch))
        if self._buffer and not self._is_timer_set:
            self._is_timer_set = True
            self._consumer.timer.call_after(self._task.batch_wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._is_timer_set = False
        self._start_due_batches()

    def _is_due(self) -> bool:
        if self._running == 0:
            return True
        is_full = len(self._buffer) >= self._task.batch_size_max
        is_overdue = time.monotonic() - self._buffer[0][0] >= self._task.batch_wait_s
        return self._running < self._task.batches_max and (is_full or is_overdue)

    def _next_batch(self) -> list[Any]:
        size = min(len(self._buffer), self._task.batch_size_max)
        batch = [self._buffer.popleft()[1] for _ in range(size)]
        accepted = [request for request in batch if not request.revoked()]
        for request in accepted:
            request.on_accepted(os.getpid(), time.monotonic())
        return accepted

    def _end(self, batch: list[Any], is_done: bool) -> None:
        self._running -= 1
        if is_done:
            self._start_due_batches()
        else:
            _release(batch)

    def _run_batch(self, batch: list[Any]) -> None:
        started = time.monotonic()
        tracer_calls = [self._tracer_call(request) for request in batch]
        begun = [
            (tracer_call, _batch_message(request))
            for tracer_call, request in zip(tracer_calls, batch, strict=True)
            if self._guarded(tracer_call, tracer_call.begin)
        ]
        try:
            results = self._task.run_batch([message for _, message in begun])
            if len(results) != len(begun):
                raise RuntimeError(f"run_batch returned {len(results)} results for {len(begun)}")
        except BaseException:
            # The next try, perhaps in another thread, is another span.
            for tracer_call, _ in begun:
                self._guarded(tracer_call, tracer_call.abort)
            raise
        runtime_s = time.monotonic() - started
        for (tracer_call, _), result in zip(begun, results, strict=True):
            self._guarded(tracer_call, partial(tracer_call.end, result))
        for tracer_call in tracer_calls:
            if tracer_call.is_over:
                self._guarded(tracer_call, partial(tracer_call.report, runtime_s))

    def _guarded(self, tracer_call: TracerCall, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Exception:
            # From the broker or a signal handler. The other messages of the batch must still be finished.
            log.exception(
                "message.not_acknowledged", task=self._task.name, task_id=tracer_call.task_id
            )

    def _divert(self, message: Any, error: Exception, ack: Callable[..., None]) -> None:
        self._task.run_undecodable(message, error)
        ack(_ack_log, self._consumer.connection_errors)

    def _tracer_call(self, request: Any) -> TracerCall:
        return TracerCall.of(
            self._task,
            request.message.payload,
            target=self._target,
            name=request.type,
            task_id=request.id,
            request=request.request_dict,
            callback=request.on_success,
        )


def _batch_message(request: Any) -> BatchMessage:
    return BatchMessage(request.id, request.args, request.kwargs, request.request_dict)


def _ignore_finished(_: bool) -> None:
    """An unreadable message has no request to report to."""


def _release(batch: Iterable[Any]) -> None:
    for request in batch:
        worker_state.task_ready(request)
