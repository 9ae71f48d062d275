"""
Run many messages of one task as one batch, say one SQL statement.

    hub thread                                 a thread of the pool
    message ► buffer ─ a batch is due ───────► run_batch(messages)
                ▲                              Celery's tracer over each outcome, acks
                └────────── one batch ended ◄──┘

A batch is due at once while none runs, so a lone message waits for nothing; while one runs, the
next one fills (group commit). `batch_wait_s` is only an upper bound: past it, or with a full
buffer, a further batch starts beside a slow one, up to `batches_max`.

**Prefetch.** Messages in the buffer and in running batches are unacknowledged, so they use up the
worker's prefetch: `in_flight_max`, for calls and batches together. Where calls have used it up,
batches stay small.
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

from celery import Celery, bootsteps, signals
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.exceptions import ImproperlyConfigured, InvalidTaskError
from celery.utils.imports import symbol_by_name
from celery.worker import state as worker_state
from celery.worker.request import create_request_cls

from worker.celery_ext.body_result import BodyResult, BodyResultTask, TracerCall
from worker.celery_ext.retry_forever import RetryForever

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One message of a batch."""

    task_id: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    request: Mapping[str, Any]
    """The message's headers, and its `delivery_info` (with `redelivered`) and `properties`."""


class CloseBatches(bootsteps.StartStopStep):  # type: ignore[misc]
    """Close the buffers before the connection that their messages came from goes away."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def stop(self, consumer: Any) -> None:
        """Flush on a warm shutdown; drop after a lost connection, for the broker redelivers."""
        is_lost = consumer.blueprint.state == bootsteps.RUN
        for strategy in consumer.strategies.values():
            if isinstance(strategy, BatchStrategy):
                strategy.close(flush=not is_lost and not worker_state.should_terminate)


class BatchTask(BodyResultTask):
    """
    A task that is run many messages at a time.

    Takes no ETA and no rate limit. Works in pools of threads only (`AsyncioPool`, `threads`).
    """

    abstract = True
    acks_late = True
    rate_limit = None
    Strategy = "worker.celery_ext.batches:BatchStrategy"

    batch_size_max: int = 200
    batch_wait_s: float = 0.02
    batches_max: int = 2
    """How many batches may run at once, those that wait to be retried included."""

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Have the worker close the buffers of its batched tasks."""
        app.steps["consumer"].add(CloseBatches)

    def run_batch(self, messages: Sequence[BatchMessage]) -> Sequence[BodyResult]:
        """
        Do the work of up to `batch_size_max` messages, in a thread of the pool.

        Returns:
            One outcome per message, in order. A message whose outcome is an error has failed for
            good and is acknowledged like the others.

        Raises:
            Exception: Nothing was done. The same batch is run again after a back-off, and its
                messages are neither acknowledged nor requeued, for as long as it takes.
        """
        raise NotImplementedError(f"{self.name} has no run_batch")

    def run_undecodable(self, message: Any, error: Exception) -> None:
        """
        Put aside a message whose arguments cannot be read; it is then acknowledged.

        Runs in a thread of the pool, and like a batch again until it raises nothing.

        Args:
            message: The `kombu.Message`, with `body` (bytes or text), `headers`, `delivery_info`.
        """
        logger.error("%s: dropped a message that cannot be read: %r", self.name, error)


class BatchStrategy:
    """Collect the messages of one task on one connection; all but the batches in the hub thread."""

    def __init__(self, task: BatchTask, app: Celery, consumer: Any) -> None:
        """
        Prepare; Celery makes one per task and broker connection.

        Raises:
            ImproperlyConfigured: the pool forks, there is no event loop, or there is a rate limit.
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
        self._until_done = RetryForever(consumer, task.name)
        self._buffer: deque[tuple[float, Any]] = deque()
        """Requests with the time they came in, oldest first; the prefetch is its bound."""
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
        """Take one message from the consumer."""
        try:
            request = self._request(message, body, ack, reject)
        except Exception as error:
            work = partial(self._put_aside, message, error, ack)
            self._until_done.start(work, _ignore_ended)
            return
        if request.revoked():
            return
        self._announce(request, callbacks)
        self._buffer.append((time.monotonic(), request))
        self._start_due_batches()

    def close(self, flush: bool) -> None:
        """Take no more; run what is buffered once, here, or drop it for redelivery."""
        self._until_done.close()
        while self._buffer:
            batch = self._next_batch()
            if not flush:
                _forget(batch)
                continue
            try:
                self._run_batch(batch)
            except Exception:
                # Whatever it was: the worker ends now, and must not wait for another try.
                logger.exception("%s: the last batch failed and is redelivered", self._task.name)
                flush = False

    def _request(
        self, message: Any, body: object, ack: Callable[..., None], reject: Callable[..., None]
    ) -> Any:
        if body is not None:
            raise InvalidTaskError("a batched task takes messages of protocol 2 only")
        args, kwargs, publishes_callbacks = message.payload
        if not isinstance(args, (list, tuple)) or not isinstance(kwargs, dict):
            raise InvalidTaskError("args is not a list, or kwargs is not a mapping")
        if not isinstance(publishes_callbacks, dict):
            raise InvalidTaskError("the follow-ups are not a mapping")
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
                self._until_done.start(partial(self._run_batch, batch), partial(self._end, batch))
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
        wanted = [request for request in batch if not request.revoked()]
        for request in wanted:
            request.on_accepted(os.getpid(), time.monotonic())
        return wanted

    def _end(self, batch: list[Any], is_done: bool) -> None:
        self._running -= 1
        if is_done:
            self._start_due_batches()
        else:
            _forget(batch)

    def _run_batch(self, batch: list[Any]) -> None:
        started = time.monotonic()
        traces = [self._trace(request) for request in batch]
        begun = [
            (trace, _batch_message(request))
            for trace, request in zip(traces, batch, strict=True)
            if self._guarded(trace, trace.begin)
        ]
        try:
            outcomes = self._task.run_batch([message for _, message in begun])
            if len(outcomes) != len(begun):
                raise RuntimeError(f"run_batch made {len(outcomes)} outcomes of {len(begun)}")
        except BaseException:
            # The next try, perhaps in another thread, is another span.
            for trace, _ in begun:
                self._guarded(trace, trace.cut_off)
            raise
        runtime_s = time.monotonic() - started
        for (trace, _), outcome in zip(begun, outcomes, strict=True):
            self._guarded(trace, partial(trace.end, outcome))
        for trace in traces:
            if trace.is_over:
                self._guarded(trace, partial(trace.report, runtime_s))

    def _guarded(self, trace: TracerCall, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Exception:
            # The broker's or a signal handler's: the neighbours still want their end.
            logger.exception("%s: %s stays unacknowledged", self._task.name, trace.task_id)

    def _put_aside(self, message: Any, error: Exception, ack: Callable[..., None]) -> None:
        self._task.run_undecodable(message, error)
        ack(logger, self._consumer.connection_errors)

    def _trace(self, request: Any) -> TracerCall:
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


def _ignore_ended(_: bool) -> None:
    """An unreadable message has nobody to tell."""


def _forget(batch: Iterable[Any]) -> None:
    for request in batch:
        worker_state.task_ready(request)
