"""Poison messages, calls and rows end as dead letters, and affect no worker, no other call and no batch."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from callgate.adapters.broker.app import CALL_QUEUE, CALL_TASK, LOG_QUEUE, LOG_TASK, SWEEP_TASK
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import RecordAnswer, Reserved
from callgate.domain.provider import ProviderReply
from callgate.domain.requests import Usage
from callgate.domain.retry import WORKER_LOST
from devkit.simulator.simulator import Kind, Match, Rule, Step
from tests.support.command_line import answer_of
from tests.support.deployment import (
    Deployment,
    Process,
    until,
    until_equal,
)
from tests.support.ledger_under_test import a_loss, a_reserve
from tests.support.poisoned_worker import ARGV, POISON, UNCOUNTABLE
from tests.support.short_leases import SHORT_LEASE

pytestmark = pytest.mark.long
PATIENCE_S = 100.0
REPLY = ProviderReply(
    texts=("fine",),
    finish_reason="stop",
    refusal=None,
    usage=Usage(input_tokens=1, output_tokens=1),
    service_tier=None,
    model="sim-1",
    provider_request_id=None,
)
HUGE_USAGE = replace(REPLY, usage=Usage(input_tokens=2**40, output_tokens=1))
LINKS = "poison.links"
FRAGILE = """
# Its attempts are over, or lost, within seconds, and it may be tried often.
[call_types.fragile]
max_output_tokens_default = 50
deadline_s = 3
attempts_max = 9
worker_losses_max = 3
retry_wait_s = 0.1
retry_wait_max_s = 0.2
retry_after_max_s = 0.2
"""


def a_worker(deployment: Deployment, tmp_path: Path, **changes: str) -> Process:
    """The only worker, which kills itself over `POISON`."""
    deployment.stop_workers()
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(Path(deployment.environ["CALLGATE_CATALOGUE"]).read_text() + FRAGILE)
    changes = {"CALLGATE_CATALOGUE": str(catalogue), **SHORT_LEASE, **changes}
    return deployment.start("worker", ARGV, **changes).until_it_says("ready.")


def lose(deployment: Deployment, key: CallKey) -> None:
    """Claim a queued call and lose the attempt: the call is quarantined next."""
    with closing(PostgresSession(deployment.services.database_url)) as session:
        ledger = PostgresLedger(session)
        (reserved,) = ledger.reserve([a_reserve(key)])
        assert isinstance(reserved, Reserved)
        ledger.settle([a_loss(reserved.ref)])


def swept(deployment: Deployment) -> list[CallKey]:
    """The calls that a sweep finds."""
    with closing(PostgresSession(deployment.services.database_url)) as session:
        ledger = PostgresLedger(session)
        lost = ledger.take_lost_messages(limit=100, queued_before=ledger.take_due(limit=0).at)
    return [due.key for due in lost.items]


def children_of(worker: Process) -> list[int]:
    """The processes in which a worker runs quarantined calls."""
    return [
        int(pid) for pid in re.findall(r"quarantine.call_started .* pid=(\d+)", worker.output())
    ]


def callgate(deployment: Deployment, *words: str) -> Any:
    """What a command of the CLI answers."""
    return answer_of(deployment.open_client, *words)


def statuses(deployment: Deployment, org: str) -> list[list[str]]:
    """The attempts of each call of an organisation."""
    sql = (
        "SELECT array_agg(status ORDER BY attempt) FROM ai_call_log WHERE org_id = :org"
        " GROUP BY call_id"
    )
    return [row[0] for row in deployment.rows(sql, org=org)]


def test_a_call_that_kills_its_workers_dies_alone(deployment: Deployment, tmp_path: Path) -> None:
    """
    It kills a worker with other calls once. Then it runs alone in child processes, until it is a dead letter.

    The same holds for a call that kills before its claim, once two sweeps have found it.
    """
    first = a_worker(deployment, tmp_path)
    neighbours, bystanders = deployment.org(), deployment.org()
    deployment.provider.script(
        [
            Rule(match=Match(text="neighbour"), reply=[Step(kind=Kind.HANG)] * 6 + [Step(text="alive")]),
            Rule(match=Match(text="bystander"), reply=[Step(latency_s=8, text="unharmed")]),
        ]
    )  # fmt: skip

    def request(org: str, text: str, call_type: str = "fragile"):  # type: ignore[no-untyped-def]
        return deployment.request(org, text, call_type=call_type)

    innocent = deployment.client.submit_many(
        [request(neighbours, f"neighbour {n}") for n in range(6)]
    )
    until(lambda: deployment.provider.counts().in_flight == 6)
    poison = deployment.client.submit(request(deployment.org(), POISON))
    assert first.wait() == -signal.SIGKILL
    early = deployment.client.submit(request(deployment.org(), UNCOUNTABLE))
    assert [swept(deployment) for _ in range(2)] == [[early.key]] * 2

    second = a_worker(deployment, tmp_path)
    unharmed = deployment.client.submit_many(
        [request(bystanders, f"bystander {n}", "answer") for n in range(3)]
    )
    until(lambda: {poison.state, early.state} == {CallState.DEAD}, PATIENCE_S)

    assert [h.get(timeout=PATIENCE_S).text for h in innocent] == ["alive"] * 6
    assert [h.get(timeout=PATIENCE_S).text for h in unharmed] == ["unharmed"] * 3
    assert statuses(deployment, neighbours) == [["unknown", "succeeded"]] * 6
    assert statuses(deployment, bystanders) == [["succeeded"]] * 3
    assert second.is_alive()
    fingerprint = WORKER_LOST.fingerprint("sim")
    dead = callgate(deployment, "dead-letters", "list", "--fingerprint", fingerprint)["calls"]
    assert {call["task_id"] for call in dead} == {poison.task_id, early.task_id}
    for call in dead:
        facts = (call["error"]["code"], call["attempt"], call["worker_losses"])
        assert facts == ("worker_lost", 3, 3)


def test_a_drain_waits_for_a_quarantined_call(deployment: Deployment, tmp_path: Path) -> None:
    """SIGTERM to worker and child during the call: it is still answered and recorded."""
    deployment.stop_workers()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(latency_s=3, text="in time")])])
    quarantined = deployment.client.submit(deployment.request(org))
    lose(deployment, quarantined.key)
    worker = deployment.worker()
    until(lambda: deployment.provider.counts().in_flight == 1, PATIENCE_S)
    (child,) = children_of(worker)

    os.kill(child, signal.SIGTERM)
    worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    assert not Path(f"/proc/{child}").exists()
    lost, answered = deployment.attempts(org)
    assert lost.status == "unknown"
    assert answered.status in ("answered", "succeeded")
    deployment.worker()
    assert quarantined.get(timeout=PATIENCE_S).text == "in time"


def test_a_poisonous_row_loses_only_itself(deployment: Deployment) -> None:
    """A batch to settle with every kind of broken row: those are dead letters, all other calls and links are fine."""
    deployment.stop_workers()
    org = deployment.org()
    good = [answered(deployment, org, f"good {n}", REPLY) for n in range(4)]
    # Not plausible: the hold is posted, and no row breaks.
    good.append(answered(deployment, org, "tokens over int4", HUGE_USAGE))
    # The tier is not stored in a column.
    nul = replace(REPLY, service_tier="\x00")
    good.append(answered(deployment, org, "tier with NUL", nul))
    poisonous = {
        "attempt_unreadable": [
            answered(deployment, org, "no reply", b"{"),
            answered(deployment, org, "a deep reply", b"[" * 100_000),
            answered(deployment, org, "no error", None, error="{"),
            answered(deployment, org, "no request", REPLY, request=b"{"),
        ],
    }
    break_links(deployment, good)
    deployment.rows("UPDATE llm_call SET due_at = now() WHERE org_id = :org", org=org)
    worker = deployment.worker()

    until(lambda: deployment.open_calls() == 0, PATIENCE_S)

    assert {view.state for view in deployment.client.ledger.read(good) if view} == {
        CallState.SUCCEEDED
    }
    shown = callgate(deployment, "dead-letters", "list", "--org", org)["calls"]
    codes = {call["task_id"]: call["error"]["code"] for call in shown}
    assert codes == {key.task_id: code for code, keys in poisonous.items() for key in keys}
    no_request = poisonous["attempt_unreadable"][-1].task_id
    assert callgate(deployment, "dead-letters", "show", no_request)["request"] == "{"
    rows = deployment.attempts(org)
    assert all(row.posted_nano_usd is not None for row in rows)
    with Redis.from_url(deployment.services.broker_url) as valkey:
        until(lambda: valkey.llen(LINKS) == 1)
    undelivered = "SELECT count(*) FROM submission WHERE org_id = :org AND link IS NOT NULL"
    waiting = f"{undelivered} AND delivered_at IS NULL AND given_up_at IS NULL"
    until(lambda: deployment.rows(waiting, org=org)[0][0] == 0)
    assert worker.is_alive()


def test_messages_that_identify_no_call_are_dead_letters(deployment: Deployment) -> None:
    """On either queue: the worker survives, and `callgate dead list` shows each of them once."""
    worker = deployment.ensure_worker()
    known = len(deployment.client.operations.unprocessable_messages(limit=1000))
    unprocessable_messages = [
        (queue, message)
        for queue in (CALL_QUEUE, LOG_QUEUE)
        for message in (
            f"no JSON, for {queue}",
            envelope(f"undecodable {queue}", {"task": CALL_TASK, "id": "1"}),
            envelope(json.dumps([["unknown", queue], {}, {}]), {"task": "nobody", "id": "2"}),
            envelope(json.dumps({"protocol": 9, "queue": queue}), {"lang": "py"}),
            envelope(json.dumps([["no call", queue], {}, {}]), {"task": LOG_TASK, "id": "3"}),
            envelope(json.dumps([["no call", queue], {}, {}]), {"task": CALL_TASK, "id": "4"}),
            envelope(json.dumps([[queue], {}, {}]), {"task": SWEEP_TASK, "id": "5"}),
        )
    ]
    with Redis.from_url(deployment.services.broker_url) as valkey:
        for queue, message in unprocessable_messages:
            valkey.lpush(queue, message)

    until_equal(
        known + len(unprocessable_messages),
        lambda: len(deployment.client.operations.unprocessable_messages(limit=1000)),
        PATIENCE_S,
    )
    request = deployment.request(deployment.org())
    assert deployment.client.submit(request).get(timeout=PATIENCE_S).text == "ok"
    shown = callgate(deployment, "dead-letters", "list", "--limit", "1000")[
        "unprocessable_messages"
    ]
    assert len(shown) == known + len(unprocessable_messages)
    assert all(message["reason"] for message in shown)
    assert worker.is_alive()


def break_links(deployment: Deployment, keys: list[CallKey]) -> None:
    """Give three calls a link: no JSON, one that cannot be published, and a good one."""
    broken = '{"link": {"task": "x", "options": {"serializer": "nope"}}}'
    for key, link in zip(keys, ("{", broken, a_link(LINKS)), strict=False):
        sql = "UPDATE submission SET link = :link WHERE call_id = :id"
        deployment.rows(sql, link=link, id=key.call_id)


def answered(
    deployment: Deployment,
    org: str,
    text: str,
    reply: ProviderReply | bytes | None,
    *,
    error: str | None = None,
    request: bytes | None = None,
) -> CallKey:
    """A call whose worker was lost after the answer and before the settlement."""
    key = deployment.client.submit(deployment.request(org, text)).key
    body = reply.to_json() if isinstance(reply, ProviderReply) else reply
    with closing(PostgresSession(deployment.services.database_url)) as session:
        ledger = PostgresLedger(session)
        (reserved,) = ledger.reserve([a_reserve(key, 10_000)])
        assert isinstance(reserved, Reserved)
        ledger.record([RecordAnswer(reserved.ref, body, error, 1)])
    if request is not None:
        sql = "UPDATE llm_call SET request = :request WHERE call_id = :id"
        deployment.rows(sql, request=request, id=key.call_id)
    return key


def a_link(queue: str) -> str:
    """A good link, as the ledger stores it."""
    link = {"task": "note", "args": [], "kwargs": {}, "options": {"queue": queue}}
    return json.dumps({"link": {**link, "subtask_type": None, "immutable": False}})


def envelope(body: str, headers: dict[str, str]) -> str:
    """A message as kombu's Redis transport writes it."""
    delivery = {"exchange": "", "routing_key": CALL_QUEUE}
    return json.dumps(
        {
            "body": body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "delivery_mode": 2,
                "delivery_tag": str(uuid4()),
                "delivery_info": delivery,
                "body_encoding": None,
            },
        }
    )
