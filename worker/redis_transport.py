"""
Kombu's Redis transport, mended where version 5.7 costs most.

- A lost broker ends the stock worker if a message with a late ack is in flight: closing the channel
  raises `AttributeError`, and so does each later ack of such a message. Here the worker reconnects,
  and those acks are still good, for all channels share one list of what is unacked.
- Stock builds a new redis-py client, with a copy of its table of about 170 reply parsers, for each
  command it sends: a fifth of a worker's CPU per task.
- An item of a queue that is no message ends the stock worker. Here it is put aside.
- A broker that refuses a command (its disk or its memory is full, it lacks replicas, it has become one itself) ends the
  stock worker. Here that is a lost connection, made again until the broker takes writes.

Select it with the setting `broker_transport = "worker.redis_transport:Transport"` for a `redis://`
or `rediss://` broker.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from queue import Empty
from typing import Any

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)

Garbage = Callable[[str, bytes], None]
"""Takes the queue and an item of it that is no message of kombu's."""


class Channel(redis.Channel):  # type: ignore[misc]
    """A channel with one client, which threads may share and which outlives the connection."""

    _shared_client: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous)
        if self._shared_client is None:
            self._shared_client = super()._create_client()
        return self._shared_client

    def _brpop_read(self, **options: Any) -> Any:
        """Read one item; kombu's own, but for what it does with an item that cannot be parsed."""
        try:
            try:
                answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not answer:
                raise Empty
            queue = bytes_to_str(answer[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            try:
                message = loads(bytes_to_str(answer[1]))
            except Exception:
                # No JSON, or JSON that no parser survives: too deep, a number too long, a type that kombu cannot build.
                self.connection.put_aside(queue, answer[1])
            else:
                self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = False
            self._flush_brpop_reauth()

    def _receive_one(self, subscription: Any) -> Any:
        """Read one broadcast; kombu lets some that cannot be parsed end every worker that hears them."""
        try:
            return super()._receive_one(subscription)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            logger.error("heard a broadcast that is no message: %s", type(error).__name__)
            raise Empty from error


class Transport(redis.Transport):  # type: ignore[misc]
    """A transport that puts aside what is no message; the broker has already forgotten it."""

    Channel = Channel
    connection_errors = (*redis.Transport.connection_errors, ResponseError)
    on_garbage: Garbage | None = None
    """Gets the garbage, in the thread that consumes; without it, garbage is only logged."""

    def put_aside(self, queue: str, item: bytes) -> None:
        """Hand over an item that is no message."""
        logger.error("took %d bytes from queue %r that are no message", len(item), queue)
        if self.on_garbage is not None:
            self.on_garbage(queue, item)

    def _deliver(self, message: Any, queue: str) -> None:
        if _is_envelope(message):
            super()._deliver(message, queue)
        else:
            self.put_aside(queue, json.dumps(message, default=repr).encode())


def _is_envelope(message: Any) -> bool:
    properties = message.get("properties") if isinstance(message, dict) else None
    return (
        isinstance(properties, dict)
        and isinstance(properties.get("delivery_tag"), str)
        and isinstance(properties.get("delivery_info"), dict)
        and isinstance(message.get("headers") or {}, dict)
        and isinstance(message.get("body") or "", str)
        and _is_decodable(message.get("body") or "", properties.get("body_encoding"))
    )


def _is_decodable(body: str, encoding: object) -> bool:
    """Whether kombu can make bytes of a body; it tries before anybody could reject the message."""
    if encoding is None:
        return True
    try:
        return encoding == "base64" and base64.b64decode(body) is not None
    except ValueError:
        return False
