"""`CeleryQueue` on a real broker: the messages of calls, and the time that an unavailable broker costs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from redis import Redis
from redis.exceptions import RedisError

from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.queue import CeleryQueue
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.errors import BrokerUnavailable
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from tests.support.links import KEY, messages


def test_a_call_message_holds_ids_only(queue: CeleryQueue, valkey: Redis) -> None:
    """The task id names the generation; arguments are the call and nothing more."""
    queue.publish_calls([KEY])

    (message,) = messages(valkey, "callgate.call")
    assert message["body"][0] == [str(KEY.call_id), 2]
    assert message["headers"]["task"] == "callgate.call"
    assert message["headers"]["id"] == KEY.task_id == f"{KEY.call_id}.2"
    assert message["headers"]["ignore_result"] is True


def test_a_log_task_is_the_child_of_its_call(queue: CeleryQueue, valkey: Redis) -> None:
    """Tools for Celery show the log task below its call."""
    ref = AttemptRef(KEY, uuid4())

    queue.publish_settle_tasks([ref])

    (message,) = messages(valkey, "callgate.log")
    assert message["body"][0] == [str(KEY.call_id), 2, str(ref.attempt_id)]
    assert message["headers"]["parent_id"] == message["headers"]["root_id"] == KEY.task_id


def test_a_sweep_goes_behind_the_calls(queue: CeleryQueue, valkey: Redis) -> None:
    """It crosses the call queue: what it overtakes would be published for nothing."""
    queue.publish_calls([KEY])
    queue.publish_sweep(datetime.now(UTC))

    tasks = [message["headers"]["task"] for message in messages(valkey, "callgate.call")]
    assert tasks == ["callgate.call", "callgate.sweep"]


def test_a_thousand_calls_are_few_round_trips(queue: CeleryQueue, valkey: Redis) -> None:
    """Messages go out in pipelines, in order."""
    keys = [CallKey(uuid4(), 1) for _ in range(1_200)]
    queue.publish_calls(keys[:1])
    before = int(valkey.info("stats")["total_reads_processed"])  # type: ignore[index]

    queue.publish_calls(keys[1:])

    reads = int(valkey.info("stats")["total_reads_processed"]) - before  # type: ignore[index]
    assert reads < 600
    ids = [message["headers"]["id"] for message in messages(valkey, "callgate.call")]
    assert ids == [key.task_id for key in keys]


def test_an_absent_broker_is_an_error_within_its_timeout() -> None:
    """Nothing listens on the port."""
    app = build_app(f"redis://127.0.0.1:{free_port()}/0", timeout_s=1)
    began = time.monotonic()

    with pytest.raises(BrokerUnavailable):
        CeleryQueue(app, timeout_s=1).publish_calls([KEY])

    assert time.monotonic() - began < 8
    app.close()


def test_a_suspended_broker_is_an_error_within_its_timeout(
    services: DevServers, queue: CeleryQueue
) -> None:
    """It keeps the connection and answers nothing. Later publishing works again."""
    queue.publish_calls([KEY])
    services.valkey.suspend()
    try:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            queue.publish_calls([KEY])
        assert time.monotonic() - began < 20
    finally:
        services.valkey.resume()

    queue.publish_calls([KEY])


def test_the_embedded_broker_refuses_strings_over_a_megabyte(valkey: Redis) -> None:
    valkey.lpush("long", "x" * 2**20)
    with pytest.raises(RedisError):
        valkey.lpush("long", "x" * (2**20 + 1))
    # The server closes the connection after its error.
    valkey.connection_pool.disconnect()
    assert valkey.llen("long") == 1
