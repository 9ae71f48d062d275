"""
Keep a copy of every message that names no task we can run.

Stock Celery 5.7 logs and drops such messages, or worse: a body that is not three parts, a header
of the wrong type or a missing id raises in the consumer, which ends the worker; the message goes
back to its queue and ends the next one. Here each of them reaches a sink and is then rejected, and
the log never quotes it: what is in it may be somebody's secret.

    undecodable body                         stock: logged, acked
    compressed, or in an odd encoding        stock: inflated, however large that is
    too long                                 stock: read, however large that is
    foreign content type, bad eta/expires    stock: logged, rejected
    unknown task, unknown protocol           stock: logged, rejected
    no id, wrong parts, wrong types          stock: ends one worker after the other
    arguments no task of ours can use        stock: acked, as the task's failure

    a broadcast that cannot be decoded       stock: logged; here too, for nobody waits for it
    a body that is no base64                 stock: lost, ends the worker
    not even JSON, or no kombu envelope       stock: lost, ends the worker

Bodies and items need `worker.celery_ext.redis_transport`. The broker has forgotten a message when it is looked at, so
a stray is lost if the process is killed before the sink has it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import Celery, Task
from kombu.exceptions import KombuError

from callgate.domain.bounds import STRAY_BYTES_MAX as RAW_BYTES_MAX
from callgate.domain.reports import UnprocessableMessage
from worker.celery_ext.batches import BatchStrategy
from worker.celery_ext.event_pacing import PacedConsumer
from worker.celery_ext.pool import AsyncTask
from worker.celery_ext.retry_forever import RetryForever

logger = logging.getLogger(__name__)

GARBAGE_WAITING_MAX = 200
"""Items that were no messages, while the sink has not taken them: 12 MB."""
BROADCASTS = ".celery.pidbox"
"""How the name ends under which a worker hears them."""

_CONTENT_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, KombuError)
"""What Celery raises over content that it did not expect; anything else is not the message's."""

Sink = Callable[[UnprocessableMessage], None]


class _Unprocessable(TypeError):
    """What we have against a message, in words of our own; those of other errors may quote it."""


def connect_unprocessable_sink(app: Celery, sink: Sink) -> None:
    """
    Have the workers of `app` hand every stray message to `sink` before they reject it.

    `raw` is the headers as one line of JSON, an empty line and the body, cut off after 64 KiB.
    The sink runs in a thread of the pool. While it raises, it is called again after a back-off, and
    the message counts as taken. Messages of a `BatchTask` whose arguments cannot be read go to
    its `run_undecodable` instead.
    """
    app.conf.worker_consumer = type(
        "StrayConsumer", (_StrayConsumer,), {"sink": staticmethod(sink)}
    )


class _StrayConsumer(PacedConsumer):
    """Celery's consumer with a way out for what it cannot handle."""

    sink: Sink
    _until_done: RetryForever
    _garbage_waiting = 0

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return Celery's handler of messages, guarded; called once per broker connection."""
        receive = super().create_task_handler(*args, **kwargs)
        self._until_done = RetryForever(self, "stray message sink")
        self.connection.transport.on_malformed = self._put_garbage_aside

        def receive_or_put_aside(message: Any) -> None:
            try:
                self._check(message)
                receive(message)
            except _CONTENT_ERRORS as error:
                self._put_aside(message, error)

        return receive_or_put_aside

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Put aside a body that cannot be decoded; a broadcast's is dropped, for no prefetch bounds how many come."""
        if _queue_of(message).endswith(BROADCASTS):
            logger.error("dropped a broadcast: %s", type(exc).__name__)
        else:
            self._put_aside(message, exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Put aside a task nobody registered."""
        self._put_aside(message, _Unprocessable("a task that nobody registered"))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Put aside a task with invalid headers or content."""
        self._put_aside(message, exc)

    def _check(self, message: Any) -> None:
        """Raise on what Celery would only find unusable after it has taken the task, and on its old protocol."""
        if "task" not in message.headers:
            raise _Unprocessable("no task message of a known protocol")
        strategy = self.strategies.get(message.headers.get("task"))
        if strategy is None or isinstance(strategy, BatchStrategy):
            return
        if not isinstance(message.headers.get("id"), str):
            raise _Unprocessable("the task id is not text")
        if isinstance(message.payload, list):
            args, kwargs, publishes_callbacks = message.payload
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                raise _Unprocessable("args is not a list, or kwargs is not a mapping")
            if not isinstance(publishes_callbacks, dict):
                raise _Unprocessable("the follow-ups are not a mapping")
            _check_arguments(self.app.tasks[message.headers["task"]], args, kwargs)

    def _put_garbage_aside(self, queue: str, item: bytes, why: str) -> None:
        """Keep an item that is no message, so counts for no prefetch, unless too many wait to be kept."""
        if self._garbage_waiting >= GARBAGE_WAITING_MAX:
            logger.error(
                "dropped %d bytes from queue %r: too many unprocessable_messages wait",
                len(item),
                queue,
            )
            return
        self._garbage_waiting += 1
        stray = UnprocessableMessage(queue, why, item[:RAW_BYTES_MAX])
        self._until_done.start(partial(self.sink, stray), self._end_garbage)

    def _end_garbage(self, _: bool) -> None:
        self._garbage_waiting -= 1

    def _put_aside(self, message: Any, error: Exception) -> None:
        reason = str(error) if isinstance(error, _Unprocessable) else type(error).__name__
        stray = UnprocessableMessage(_queue_of(message), reason, _raw(message))
        logger.error("stray message in queue %r: %s", stray.queue, stray.reason)
        self._until_done.start(partial(self.sink, stray), partial(self._end, message))

    def _end(self, message: Any, is_kept: bool) -> None:
        if is_kept and not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)


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
    return (headers + b"\n\n" + bytes(body or b""))[:RAW_BYTES_MAX]
