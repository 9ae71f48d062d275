"""
Kombu's Redis transport, hardened against what strangers may have written.

Every process of callgate reads the broker through it: a worker its queues and broadcasts, Flower its events, a client
and the doctor the replies of workers. Kombu decodes nothing before it is known to be bounded JSON, because:

- Kombu takes `content-encoding` for a codec of Python. One of them is bz2: 2 kB become 3 GB.
- The header `compression` does the same.
- An item of a queue is as long as its sender made it (`callgate.adapters.broker.bounds`).
- A megabyte of `[],[],...` becomes thirty of objects. JSON nested 980 deep can be read, and then not written.
- An item that is not in kombu's envelope raises somewhere inside the consumer.

It leans on kombu's internals outside `worker/celery_ext` because clients run it too, and the worker is not installed
there (ADR 18).
"""

from __future__ import annotations

import sys
from queue import Empty
from typing import Any

from kombu.asynchronous import get_event_loop
from kombu.exceptions import DecodeError
from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str

from callgate.adapters.broker.bounds import BoundedParser
from callgate.domain import bounded_json
from callgate.event_log import event_log

log = event_log(__name__)

UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What decoding raises for malformed input."""
HEARD_AT_ONCE_MAX = 200
"""Broadcasts that are read before other work of the hub gets its turn."""
NO_MESSAGE = "no message"


def refusal_reason(message: Any) -> str | None:
    """Return why a message must not be decoded, without quoting it; None if it may be decoded."""
    properties = message.get("properties") if isinstance(message, dict) else None
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_tag"), str):
        return NO_MESSAGE
    headers = message.get("headers") or {}
    if not isinstance(headers, dict) or not isinstance(message.get("body") or "", str):
        return NO_MESSAGE
    if message.get("content-type") != "application/json":
        return "its content type is not application/json"
    if message.get("content-encoding") not in ("utf-8", "binary"):
        return "its content encoding is neither utf-8 nor binary"
    if headers.get("compression") is not None:
        return "it is compressed"
    if properties.get("body_encoding") not in (None, "base64"):
        return "its body is neither text nor base64"
    return None


class Message(virtual.Message):  # type: ignore[misc]
    """A message that reports an unreadable body when it is decoded, not when it is made."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        self.errors: list[Any] = []
        try:
            super().__init__(payload, channel, **kwargs)
        except UNREADABLE:
            self.errors = [sys.exc_info()]
            properties = {**payload["properties"], "body_encoding": None}
            super().__init__({**payload, "properties": properties}, channel, **kwargs)
            self._raw = payload

    def _decode(self) -> Any:
        """Read the body as plain JSON; kombu would also build decimals, dates and other types that the body names."""
        try:
            return bounded_json.loads(bytes_to_str(self.body))
        except UNREADABLE as error:
            raise DecodeError(type(error).__name__) from error


class Channel(redis.Channel):  # type: ignore[misc]
    """A channel whose connections buffer no more than a message may have."""

    Message = Message
    _in_poll: Any

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        return {**super()._connparams(asynchronous), "parser_class": BoundedParser}

    def _brpop_read(self, **options: Any) -> bool:
        try:
            taken = self._taken("BRPOP", **options)
            if not taken:
                raise Empty
            queue = bytes_to_str(taken[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self.connection.deliver_item(queue, taken[1])
            return True
        finally:
            self._in_poll = None
            # Kombu before 5.7 knows no logins that expire.
            if hasattr(self, "_flush_brpop_reauth"):
                self._flush_brpop_reauth()

    def _taken(self, command: str, **options: Any) -> Any:
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, command, **options)
        except self.connection_errors:
            # The next turn of the hub reconnects.
            connection.disconnect()
            raise

    def _receive(self) -> bool:
        has_received = self._receive_broadcast()
        for _ in range(HEARD_AT_ONCE_MAX):
            if not self._has_more():
                return has_received
            has_received = self._receive_broadcast() or has_received
        if (loop := get_event_loop()) is None:
            return self._receive_rest() or has_received
        loop.call_soon(self._receive_rest)
        return has_received

    def _receive_rest(self) -> bool:
        """Read the rest of a burst after other work: no event announces what the buffer already holds."""
        return self._has_more() and self._receive()

    def _has_more(self) -> bool:
        connection = None if self.closed else self.subclient.connection
        return connection is not None and bool(connection.can_read(timeout=0))

    def _receive_broadcast(self) -> bool:
        try:
            return bool(self._receive_one(self.subclient))
        except Empty:
            return False

    def _receive_one(self, subscription: Any) -> Any:
        try:
            return super()._receive_one(subscription)
        except UNREADABLE as error:
            log.error("broadcast.refused", reason=type(error).__name__)
            raise Empty from error

    def _handle_message(self, subscription: Any, reply: Any) -> Any:
        received = super()._handle_message(subscription, reply)
        if isinstance(received["data"], bytes):
            bounded_json.check(bytes_to_str(received["data"]))
        return received

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        if why := refusal_reason(message):
            log.error("broadcast.refused", reason=why)
            raise Empty
        return super()._deliver_fanout_message(message, exchange)


class Transport(redis.Transport):  # type: ignore[misc]
    """A transport that delivers only JSON; the broker has already forgotten what is refused."""

    Channel = Channel

    def deliver_item(self, queue: str, item: bytes) -> None:
        """Deliver one item of a queue, or refuse it."""
        try:
            message = bounded_json.loads(item)
            why = refusal_reason(message)
        except UNREADABLE:
            why = NO_MESSAGE
        if why is None:
            self._deliver(message, queue)
        else:
            self.refuse(queue, item, why)

    def refuse(self, queue: str, item: bytes, why: str) -> None:
        """Log that an item is not delivered."""
        log.error("message.refused", queue=queue, size_bytes=len(item), reason=why)
