"""What a real worker's log says of calls: one line for an end, few lines for a thousand equal ones."""

from __future__ import annotations

import json
import signal
from typing import Any

from devkit.simulator.simulator import ErrorBody, Kind, Match, Rule, Step
from tests.support.deployment import Deployment, Process, until

CALLS = 1_000
PATIENCE_S = 120.0
ABOUT_CALLS = ("call.", "attempt.", "late_answer.")


def lines(worker: Process) -> list[dict[str, Any]]:
    """The lines of a JSON log about calls and attempts."""
    parsed = [json.loads(line) for line in worker.output().splitlines() if line.startswith("{")]
    return [line for line in parsed if str(line["event"]).startswith(ABOUT_CALLS)]


def refusing(status: int) -> Step:
    """A provider that refuses, and quotes what it was sent."""
    words = ErrorBody(message="You said: a secret question", code="sk-of-somebody")
    return Step(kind=Kind.STATUS, status=status, error=words)


def a_worker(deployment: Deployment, **changes: str) -> Process:
    """A worker with a JSON log."""
    # More at once would wait for the one core that the provider has, and fail in other ways.
    few = {"CALLGATE_WORKER__CONCURRENCY": "50", "CALLGATE_WORKER__LOG_JSON": "true"}
    return deployment.worker(**few, **changes)


def test_a_call_that_dies_of_a_401_leaves_one_line(deployment: Deployment) -> None:
    """It left none before. An operator must see what happened, to whom, and what to do."""
    worker = a_worker(deployment)
    deployment.provider.script([Rule(reply=[refusing(401)])])
    request = deployment.request(deployment.org(), trace_id="trace-7")
    handle = deployment.client.submit(request)
    list(deployment.client.as_completed([handle], timeout=60))
    until(lambda: lines(worker), PATIENCE_S, worker.output)
    worker.kill()

    (line,) = lines(worker)
    (attempt,) = deployment.attempts(request.org_id)
    assert (line["event"], line["level"], line["count"]) == ("call.died", "error", 1)
    assert (line["call_id"], line["attempt_id"]) == (
        str(handle.key.call_id),
        str(attempt.attempt_id),
    )
    assert (line["org_id"], line["trace_id"]) == (request.org_id, "trace-7")
    assert (line["call_type"], line["provider"], line["model"]) == ("answer", "sim", "sim-1")
    assert (line["reason"], line["status"], line["cost"]) == (
        "authentication_failed",
        401,
        "$0.000000",
    )
    assert "key" in line["todo"]
    assert "secret question" not in worker.output()
    assert "sk-of-somebody" not in worker.output()


def test_a_thousand_calls_that_die_alike_are_few_lines_and_all_counted(
    deployment: Deployment,
) -> None:
    worker = a_worker(deployment)
    deployment.provider.script([Rule(reply=[refusing(400)])])
    org = deployment.org()
    deployment.client.submit_many([deployment.request(org) for _ in range(CALLS)])
    dead = "SELECT count(*) FROM llm_call WHERE org_id = :org AND state = 'dead'"
    until(lambda: deployment.rows(dead, org=org)[0][0] == CALLS, PATIENCE_S, worker.output)
    worker.send(signal.SIGTERM)
    worker.wait()

    died = [line for line in lines(worker) if line["event"] == "call.died"]
    assert sum(line["count"] for line in died) == CALLS
    assert len(died) <= 2 + PATIENCE_S // 60


def test_a_thousand_calls_with_a_key_that_is_refused_are_few_lines(deployment: Deployment) -> None:
    """The breaker closes the key, so that most of them wait; the log names it once."""
    worker = a_worker(deployment)
    deployment.provider.script([Rule(reply=[refusing(401)])])
    org = deployment.org()
    handles = deployment.client.submit_many([deployment.request(org) for _ in range(CALLS)])
    waiting = "SELECT count(*) FROM llm_call WHERE org_id = :org AND state IN ('queued', 'running')"
    until(lambda: deployment.rows(waiting, org=org)[0][0] == 0, PATIENCE_S, worker.output)
    worker.kill()

    assert len(handles) == CALLS
    assert 1 <= len(lines(worker)) <= 4
    assert worker.output().count("breaker.opened") == 1
    deployment.end_open_calls()


def test_successes_have_a_line_unless_they_are_left_out(deployment: Deployment) -> None:
    org = deployment.org()
    for setting, expected in (("true", ["call.succeeded"]), ("false", [])):
        worker = a_worker(deployment, CALLGATE_WORKER__LOG_SUCCESSES=setting)
        deployment.client.submit(deployment.request(org)).get(timeout=60)
        deployment.provider.script([Rule(match=Match(text="refuse"), reply=[refusing(400)])])
        last = deployment.client.submit(deployment.request(org, f"refuse {setting}"))
        list(deployment.client.as_completed([last], timeout=60))
        until(lambda w=worker: "call.died" in w.output(), PATIENCE_S, worker.output)  # type: ignore[misc]
        worker.kill()

        assert [line["event"] for line in lines(worker)] == [*expected, "call.died"]
