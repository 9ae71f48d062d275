"""
Kombu's Redis transport, made for a worker whose ledger knows what is lost.

- A message is forgotten by the broker when it is handed over. Stock writes each into a list of what is
  unacknowledged, and out of it again, to deliver it once more after a visibility timeout: four more round trips per
  call, for what a sweep finds within seconds (ADR 12). What a worker has taken and not ended counts in its memory,
  bounds what it takes, and goes back to the queue when it stops or loses its connection.
- Several messages come with one round trip (BLMPOP: Redis 7 or later, or Valkey).
- Stock builds a new redis-py client, with a copy of its table of about 170 reply parsers, for each
  command it sends: a fifth of a worker's CPU per task.
- An item of a queue that is no message ends the stock worker. Here it is put aside. So is one that is longer than a
  message of ours can be, and one that kombu would inflate (`callgate.adapters.broker.guard`).
- A broker that refuses a command (its disk or its memory is full, it lacks replicas, it has become one itself) ends the
  stock worker. Here that is a lost connection, made again until the broker takes writes.

Select it with the setting `broker_transport = "worker.celery_ext.redis_transport:Transport"` for a `redis://`
or `rediss://` broker.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty
from typing import Any

from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ResponseError

from callgate.adapters.broker import guard as celery_guard

logger = logging.getLogger(__name__)

_TAGS = itertools.count(1)
Garbage = Callable[[str, bytes, str], None]
"""Takes the queue, an item of it that is no message for us, and why it is none."""
TAKEN_AT_ONCE_MAX = 16
"""Messages of one round trip. More would save little, and take from the other workers what they have room for."""
TOO_LONG = "too long for a message"
MESSAGE_BYTES_MAX = 16 * 1024
"""Ten times what ours have. Of as many as a worker may take at once, each can grow twentyfold when it is decoded."""


class Unfinished(virtual.QoS):  # type: ignore[misc]
    """What was delivered and has not ended, in memory; its number is bounded by the prefetch."""

    def restore_unacked(self) -> list[Any]:
        """Put it back; without a broker it is left to the ledger's sweep."""
        self._flush()
        taken = [
            (m.delivery_info["routing_key"], _bytes_of(m._raw)) for m in self._delivered.values()
        ]
        self._delivered.clear()
        self.channel.put_back(taken)
        return []


class Channel(celery_guard.Channel):
    """A channel with one client, which threads may share and which outlives the connection."""

    ack_emulation = False
    QoS: Any
    _in_poll: Any
    _brpop_sent_at: Any
    _shared_client: Any = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.QoS = Unfinished

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous)
        if self._shared_client is None:
            self._shared_client = super()._create_client()
        return self._shared_client

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        wait_s = timeout or self.brpop_timeout or 0
        keys = [self.global_keyprefix + queue for queue in queues]
        # None is a prefetch without bound.
        room = self.qos.can_consume_max_estimate()
        count = TAKEN_AT_ONCE_MAX if room is None else min(room, TAKEN_AT_ONCE_MAX)
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command(
            "BLMPOP", wait_s, len(keys), *keys, "RIGHT", "COUNT", count
        )

    def _brpop_read(self, **options: Any) -> bool:
        try:
            taken = self._taken("BLMPOP", **options)
            if not taken:
                raise Empty
            queue = bytes_to_str(taken[0]).removeprefix(self.global_keyprefix)
            self._queue_cycle.rotate(queue)
            items = deque(taken[1])
            try:
                while items:
                    self.connection.deliver_item(queue, items.popleft())
            except BaseException:
                # Nobody knows of the others.
                self.put_back([(queue, item) for item in items])
                raise
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def put_back(self, taken: Sequence[tuple[str, bytes]]) -> None:
        """Put items in front of their queues again, the first one first."""
        try:
            with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                for queue, item in reversed(taken):
                    pipe.rpush(queue, item)
                pipe.execute()
        except self.connection_errors as error:
            logger.warning("%d messages are left to the sweep: %r", len(taken), error)


class Transport(celery_guard.Transport):
    """A transport that puts aside what is no message for us; the broker has already forgotten it."""

    Channel = Channel
    connection_errors = (*celery_guard.Transport.connection_errors, ResponseError)
    on_malformed: Garbage | None = None
    """Gets the garbage, in the thread that consumes; without it, garbage is only logged."""

    def deliver_item(self, queue: str, item: bytes) -> None:
        """Deliver one item of a queue, or put it aside."""
        if len(item) > MESSAGE_BYTES_MAX:
            self.refuse(queue, item, TOO_LONG)
        else:
            super().deliver_item(queue, item)

    def refuse(self, queue: str, item: bytes, why: str) -> None:
        """Hand over an item that is no message for us."""
        super().refuse(queue, item, why)
        if self.on_malformed is not None:
            self.on_malformed(queue, item, why)

    def _deliver(self, message: Any, queue: str) -> None:
        # Of what it says of itself only how to read it. Where it came from, for it may have to go back; and a tag of
        # our own: those that share one would count as one, and so be taken without bound.
        message["properties"] = {
            "body_encoding": message["properties"].get("body_encoding"),
            "delivery_info": {"exchange": "", "routing_key": queue},
            "delivery_tag": str(next(_TAGS)),
        }
        super()._deliver(message, queue)


def _bytes_of(message: Any) -> bytes:
    return json.dumps(message, default=repr).encode()
