"""A worker answers, retries, recovers and stops: real worker processes, real servers, a simulated provider."""

from __future__ import annotations

import json
import signal
from decimal import Decimal
from uuid import UUID

import pytest
from pydantic import BaseModel

from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.errors import (
    CallFailed,
)
from devkit.simulator.simulator import Kind, ReportedUsage, Rule, Step
from tests.support.command_line import answer_of
from tests.support.deployment import Deployment, until

PATIENCE_S = 30.0


class Invoice(BaseModel):
    """What a pipeline wants out of a document."""

    number: str
    total: int


def test_a_call_is_answered_and_logged(deployment: Deployment) -> None:
    """The result carries usage, cost and latency, and they are those of the one row in `ai_call_log`."""
    deployment.ensure_worker()
    org = deployment.org()
    usage = ReportedUsage(prompt_tokens=11, completion_tokens=7, cached_tokens=3)
    deployment.provider.script([Rule(reply=[Step(text="42", usage=usage, latency_s=0.05)])])

    result = deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S)

    (row,) = deployment.attempts(org)
    assert (result.text, result.attempts, result.finish_reason) == ("42", 1, "stop")
    assert result.usage is not None
    assert (result.usage.input_tokens, result.usage.output_tokens) == (11, 7)
    assert result.cost_usd == Decimal(11 + 2 * 7) / 1_000_000 == row.cost_usd
    assert row.posted_nano_usd == result.cost_usd * NANO_PER_USD <= row.hold_nano_usd
    assert row.status == "succeeded"
    assert (row.input_tokens, row.cached_input_tokens, row.output_tokens) == (11, 3, 7)
    assert 50 <= row.latency_ms == result.latency_ms
    assert row.provider_request_id == result.provider_request_id
    assert row.price_source.startswith("overlay 2026-11-01")
    (request,) = deployment.provider.requests().records
    assert UUID(request.attempt_id or "") == row.attempt_id


def test_a_pydantic_model_comes_back_as_its_instance(deployment: Deployment) -> None:
    """A response schema is sent, the answer is checked against it and parsed."""
    deployment.ensure_worker()
    text = '{"number": "A-1", "total": 12}'
    deployment.provider.script([Rule(reply=[Step(text=text)])])
    request = deployment.request(deployment.org(), response_schema=Invoice)

    result = deployment.client.submit(request).get(timeout=PATIENCE_S)

    assert result.parsed == Invoice(number="A-1", total=12)


def test_many_calls_are_in_flight_at_once(deployment: Deployment) -> None:
    """One worker process waits for many answers at the same time."""
    deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(latency_s=3)])])

    handles = deployment.client.submit_many([deployment.request(org) for _ in range(60)])
    done = list(deployment.client.as_completed(handles, timeout=PATIENCE_S))

    assert {h.task_id for h in done} == {h.task_id for h in handles}
    assert deployment.provider.counts().in_flight_max >= 40


def test_a_failure_that_passes_is_retried(deployment: Deployment) -> None:
    """A 429 and a 5xx are tried again; each attempt has its row, and only the last is paid for its usage."""
    deployment.ensure_worker()
    org = deployment.org()
    faults = [Step(kind=Kind.STATUS, status=429, retry_after_s=1), Step(kind=Kind.STATUS)]
    deployment.provider.script([Rule(reply=[*faults, Step(text="third")])])

    result = deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S)

    limited, broken, answered = deployment.attempts(org)
    assert (result.text, result.attempts) == ("third", 3)
    assert [limited.status, broken.status, answered.status] == ["failed", "unknown", "succeeded"]
    assert limited.posted_nano_usd == 0
    assert broken.posted_nano_usd == broken.hold_nano_usd
    assert (broken.started_at - limited.finished_at).total_seconds() >= 0.9


def test_a_killed_worker_costs_an_attempt_and_no_call(deployment: Deployment) -> None:
    """Killed in mid call, the attempt becomes unknown at its whole hold; the call is tried again and succeeds."""
    worker = deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(kind=Kind.HANG), Step(text="after all")])])
    handle = deployment.client.submit(deployment.request(org, call_type="brief"))
    until(lambda: deployment.provider.counts().in_flight == 1)

    worker.kill()
    deployment.worker()

    assert handle.get(timeout=PATIENCE_S).text == "after all"
    lost, answered = deployment.attempts(org)
    assert (lost.status, answered.status) == ("unknown", "succeeded")
    assert lost.posted_nano_usd == lost.hold_nano_usd
    assert json.loads(lost.error_json)["code"] == "worker_lost"
    assert deployment.client.operations.snapshot().unknown_attempts >= 1


