"""
The queue: messages hold ids only, never prompts. They are published in pipelined batches; a lost one is recovered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Any

from celery import Celery
from celery.canvas import maybe_signature
from kombu import Producer, Queue
from kombu.exceptions import InconsistencyError, KombuError, LimitExceeded
from kombu.exceptions import OperationalError as KombuOperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from callgate.adapters.broker.app import (
    CALL_QUEUE,
    CALL_TASK,
    EXPRESS_QUEUE,
    LOG_QUEUE,
    LOG_TASK,
    SWEEP_TASK,
    in_this_process,
)
from callgate.adapters.broker.links import sendable, span_of
from callgate.domain import trace_context
from callgate.domain.call_order import Lane
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.delivery import Delivery, Published
from callgate.domain.errors import BrokerUnavailable
from callgate.per_process import PerProcess
from callgate.services.tracing import NO_TRACING, Tracing

OUTAGES = (OSError, RedisConnectionError, RedisTimeoutError, InconsistencyError, LimitExceeded)
"""Causes that mean that the broker did not answer. Kombu's own error is too wide: it also wraps a link's KeyErrors."""
PUBLISH_BATCH_MAX = 500


class CeleryQueue:
    """`QueuePort` over Celery."""

    def __init__(self, app: Celery, *, timeout_s: float, tracing: Tracing = NO_TRACING) -> None:
        self._app = app
        self._tracing = tracing
        self._timeout_s = timeout_s
        # The batch state of kombu belongs to a producer, so one thread publishes at a time.
        self._lock = PerProcess(threading.Lock)

    def publish_calls(
        self, keys: Sequence[CallKey], lane: Lane = Lane.CALL, *, traceparent: str | None = None
    ) -> None:
        """Publish call tasks; see `QueuePort.publish_calls`."""
        queue = EXPRESS_QUEUE if lane is Lane.EXPRESS else CALL_QUEUE
        with self._batch() as producer:
            for key in keys:
                arguments = [str(key.call_id), key.generation]
                self._send(producer, CALL_TASK, queue, key.task_id, arguments, span=traceparent)

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        """Publish log tasks, each as the child of its call task; see `QueuePort.publish_settle_tasks`."""
        with self._batch() as producer:
            for ref in refs:
                arguments = [str(ref.key.call_id), ref.key.generation, str(ref.attempt_id)]
                ids = str(ref.attempt_id), arguments, ref.key.task_id
                self._send(producer, LOG_TASK, LOG_QUEUE, *ids, span=ref.traceparent)

    def publish_sweep(self, sent_at: datetime) -> None:
        """Send a sweep through the call queue; see `QueuePort.publish_sweep`."""
        with self._batch() as producer:
            task_id = f"sweep.{sent_at.timestamp():.3f}"
            self._send(producer, SWEEP_TASK, CALL_QUEUE, task_id, [sent_at.isoformat()])

    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        """
        Publish links; see `QueuePort.publish_links`.

        A broken link can never be published. A link that the broker refuses, for example because its key is no queue,
        may be published later. Neither delays other links.
        """
        outcomes: list[Published] = []
        for delivery in deliveries:
            try:
                self._publish_link(delivery)
            except Exception as exc:
                cause = exc.__cause__ or exc
                if isinstance(cause, OUTAGES):
                    if not outcomes:
                        raise BrokerUnavailable(f"cannot publish links: {_name(exc)}") from exc
                    break
                is_refused = isinstance(cause, RedisError)
                # Not the text of the error: it may quote the link.
                why = f"{'refused by the broker' if is_refused else 'broken'}: {_name(exc)}"
                outcomes.append(Published(delivery.submission_id, why, not is_refused))
            else:
                outcomes.append(Published(delivery.submission_id))
        return outcomes

    def _publish_link(self, delivery: Delivery) -> None:
        chosen = sendable(delivery.link, succeeded=delivery.state is CallState.SUCCEEDED)
        if chosen is None:
            return
        outcome = {"task_id": delivery.key.task_id, "state": delivery.state.value}
        signature = maybe_signature(chosen, app=in_this_process(self._app))
        span = span_of(delivery.link) if self._tracing.is_on else None
        with self._tracing.link(delivery, span) as headers:
            signature.clone().apply_async(
                args=(outcome,),
                task_id=str(delivery.submission_id),
                serializer="json",
                retry=False,
                headers=dict(headers),
                **_destination(chosen),
            )

    @contextmanager
    def _batch(self) -> Iterator[Producer]:
        """Collect messages and send them in one round trip; after an error it is unknown which of them arrived."""
        try:
            with (
                self._lock(),
                in_this_process(self._app).producer_pool.acquire(
                    block=True, timeout=self._timeout_s
                ) as producer,
                _batch_of(producer),
            ):
                yield producer
        except (KombuError, KombuOperationalError, RedisError, OSError) as exc:
            raise BrokerUnavailable(f"the broker did not answer: {_name(exc)}") from exc

    def _send(
        self,
        producer: Producer,
        task: str,
        queue: str,
        task_id: str,
        arguments: list[Any],
        parent_id: str | None = None,
        *,
        span: str | None = None,
    ) -> None:
        message = self._app.amqp.create_task_message(
            task_id,
            task,
            arguments,
            {},
            parent_id=parent_id,
            root_id=parent_id or task_id,
            argsrepr=repr(tuple(arguments)),
            kwargsrepr="{}",
            ignore_result=True,
        )
        headers = {trace_context.HEADER: span} if span else None
        with self._tracing.within(span):
            self._app.amqp.send_task_message(
                producer, task, message, queue=queue, retry=False, headers=headers
            )


def _batch_of(producer: Producer) -> AbstractContextManager[object]:
    """Kombu's batch of a producer. Kombu before 5.7 has none: there messages go one by one."""
    batch = getattr(producer, "batch", None)
    return batch(PUBLISH_BATCH_MAX) if batch else nullcontext()


def _destination(chosen: dict[str, Any]) -> dict[str, Any]:
    """
    Return the queue of a link's first task, if it has one.

    An object and not a name: our app refuses the name of a queue that it has not declared, and sends a message for the
    anonymous exchange to its own default queue. The pipeline's app sends the later tasks of a chain.
    """
    is_chain = chosen.get("subtask_type") == "chain"
    first = chosen["kwargs"]["tasks"][0] if is_chain else chosen
    name = first["options"].get("queue")
    return {"queue": Queue(name, no_declare=True)} if name else {}


def _name(exc: BaseException) -> str:
    return type(exc.__cause__ or exc).__name__
