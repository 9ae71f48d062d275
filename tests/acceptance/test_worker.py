"""A pipeline gets what the README promises: real worker processes, real servers, a simulated provider."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from callgate.client import Handle
from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import CallState
from callgate.domain.errors import (
    BudgetExhausted,
    BudgetTooSmall,
    CallFailed,
    CallRejected,
    WaitTimeout,
)
from devkit.simulator.simulator import Kind, Match, ReportedUsage, Rule, Step
from tests.support.deployment import Deployment, lines_of, until, until_equal
from tests.support.pipeline import FILE, build_app

PATIENCE_S = 30.0

SUBMIT_THE_SAME = """
import sys
from callgate import Client, LLMRequest, Message

with Client.from_env() as client:
    request = LLMRequest.model_validate_json(sys.argv[1])
    handles = [client.submit(request) for _ in range(int(sys.argv[2]))]
    for handle in handles:
        print(handle.get(timeout=60).model_dump_json())
"""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline whose own worker runs the tasks that links name."""

    store: Any
    complain: Any
    _file: Path

    def told(self) -> list[dict[str, str]]:
        """What its tasks were told so far."""
        return [json.loads(line) for line in lines_of(self._file)]


@pytest.fixture
def pipeline(deployment: Deployment, tmp_path: Path) -> Iterator[Pipeline]:
    """A running pipeline."""
    file = tmp_path / "told.jsonl"
    argv = [sys.executable, "-m", "tests.support.pipeline"]
    process = deployment.start("pipeline", argv, **{FILE: str(file)}).until_it_says("ready.")
    tasks = build_app(deployment.environ["CALLGATE_BROKER_URL"]).tasks
    yield Pipeline(tasks["pipeline.store"], tasks["pipeline.complain"], file)
    process.kill()


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


