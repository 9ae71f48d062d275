"""
Kombu's Redis transport, for a worker whose ledger can find lost messages.

- The broker forgets a message when it delivers it. Stock kombu writes each message into a hash of unacknowledged
  messages and removes it later, to redeliver it after a visibility timeout: four more round trips per call, for a loss
  that a sweep finds within seconds (ADR 12). A worker keeps its unacknowledged messages in memory. They count against
  its prefetch limit, and return to the queue when it stops or loses its connection.
- One round trip takes several messages (BLMPOP: Redis 7 or later, or Valkey).
- Stock kombu builds a new redis-py client for each command, with a copy of a table of about 170 reply parsers: a fifth
  of a worker's CPU per task.
- The stock worker exits when an item of a queue is not a message. Here the item is diverted, and so is an item that is
  too long for a message of ours or that kombu would inflate (`callgate.adapters.broker.guarded_transport`).
- The stock worker exits when the broker rejects a write (disk full, out of memory, too few replicas, demoted to
  replica). Here that counts as a lost connection: the worker reconnects until the broker accepts writes.

Select it with the setting `broker_transport = "worker.celery_ext.redis_transport:Transport"` for a `redis://`
or `rediss://` broker.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty
from typing import Any

import structlog
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ResponseError

from callgate.adapters.broker import guarded_transport
from callgate.adapters.broker.app import CALL_QUEUE, EXPRESS_QUEUE

log = structlog.get_logger(__name__)

_TAGS = itertools.count(1)
OnMalformed = Callable[[str, bytes, str], None]
"""Takes a queue, an item of it that is not a message for us, and the reason."""
TAKEN_AT_ONCE_MAX = 16
"""Messages of one round trip. More would save little, and leave fewer for workers that have free slots."""
CALLS_FIRST_EVERY = 8
"""Each eighth pop asks the queue of calls before the express queue, so that a flood there does not stop the others."""
TOO_LONG = "too long for a message"
MESSAGE_MAX_BYTES = 16 * 1024
"""Ten times the size of our messages. Decoding can make each of those that a worker holds twenty times larger."""


class InMemoryUnacked(virtual.QoS):  # type: ignore[misc]
    """The unacknowledged messages, in memory; bounded by the prefetch limit."""

    def restore_unacked(self) -> list[Any]:
        """Return them to their queues; without a broker a sweep finds the lost ones later."""
        self._flush()
        taken = [
            (m.delivery_info["routing_key"], _bytes_of(m._raw)) for m in self._delivered.values()
        ]
        self._delivered.clear()
        self.channel.restore(taken)
        return []


class Channel(guarded_transport.Channel):
    """A channel with one client, which threads may share and which survives reconnects."""

    ack_emulation = False
    QoS: Any
    _in_poll: Any
    _brpop_sent_at: Any
    _shared_client: Any = None
    _pops = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.QoS = InMemoryUnacked

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
        self._pops += 1
        if {EXPRESS_QUEUE, CALL_QUEUE} <= set(queues):
            queues.remove(EXPRESS_QUEUE)
            is_first = self._pops % CALLS_FIRST_EVERY != 0
            queues.insert(queues.index(CALL_QUEUE) + (not is_first), EXPRESS_QUEUE)
        wait_s = timeout or self.brpop_timeout or 0
        keys = [self.global_keyprefix + queue for queue in queues]
        # None: the prefetch count is unlimited.
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
                # Celery does not know of the remaining items.
                self.restore([(queue, item) for item in items])
                raise
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def restore(self, taken: Sequence[tuple[str, bytes]]) -> None:
        """Return items to the heads of their queues, in their order."""
        try:
            with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
                for queue, item in reversed(taken):
                    pipe.rpush(queue, item)
                pipe.execute()
        except self.connection_errors as error:
            log.warning("messages.lost", count=len(taken), reason=repr(error))


class Transport(guarded_transport.Transport):
    """A transport that diverts items that are not messages for us; the broker has already forgotten them."""

    Channel = Channel
    connection_errors = (*guarded_transport.Transport.connection_errors, ResponseError)
    on_malformed: OnMalformed | None = None
    """Takes malformed items, in the consuming thread; without it they are only logged."""

    def deliver_item(self, queue: str, item: bytes) -> None:
        """Deliver one item of a queue, or divert it."""
        if len(item) > MESSAGE_MAX_BYTES:
            self.refuse(queue, item, TOO_LONG)
        else:
            super().deliver_item(queue, item)

    def refuse(self, queue: str, item: bytes, why: str) -> None:
        """Divert an item that is not a message for us."""
        super().refuse(queue, item, why)
        if self.on_malformed is not None:
            self.on_malformed(queue, item, why)

    def _deliver(self, message: Any, queue: str) -> None:
        # Of the sender's properties only the encoding of the body is used. The queue is ours, because the message may
        # have to return there. The tag is ours, because messages with one tag would count as one, and pass the
        # prefetch limit.
        message["properties"] = {
            "body_encoding": message["properties"].get("body_encoding"),
            "delivery_info": {"exchange": "", "routing_key": queue},
            "delivery_tag": str(next(_TAGS)),
        }
        super()._deliver(message, queue)


def _bytes_of(message: Any) -> bytes:
    return json.dumps(message, default=repr).encode()
