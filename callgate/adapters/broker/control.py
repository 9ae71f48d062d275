"""
Inspections of workers, where any user of the broker may reply.

Stock Celery waits as long as replies come. It keeps replies to other inspections and from workers that were not asked,
and it fails over an unreadable reply. A user of the broker could so delay, fill or stop the process that asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from celery.app.control import Control as CeleryControl
from kombu import Consumer, pidbox
from kombu.clocks import LamportClock

CLOCK_MAX = 2**48
"""A thousand ticks a second for nine thousand years."""
ANSWERS_MAX_BYTES = 16 * 2**20
"""Of one inspection; a worker with a thousand calls replies at most 1 MB."""
TIMEOUTS_MAX = 3
"""Replies are collected for at most so many timeouts; stock Celery has no such limit."""


class BoundedClock(LamportClock):
    """
    Celery's logical clock, which accepts only plausible times from others.

    The original follows any number. A number of 4,300 digits could then not be written into a reply or an event.
    """

    def adjust(self, other: Any) -> int:
        """Continue from the later of both times; ignore the other if it is not plausible."""
        is_time = type(other) is int and 0 <= other <= CLOCK_MAX
        return super().adjust(other if is_time else 0)


class ReplyCollector(pidbox.Mailbox):
    """Collects the replies to one inspection, and no others, for a bounded time."""

    reply_queue: Any
    _asked: frozenset[str] | None = None
    """The workers whose replies count; None for all."""

    def __init__(self, namespace: str, **options: Any) -> None:
        super().__init__(namespace, **{**options, "clock": BoundedClock()})

    def _broadcast(
        self,
        command: str,
        arguments: Any = None,
        destination: Any = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        # Valid for one inspection: Celery copies this object for each.
        self._asked = frozenset(destination) if destination else None
        return super()._broadcast(command, arguments, destination, *more, **options)

    def _collect(
        self,
        ticket: str,
        limit: int | None = None,
        timeout: float | None = 1,
        callback: Callable[[Any], None] | None = None,
        channel: Any = None,
        accept: Any = None,
    ) -> list[Any]:
        connection: Any = self.connection
        channel = channel or connection.default_channel
        pause_s = 1.0 if timeout is None else timeout
        replies = _Replies(self, ticket, self._asked, callback)
        consumer = Consumer(
            *(channel, [self.reply_queue]),
            accept=accept or self.accept,
            no_ack=True,
            callbacks=[replies.take],
            on_decode_error=_ignore,
        )
        deadline = time.monotonic() + TIMEOUTS_MAX * pause_s
        try:
            with consumer:
                while not replies.are_enough(limit) and time.monotonic() < deadline:
                    try:
                        connection.drain_events(timeout=pause_s)
                    except TimeoutError:
                        break
            return replies.found
        finally:
            channel.after_reply_message_received(self.reply_queue.name)


class _Replies:
    def __init__(
        self,
        collector: ReplyCollector,
        ticket: str,
        asked: frozenset[str] | None,
        on_reply: Callable[[Any], None] | None,
    ) -> None:
        self.found: list[Any] = []
        self._collector = collector
        self._ticket = ticket
        self._asked = asked
        self._on_reply = on_reply
        self._size_bytes = 0

    def take(self, body: Any, message: Any) -> None:
        self._size_bytes += len(message.body or "")
        self._collector.clock.adjust(message.headers.get("clock"))
        if message.headers.get("ticket") != self._ticket or not isinstance(body, dict):
            return
        if self._asked is not None and not body.keys() <= self._asked:
            return
        self.found.append(body)
        if self._on_reply is not None:
            self._on_reply(body)

    def are_enough(self, limit: int | None) -> bool:
        return (limit is not None and len(self.found) >= limit) or (
            self._size_bytes > ANSWERS_MAX_BYTES
        )


def _ignore(message: Any, error: Exception) -> None:
    """Ignore an unreadable reply."""


class Control(CeleryControl):  # type: ignore[misc]
    """Celery's control, with our reply collector."""

    Mailbox = ReplyCollector