def test_a_wiped_broker_loses_no_call(deployment: Deployment) -> None:
    """Calls whose messages are gone are found by the sweep, each sent to the provider once."""
    deployment.stop_workers()
    org = deployment.org()
    handles = deployment.client.submit_many([deployment.request(org) for _ in range(20)])

    deployment.wipe_broker()
    deployment.ensure_worker()

    assert len(list(deployment.client.as_completed(handles, timeout=PATIENCE_S))) == 20
    assert deployment.provider.counts().total == 20


def test_a_stopping_worker_finishes_what_is_in_flight(deployment: Deployment) -> None:
    """SIGTERM: no intake, what runs is answered and recorded, exit code 0, and no attempt is lost."""
    worker = deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(latency_s=1.5)])])
    handles = deployment.client.submit_many([deployment.request(org) for _ in range(5)])
    until(lambda: deployment.provider.counts().in_flight == 5)

    worker.send(signal.SIGTERM)
    late = deployment.client.submit(deployment.request(org))
    code = worker.wait()

    assert code == 0
    assert [row.status for row in deployment.attempts(org)].count("unknown") == 0
    deployment.worker()
    assert {h.get(timeout=PATIENCE_S).attempts for h in [*handles, late]} == {1}
    assert deployment.provider.counts().total == 6


def test_a_hanging_provider_meets_the_deadline(deployment: Deployment) -> None:
    """An attempt ends at its deadline, unknown at its whole hold; the call dies when its attempts are used up."""
    deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(kind=Kind.HANG)])])

    with pytest.raises(CallFailed) as failure:
        deployment.client.submit(deployment.request(org, call_type="brief")).get(timeout=PATIENCE_S)

    rows = deployment.attempts(org)
    assert (failure.value.failure_code, failure.value.attempts) == ("timeout", 2)
    assert [row.status for row in rows] == ["unknown", "unknown"]
    assert all(row.posted_nano_usd == row.hold_nano_usd for row in rows)
    assert all(1_500 <= row.latency_ms < 3_000 for row in rows)


def test_a_garbled_reply_is_paid_and_retried(deployment: Deployment) -> None:
    """A 200 that cannot be read may have been billed: unknown, and tried again."""
    deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(kind=Kind.NOT_JSON), Step(text="clear")])])

    assert deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S).text == "clear"

    garbled, _ = deployment.attempts(org)
    assert (garbled.status, garbled.posted_nano_usd) == ("unknown", garbled.hold_nano_usd)


def test_an_answer_that_breaks_its_schema_is_retried_then_dead(deployment: Deployment) -> None:
    """Each such answer is paid by its usage; after the last attempt the call is dead and says so."""
    deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script([Rule(reply=[Step(text='{"number": "A-1"}')])])
    request = deployment.request(org, call_type="brief", response_schema=Invoice)

    with pytest.raises(CallFailed) as failure:
        deployment.client.submit(request).get(timeout=PATIENCE_S)

    rows = deployment.attempts(org)
    assert (failure.value.failure_code, failure.value.attempts) == ("invalid_output", 2)
    assert [row.status for row in rows] == ["failed", "failed"]
    assert all(0 < row.posted_nano_usd < row.hold_nano_usd for row in rows)


def test_a_provider_is_checked_by_an_ordinary_call(deployment: Deployment) -> None:
    """The one request that left has a row, and its organisation paid."""
    deployment.ensure_worker()
    org = deployment.org()
    before = deployment.provider.counts().total
    words = ("providers", "check", "sim", "--organisation", org, "--model", "sim-1")

    found = answer_of(deployment.open_client, *words)

    (row,) = deployment.attempts(org)
    assert (found["outcome"], found["attempts"]) == ("succeeded", 1)
    assert Decimal(found["cost_usd"]) == row.cost_usd > 0
    assert found["latency_ms"] == row.latency_ms
    assert deployment.provider.counts().total - before == 1
    deployment.assert_audit_is_clean()
