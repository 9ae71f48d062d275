"""Forged headers of messages and inspections, by a user of the broker."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from kombu import Consumer, Exchange, Queue
from redis import Redis

from callgate.adapters.broker.app import CALL_QUEUE, LOG_QUEUE
from tests.support.deployment import Deployment, Process, until

PATIENCE_S = 30.0
WORD = f"canary-{uuid4().hex}"
PIDBOX, REPLIES = "/0.celery.pidbox", "reply.celery.pidbox"


@pytest.fixture(scope="module")
def victim(standing: Deployment) -> Process:
    """A worker that survives this file."""
    return standing.worker(CALLGATE_WORKER__SWEEP_INTERVAL_S="3600")


@pytest.fixture
def broker(deployment: Deployment, victim: Process) -> Iterator[Redis]:
    """The attacker's connection."""
    with Redis.from_url(deployment.services.broker_url, decode_responses=True) as valkey:
        yield valkey
    assert victim.is_alive()


def message(body: object, headers: dict[str, Any], **properties: Any) -> str:
    """A message in the form of kombu."""
    told = {"delivery_tag": str(uuid4()), "body_encoding": "base64", **properties}
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {"delivery_info": {}, **told},
        }
    )


HEADERS: dict[str, Any] = {
    **dict.fromkeys(("shadow", "argsrepr", "kwargsrepr", "origin", "root_id", "parent_id"), WORD),
    **dict.fromkeys(
        ("group", "group_index", "lang", "meth", "ticket", "replaced_task_nesting"), WORD
    ),
    "id": WORD,
    "retries": 10**9,
    "ignore_result": False,
    "stamped_headers": [WORD],
    "stamps": {WORD: WORD},
    "timelimit": [0.001, 0.001],
    "clock": 10**4_300 - 1,
    WORD: WORD,
}
PROPERTIES: dict[str, Any] = {
    "reply_to": WORD,
    "correlation_id": WORD,
    "priority": 255,
    WORD: WORD,
    "delivery_info": {"exchange": WORD, "routing_key": WORD, "redelivered": True},
}


def test_no_header_of_a_message_is_shown(
    deployment: Deployment, broker: Redis, victim: Process
) -> None:
    """Neither in an event nor in a log line; only the ids of its arguments."""
    app, heard = deployment.client.celery_app, list[str]()
    call_id, attempt_id, sent_at = str(uuid4()), str(uuid4()), datetime.now(UTC).isoformat()
    with app.connection_for_read() as connection:
        queue = Queue(f"celeryev.{uuid4()}", Exchange("celeryev", type="fanout"), "#")
        with Consumer(
            connection, [queue], callbacks=[lambda body, _: heard.append(json.dumps(body))]
        ):
            for task, where, arguments in (
                ("callgate.call", CALL_QUEUE, [call_id, 1]),
                ("callgate.log_call", LOG_QUEUE, [call_id, 1, attempt_id]),
                ("callgate.log_call", LOG_QUEUE, [WORD, WORD, WORD]),
                ("callgate.sweep", CALL_QUEUE, [sent_at]),
            ):
                headers = {**HEADERS, "task": task}
                broker.lpush(where, message([arguments, {}, {}], headers, **PROPERTIES))

            def is_over() -> bool:
                connection.drain_events(timeout=PATIENCE_S)
                told = [e for batch in map(json.loads, heard) for e in _events(batch)]
                ended = {e["uuid"] for e in told if e["type"] in ("task-succeeded", "task-failed")}
                return {f"{call_id}.1", attempt_id} <= ended

            until(is_over, PATIENCE_S)

    assert not any(WORD in said for said in heard)
    assert WORD not in victim.output()
    told = {e["uuid"]: e for batch in map(json.loads, heard) for e in _events(batch) if "name" in e}
    log_task = told[attempt_id]
    assert (log_task["name"], log_task["parent_id"]) == ("callgate.log_call", f"{call_id}.1")
    assert told[f"{call_id}.1"]["args"] == repr((call_id, 1))


def _events(batch: Any) -> list[dict[str, Any]]:
    events = batch if isinstance(batch, list) else [batch]
    return [event for event in events if event["type"].startswith("task-")]


@pytest.mark.parametrize("clock", [10**4_300 - 1, 10**300, 2**63, -1, 1e308, "9", [1], {}, True])
def test_a_forged_clock_does_not_silence_a_worker(
    deployment: Deployment, broker: Redis, clock: Any
) -> None:
    """The worker could not write such a time: it would send no reply and no event until it restarts."""
    asked: dict[str, Any] = {"method": "enable_events", "arguments": {}, "destination": None}
    text = message(asked, {"clock": "@"}).replace('"@"', json.dumps(clock))

    assert broker.publish(PIDBOX, text) == 1

    (answer,) = deployment.client.celery_app.control.ping(timeout=5, limit=1)
    assert list(answer.values()) == [{"ok": "pong"}]
    assert deployment.client.celery_app.control.inspect(timeout=5, limit=1).clock()


def test_a_reply_goes_only_to_a_reply_queue(deployment: Deployment, broker: Redis) -> None:
    """Not to a key that the inspection names or that is bound to the reply exchange; and it expires."""
    oid, ticket = str(uuid4()), str(uuid4())
    broker.sadd(f"_kombu.binding.{REPLIES}", "\x06\x16".join([oid, "", "planted"]))
    for exchange, key in (("", "planted"), (REPLIES, "planted"), ("callgate", CALL_QUEUE)):
        where = {"exchange": exchange, "routing_key": key}
        asked: dict[str, Any] = {
            "method": "ping",
            "arguments": {},
            "ticket": ticket,
            "reply_to": where,
        }
        broker.publish(PIDBOX, message(asked, {}))
    where = {"exchange": REPLIES, "routing_key": oid}
    asked = {"method": "ping", "arguments": {}, "ticket": ticket, "reply_to": where}
    broker.publish(PIDBOX, message(asked, {}))

    until(lambda: broker.llen(f"{oid}.{REPLIES}") == 1)
    until(lambda: 0 < int(broker.ttl(f"{oid}.{REPLIES}")) <= 10)
    assert not broker.exists("planted")
    broker.srem(f"_kombu.binding.{REPLIES}", "\x06\x16".join([oid, "", "planted"]))


BROADCASTS: list[Any] = [
    *(None, 7, "ping", [], [{"method": "ping"}], {"method": 7}, {"method": "ping", "reply_to": 7}),
    {"method": "ping", "pattern": "(([a-z@.]*)*)*$#", "matcher": "pcre"},
    {"method": "ping", "destination": {"a": 1}, "arguments": [1]},
]


@pytest.mark.parametrize("asked", BROADCASTS, ids=range(len(BROADCASTS)))
def test_a_malformed_broadcast_is_ignored(
    deployment: Deployment, broker: Redis, asked: Any
) -> None:
    """Also a regular expression that would run for ages: calls and inspections go on."""
    broker.publish(PIDBOX, message(asked, {}))
    handle = deployment.client.submit(deployment.request(deployment.org()))

    assert handle.get(timeout=PATIENCE_S).text == "ok"
    assert deployment.client.celery_app.control.ping(timeout=5, limit=1)