def test_fifty_duplicates_are_one_provider_request(deployment: Deployment) -> None:
    """Identical submissions of threads and processes become one call, and all get its result."""
    deployment.ensure_worker()
    org = deployment.org()
    request = deployment.request(org)
    deployment.provider.script([Rule(reply=[Step(text="one", latency_s=1.5)])])
    arguments = [request.model_dump_json(), "10"]
    handles: list[Handle] = []
    threads = [
        threading.Thread(
            target=lambda: handles.extend(deployment.client.submit(request) for _ in range(10))
        )
        for _ in range(3)
    ]

    processes = [
        deployment.start(f"submitter-{n}", [sys.executable, "-c", SUBMIT_THE_SAME, *arguments])
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    answers = [handle.get(timeout=PATIENCE_S).text for handle in handles]
    codes = [process.wait() for process in processes]
    answers += [json.loads(line)["text"] for p in processes for line in p.output().splitlines()]

    assert codes == [0, 0]
    assert answers == ["one"] * 50
    assert deployment.provider.counts().total == 1
    assert len(deployment.attempts(org)) == 1
    (line,) = deployment.client.operations.costs(org)
    assert (line.calls, line.attempts, line.collapsed) == (1, 1, 49)
    assert line.saved_nano_usd == 49 * line.spent_nano_usd


def test_every_submitter_is_told(deployment: Deployment, pipeline: Pipeline) -> None:
    """A link fires for the first submitter, for a duplicate and for a replay, each in the pipeline's own queue."""
    deployment.ensure_worker()
    request = deployment.request(deployment.org())
    deployment.provider.script([Rule(reply=[Step(latency_s=0.5)])])

    first = deployment.client.submit(request, link=pipeline.store.s("first"))
    joined = deployment.client.submit(request, link=pipeline.store.s("joined"))
    first.get(timeout=PATIENCE_S)
    replayed = deployment.client.submit(request, link=pipeline.store.s("replayed"))

    until(lambda: len(pipeline.told()) >= 3, PATIENCE_S)
    assert (first.collapsed, joined.collapsed, replayed.collapsed) == (False, True, True)
    assert {line["document_id"] for line in pipeline.told()} == {"first", "joined", "replayed"}
    assert {(line["task_id"], line["state"]) for line in pipeline.told()} == {
        (first.task_id, "succeeded")
    }
    submissions = {str(row[0]) for row in deployment.rows("SELECT submission_id FROM submission")}
    assert {line["id"] for line in pipeline.told()} <= submissions
    assert deployment.provider.counts().total == 1


def test_a_dead_letter_is_redriven_and_tells_the_original_link(
    deployment: Deployment, pipeline: Pipeline
) -> None:
    """Retries, then dead with its reason; redriven, it succeeds, and who asked first hears of both ends."""
    deployment.ensure_worker()
    request = deployment.request(deployment.org(), call_type="brief")
    deployment.provider.script([Rule(reply=[Step(kind=Kind.STATUS, status=429)])])

    handle = deployment.client.submit(
        request, link=pipeline.store.s("doc"), link_error=pipeline.complain.s("doc")
    )
    with pytest.raises(CallFailed) as failure:
        handle.get(timeout=PATIENCE_S)

    assert (failure.value.failure_code, failure.value.attempts) == ("rate_limited", 2)
    assert deployment.provider.counts().total == 2
    until_equal([("complain", "dead")], lambda: [(t["task"], t["state"]) for t in pipeline.told()])
    (reason,) = deployment.rows(
        "SELECT reason FROM dead_letter WHERE call_id = :id", id=handle.key.call_id
    )
    assert "rate_limited" in str(reason)

    deployment.provider.script([Rule(reply=[Step(text="at last")])])
    (submitted,), refused = deployment.client.redrive([handle.key])

    again = deployment.client.handle(submitted.key.task_id)
    assert not refused
    assert again.get(timeout=PATIENCE_S).text == "at last"
    assert (again.key.call_id, again.key.generation) == (handle.key.call_id, 2)
    until(lambda: "succeeded" in {t["state"] for t in pipeline.told()})
    assert {(t["task"], t["document_id"]) for t in pipeline.told()} == {
        ("complain", "doc"),
        ("store", "doc"),
    }


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


def test_an_exact_fit_is_admitted(deployment: Deployment) -> None:
    """A call whose hold is all that is left runs."""
    deployment.ensure_worker()
    org = deployment.org(0)
    request = deployment.request(org)
    deployment.limit(org, deployment.hold_of(request))

    assert deployment.client.submit(request).get(timeout=PATIENCE_S).text == "ok"


def test_one_nano_more_is_refused(deployment: Deployment) -> None:
    """A hold one nano-USD over what is left is refused, with the figures, before anything is sent."""
    deployment.ensure_worker()
    org = deployment.org()
    spent = deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S).cost_usd
    request = deployment.request(org)
    hold = deployment.hold_of(request)
    limit = hold + int(spent * NANO_PER_USD) - 1
    deployment.limit(org, limit)

    with pytest.raises(BudgetExhausted) as refused:
        deployment.client.submit(request).get(timeout=PATIENCE_S)

    figures = refused.value.refusal
    assert (figures.org_id, figures.scope) == (org, "org")
    assert (figures.requested_nano_usd, figures.limit_nano_usd) == (hold, limit)
    assert deployment.provider.counts().total == 1

    deployment.limit(org, limit + 1)
    assert deployment.client.submit(request).get(timeout=PATIENCE_S).text == "ok"


def test_what_never_fits_is_refused_even_when_it_would_wait(deployment: Deployment) -> None:
    """Waiting for the next period does not help a call that is dearer than a whole one."""
    deployment.ensure_worker()
    org = deployment.org(1)

    with pytest.raises(BudgetTooSmall):
        deployment.client.submit(deployment.request(org, on_budget="wait")).get(timeout=PATIENCE_S)


