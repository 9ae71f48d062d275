"""
Kombu's Redis transport, mended where version 5.7 costs most.

- A lost broker ends the stock worker if a message with a late ack is in flight: closing the channel
  raises `AttributeError`, and so does each later ack of such a message. Here the worker reconnects,
  and those acks are still good, for all channels share one list of what is unacked.
- Stock builds a new redis-py client, with a copy of its table of about 170 reply parsers, for each
  command it sends: a fifth of a worker's CPU per task.
- An item of a queue, or a broadcast, that is no message ends the stock worker. Here it is put aside. So is a
  message that is compressed: ours never are, and a megabyte of it can be gigabytes once it is looked at.
- A broker that refuses a command (its disk or its memory is full, it lacks replicas, it has become one itself) ends the
  stock worker. Here that is a lost connection, made again until the broker takes writes.

Select it with the setting `broker_transport = "worker.redis_transport:Transport"` for a `redis://`
or `rediss://` broker.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from kombu.exceptions import ContentDisallowed
from kombu.transport import redis, virtual
from kombu.utils.json import loads
from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)

Garbage = Callable[[str, bytes], None]
"""Takes the queue (empty if unknown) and an item of it that is no message of kombu's."""


UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What decoding raises over bytes of somebody else's making."""


class Unreadable(NamedTuple):
    """An item that is no JSON that can be read."""

    text: str


def _loads(text: str) -> Any:
    try:
        return loads(text)
    except UNREADABLE:
        return Unreadable(text)


# Wherever the stock transport decodes what it took from the broker, an exception ends the worker.
redis.loads = _loads  # type: ignore[assignment]


class Message(virtual.Message):  # type: ignore[misc]
    """A message; one whose body cannot be read, or is compressed, says so when it is decoded."""

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        self.errors: list[Any] = []
        if (payload.get("headers") or {}).get("compression"):
            self.errors = [(ContentDisallowed, ContentDisallowed("compressed"), None)]
        try:
            super().__init__(payload, channel, **kwargs)
        except UNREADABLE:
            self.errors = [sys.exc_info()]
            properties = {**payload["properties"], "body_encoding": None}
            super().__init__({**payload, "properties": properties}, channel, **kwargs)


class QoS(redis.QoS):  # type: ignore[misc]
    """The list of what is unacked; an entry that nobody could restore would end each worker at its start."""

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back into its queue, or what is none aside."""
        try:
            super().restore_by_tag(tag, client, leftmost)
        except UNREADABLE:
            with self.channel.conn_or_acquire(client) as valkey:
                item = valkey.hget(self.unacked_key, tag)
                self._remove_from_indices(tag, valkey.pipeline()).execute()
            self.channel.connection.put_aside("", item or b"")


class Channel(redis.Channel):  # type: ignore[misc]
    """A channel with one client, which threads may share and which outlives the connection."""

    Message = Message
    QoS = QoS
    _shared_client: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous)
        if self._shared_client is None:
            self._shared_client = super()._create_client()
        return self._shared_client


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
            self.put_aside(queue, _bytes_of(message))


def _bytes_of(item: Any) -> bytes:
    if isinstance(item, Unreadable):
        return item.text.encode(errors="replace")
    try:
        return json.dumps(item, default=repr).encode()
    except RecursionError:
        return b"nested too deeply"


def _is_envelope(message: Any) -> bool:
    properties = message.get("properties") if isinstance(message, dict) else None
    return (
        isinstance(properties, dict)
        and isinstance(tag := properties.get("delivery_tag"), str)
        and tag.isascii()
        and isinstance(properties.get("delivery_info"), dict)
        and isinstance(message.get("headers") or {}, dict)
        and isinstance(message.get("body") or "", str)
    )
