"""
Keep a copy of every message that cannot be run.

Stock Celery 5.7 logs and drops such messages, or worse: a body that is not three parts, a header of the wrong type or
a missing id raises in the consumer and ends the worker; the message returns to its queue and ends the next one. Here
each of them is given to a sink and then rejected. The log never quotes a message, because it may hold secrets.

    undecodable body                         stock: logged, acked
    compressed, or in an odd encoding        stock: inflated, however large that is
    too long                                 stock: read, however large that is
    foreign content type, bad eta/expires    stock: logged, rejected
    unknown task, unknown protocol           stock: logged, rejected
    no id, wrong parts, wrong types          stock: ends one worker after the other
    arguments no task of ours can use        stock: acked, as the task's failure

    a broadcast that cannot be decoded       stock: logged; logged here too, because nothing waits for it
    a body that is not base64                stock: lost, ends the worker
    not JSON, or not kombu's envelope        stock: lost, ends the worker

The cases about items and encodings need `worker.celery_ext.redis_transport`. The broker has already forgotten a message
when it is examined, so an unprocessable message is lost if the process is killed before the sink has stored it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from celery import Celery, Task
from kombu.exceptions import KombuError

from callgate.domain.bounds import UNPROCESSABLE_MAX_BYTES as RAW_MAX_BYTES
from callgate.domain.reports import UnprocessableMessage
from worker.celery_ext.batches import BatchStrategy
from worker.celery_ext.event_pacing import PacedConsumer
from worker.celery_ext.pool import AsyncTask
from worker.celery_ext.retry_forever import RetryForever

log = structlog.get_logger(__name__)
_reject_log = logging.getLogger(__name__)
"""For kombu, which logs a reject that fails by itself, in the standard library's form."""

MALFORMED_WAITING_MAX = 200
"""Malformed items that wait for the sink, at most: 12 MB."""
BROADCASTS = ".celery.pidbox"
"""The end of the name under which a worker receives them."""

_CONTENT_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, KombuError)
"""What Celery raises over content that it did not expect. Any other error is not caused by the message."""

Sink = Callable[[UnprocessableMessage], None]


class _Unprocessable(TypeError):
    """The reason to divert a message, in our own words; the words of other errors may quote the message."""


def connect_unprocessable_sink(app: Celery, sink: Sink) -> None:
    """
    Have the workers of `app` give every unprocessable message to `sink` before they reject it.

    `raw` is the headers as one line of JSON, an empty line and the body, cut off after 64 KiB. The sink runs in a
    thread of the pool. While it raises, it is called again after a back-off, and the message counts as taken. A message
    of a `BatchTask` whose arguments cannot be read goes to the task's `run_undecodable` instead.
    """
    app.conf.worker_consumer = type(
        "DivertingConsumer", (_DivertingConsumer,), {"sink": staticmethod(sink)}
    )


class _DivertingConsumer(PacedConsumer):
    """Celery's consumer, with a way out for messages that it cannot handle."""

    sink: Sink
    _retry: RetryForever
    _malformed_waiting = 0

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return Celery's message handler, guarded; Celery calls this once per broker connection."""
        receive = super().create_task_handler(*args, **kwargs)
        self._retry = RetryForever(self, "unprocessable message sink")
        self.connection.transport.on_malformed = self._divert_malformed

        def receive_or_divert(message: Any) -> None:
            try:
                self._check(message)
                receive(message)
            except _CONTENT_ERRORS as error:
                self._divert(message, error)

        return receive_or_divert

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Divert an undecodable body. A broadcast is dropped instead: no prefetch limit bounds their number."""
        if _queue_of(message).endswith(BROADCASTS):
            log.error("broadcast.discarded", reason=type(exc).__name__)
        else:
            self._divert(message, exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Divert a message of a task that is not registered."""
        self._divert(message, _Unprocessable("a task that is not registered"))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Divert a message with invalid headers or content."""
        self._divert(message, exc)

    def _check(self, message: Any) -> None:
        """Raise on the old protocol, and on content that Celery finds unusable only after it has accepted the task."""
        if "task" not in message.headers:
            raise _Unprocessable("no task message of a known protocol")
        strategy = self.strategies.get(message.headers.get("task"))
        if strategy is None or isinstance(strategy, BatchStrategy):
            return
        if not isinstance(message.headers.get("id"), str):
            raise _Unprocessable("the task id is not text")
        if isinstance(message.payload, list):
            args, kwargs, callbacks = message.payload
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                raise _Unprocessable("args is not a list, or kwargs is not a mapping")
            if not isinstance(callbacks, dict):
                raise _Unprocessable("the callbacks are not a mapping")
            _check_arguments(self.app.tasks[message.headers["task"]], args, kwargs)

    def _divert_malformed(self, queue: str, item: bytes, why: str) -> None:
        """Give an item that is no message to the sink; drop it while too many wait, as no prefetch limit counts it."""
        if self._malformed_waiting >= MALFORMED_WAITING_MAX:
            log.error("unprocessable_message.discarded", queue=queue, size_bytes=len(item))
            return
        self._malformed_waiting += 1
        unprocessable = UnprocessableMessage(queue, why, item[:RAW_MAX_BYTES])
        self._retry.start(partial(self.sink, unprocessable), self._on_malformed_stored)

    def _on_malformed_stored(self, _: bool) -> None:
        self._malformed_waiting -= 1

    def _divert(self, message: Any, error: Exception) -> None:
        reason = str(error) if isinstance(error, _Unprocessable) else type(error).__name__
        unprocessable = UnprocessableMessage(_queue_of(message), reason, _raw(message))
        log.error("unprocessable_message.diverted", queue=unprocessable.queue, reason=reason)
        self._retry.start(partial(self.sink, unprocessable), partial(self._on_stored, message))

    def _on_stored(self, message: Any, is_stored: bool) -> None:
        if is_stored and not message.acknowledged:
            message.reject_log_error(_reject_log, self.connection_errors)


def _check_arguments(task: Task, args: list[Any], kwargs: dict[str, Any]) -> None:
    try:
        if isinstance(task, AsyncTask):
            task.check(*args, **kwargs)
    except (TypeError, ValueError):
        raise _Unprocessable("arguments that the task cannot use") from None


def _queue_of(message: Any) -> str:
    return str((message.delivery_info or {}).get("routing_key") or "")


def _raw(message: Any) -> bytes:
    body = message.body
    if isinstance(body, str):
        body = body.encode(errors="backslashreplace")
    headers = json.dumps(message.headers, default=repr).encode()
    return (headers + b"\n\n" + bytes(body or b""))[:RAW_MAX_BYTES]
