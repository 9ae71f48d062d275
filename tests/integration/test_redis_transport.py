"""What the worker's transport takes from the broker, and what it returns."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue

from tests.support.queued_messages import with_body
from tests.support.valkey import Valkey, until


def test_messages_with_one_tag_count_one_by_one_and_all_return(valkey: Valkey) -> None:
    """The sender chooses the tag. If it identified a message, a thousand with one tag would count as one."""
    valkey.client.lpush("test", *[with_body([[], {}, {}]) for _ in range(40)])
    taken: list[object] = []
    with Connection(
        valkey.url, transport="worker.celery_ext.redis_transport:Transport"
    ) as connection:
        channel = connection.channel()
        channel.basic_qos(0, 4, False)
        with Consumer(channel, [Queue("test")], on_message=taken.append):
            connection.drain_events(timeout=5)
            until(lambda: len(taken) == 4)
            assert not channel.qos.can_consume()
            assert valkey.ready() == 36
        channel.close()

    assert valkey.ready() == 40


def test_returned_messages_keep_their_order(valkey: Valkey) -> None:
    """A delivery that raises loses none of the messages of its round trip."""
    words = [f"w{n}" for n in range(10)]
    for word in words:
        valkey.client.lpush("test", with_body([[word], {}, {}]))
    delivered: list[str] = []

    def deliver(message: Any) -> None:
        delivered.append(message.payload[0][0])
        if len(delivered) == 3:
            raise SystemError("no loop")

    with Connection(
        valkey.url, transport="worker.celery_ext.redis_transport:Transport"
    ) as connection:
        channel = connection.channel()
        with Consumer(channel, [Queue("test")], on_message=deliver), pytest.raises(SystemError):
            connection.drain_events(timeout=5)
        assert (delivered, valkey.ready()) == (words[:3], 7)
        channel.close()

    bodies = [json.loads(item)["body"] for item in valkey.client.lrange("test", 0, -1)]
    assert [json.loads(base64.b64decode(body))[0][0] for body in reversed(bodies)] == words
