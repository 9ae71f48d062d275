"""
Asking workers, where others may answer too.

Stock Celery waits as long as answers come, keeps those to questions that nobody asked and of workers that nobody
asked, and fails over one that it cannot read. Who may write to the broker could so hold up, fill or stop who asks.
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
ANSWERS_BYTES_MAX = 16 * 2**20
"""Of one question; a worker with a thousand calls says 1 MB about them at most."""
PATIENCE = 3
"""For how many timeouts answers are taken at most, however many come; stock has no such bound."""


class BoundedClock(LamportClock):
    """
    Celery's logical clock, which takes from others only what a clock can have come to.

    It would follow any number, and a number of 4,300 digits cannot be written into an answer any more, nor into an
    event.
    """

    def adjust(self, other: Any) -> int:
        """Go on from the later of two times, if the other is one."""
        is_time = type(other) is int and 0 <= other <= CLOCK_MAX
        return super().adjust(other if is_time else 0)


class Mailbox(pidbox.Mailbox):
    """Collects the answers to a question for a bounded time, and no others."""

    reply_queue: Any
    _asked: frozenset[str] | None = None
    """Whose answers count; None for everybody's."""

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
        # Of one question only: Celery makes a copy of a mailbox for each.
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
        answers = _Answers(self, ticket, self._asked, callback)
        consumer = Consumer(
            *(channel, [self.reply_queue]),
            accept=accept or self.accept,
            no_ack=True,
            callbacks=[answers.take],
            on_decode_error=_ignore,
        )
        deadline = time.monotonic() + PATIENCE * pause_s
        try:
            with consumer:
                while not answers.are_enough(limit) and time.monotonic() < deadline:
                    try:
                        connection.drain_events(timeout=pause_s)
                    except TimeoutError:
                        break
            return answers.found
        finally:
            channel.after_reply_message_received(self.reply_queue.name)


class _Answers:
    def __init__(
        self,
        mailbox: Mailbox,
        ticket: str,
        asked: frozenset[str] | None,
        heard: Callable[[Any], None] | None,
    ) -> None:
        self.found: list[Any] = []
        self._mailbox = mailbox
        self._ticket = ticket
        self._asked = asked
        self._heard = heard
        self._size_bytes = 0

    def take(self, body: Any, message: Any) -> None:
        self._size_bytes += len(message.body or "")
        self._mailbox.clock.adjust(message.headers.get("clock"))
        if message.headers.get("ticket") != self._ticket or not isinstance(body, dict):
            return
        if self._asked is not None and not body.keys() <= self._asked:
            return
        self.found.append(body)
        if self._heard is not None:
            self._heard(body)

    def are_enough(self, limit: int | None) -> bool:
        return (limit is not None and len(self.found) >= limit) or (
            self._size_bytes > ANSWERS_BYTES_MAX
        )


def _ignore(message: Any, error: Exception) -> None:
    """An answer that cannot be read is none."""


class Control(CeleryControl):  # type: ignore[misc]
    """Celery's control, with that mailbox."""

    Mailbox = Mailbox