def test_a_call_may_wait_for_the_next_period(deployment: Deployment) -> None:
    """With `on_budget="wait"` an exhausted budget keeps the call for when its period ends; it can be cancelled."""
    deployment.ensure_worker()
    org = deployment.org()
    spent = deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S).cost_usd
    request = deployment.request(org, on_budget="wait")
    deployment.limit(org, deployment.hold_of(request) + int(spent * NANO_PER_USD) - 1)

    handle = deployment.client.submit(request)

    until(lambda: handle.state is CallState.WAITING)
    due = "SELECT due_at FROM llm_call WHERE call_id = :id"
    ends = "SELECT ends_at FROM budget WHERE org_id = :org"
    assert deployment.rows(due, id=handle.key.call_id) == deployment.rows(ends, org=org)
    with pytest.raises(WaitTimeout):
        handle.get(timeout=0.1)

    # Tomorrow: the period is over, and so is the wait.
    deployment.rows(
        "UPDATE budget SET starts_at = starts_at - interval '1 day', ends_at = ends_at - interval '1 day'"
        " WHERE org_id = :org",
        org=org,
    )
    deployment.rows("UPDATE llm_call SET due_at = now() WHERE call_id = :id", id=handle.key.call_id)
    assert handle.get(timeout=PATIENCE_S).text == "ok"


def test_a_waiting_call_can_be_cancelled(deployment: Deployment) -> None:
    """A call that waits is rejected by `cancel`, and submitted again it is a new one."""
    deployment.stop_workers()
    request = deployment.request(deployment.org())
    handle = deployment.client.submit(request)

    assert deployment.client.cancel(handle.task_id, "not needed")
    assert not deployment.client.cancel(handle.task_id, "not needed")

    with pytest.raises(CallRejected, match="cancelled: not needed"):
        handle.get(timeout=PATIENCE_S)
    deployment.ensure_worker()
    again = deployment.client.submit(request)
    assert again.key.generation == 2
    assert again.get(timeout=PATIENCE_S).text == "ok"


def test_a_held_up_call_waits_for_its_neighbour(deployment: Deployment) -> None:
    """While another call holds the room the second waits, and runs once it is free; no budget is overrun."""
    deployment.ensure_worker()
    org = deployment.org(0)
    requests = [deployment.request(org) for _ in range(3)]
    deployment.limit(org, max(map(deployment.hold_of, requests)) * 3 // 2)
    deployment.provider.script([Rule(reply=[Step(latency_s=0.3)])])

    handles = deployment.client.submit_many(requests)
    done = list(deployment.client.as_completed(handles, timeout=PATIENCE_S))

    assert len(done) == 3
    assert deployment.provider.counts().in_flight_max == 1


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


def test_a_call_is_a_celery_result_too(deployment: Deployment) -> None:
    """`async_result` is Celery's own, and reads the ledger: states, result and typed error."""
    deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script(
        [Rule(match=Match(text="bad"), reply=[Step(kind=Kind.STATUS, status=400)])]
    )

    good = deployment.client.submit(deployment.request(org)).async_result
    bad = deployment.client.submit(deployment.request(org, "bad")).async_result

    assert good.get(timeout=PATIENCE_S).text == "ok"
    assert (good.state, good.successful()) == ("SUCCESS", True)
    with pytest.raises(CallFailed):
        bad.get(timeout=PATIENCE_S)
    assert bad.state == "FAILURE"


def test_a_pipeline_may_be_asynchronous(deployment: Deployment) -> None:
    """Submitting and waiting have twins that leave the event loop free."""
    deployment.ensure_worker()
    org = deployment.org()
    client = deployment.client

    async def run() -> tuple[str, set[str]]:
        handle = await client.asubmit(deployment.request(org))
        handles = await client.asubmit_many([deployment.request(org) for _ in range(5)])
        done = {h.task_id async for h in client.aas_completed(handles, timeout=PATIENCE_S)}
        assert done == {h.task_id for h in handles}
        return (await handle).text, done

    text, done = asyncio.run(asyncio.wait_for(run(), PATIENCE_S))

    assert (text, len(done)) == ("ok", 5)


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
    deployment.provider.script([Rule(reply=[Step(kind=Kind.GARBAGE), Step(text="clear")])])

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
