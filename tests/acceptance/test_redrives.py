"""A redrive is stored: workers that are killed in the middle of it, and the command line that only watches."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from uuid import UUID

import pytest

from callgate.client import Handle
from callgate.domain.calls import CallKey, CallState
from callgate.domain.errors import CallFailed
from callgate.domain.redrives import RedriveOutcome, RedriveState, RedriveTerms
from callgate.domain.reports import By, CallFilter
from devkit.simulator.simulator import Kind, Rule, Step
from tests.support.deployment import Deployment, Process, until
from tests.support.short_leases import have_workers

pytestmark = pytest.mark.long
CALLS = 90
ANN = By("ann", "the provider is repaired")
TIMEOUT_S = 120.0


def die(deployment: Deployment, org: str, count: int) -> list[Handle]:
    """Calls that a broken provider makes dead letters."""
    deployment.provider.script([Rule(reply=[Step(kind=Kind.STATUS, status=400)])])
    requests = [deployment.request(org, f"{n} of {org}") for n in range(count)]
    handles = deployment.client.submit_many(requests)
    for handle in handles:
        with pytest.raises(CallFailed):
            handle.get(timeout=TIMEOUT_S)
    deployment.provider.script([Rule(reply=[Step()])])
    return handles


def generations(deployment: Deployment, org: str) -> Counter[int]:
    """How many calls there are of each generation."""
    rows = deployment.rows("SELECT generation FROM llm_call WHERE org_id = :org", org=org)
    return Counter(row.generation for row in rows)


def has_released(deployment: Deployment, org: str, calls: int) -> bool:
    """True once so many calls have their second generation."""
    return generations(deployment, org)[2] >= calls


def is_planned(deployment: Deployment, redrive_id: UUID) -> bool:
    """True once workers have priced it."""
    return deployment.client.redrives.get(redrive_id).state is RedriveState.PLANNED


def run_command(deployment: Deployment, *arguments: str) -> Process:
    """The command line as a process of its own."""
    return deployment.python("callgate", ["-m", "callgate", *arguments])


def test_killed_workers_release_nothing_twice_and_everything_once(deployment: Deployment) -> None:
    """Each worker is killed while it releases calls; the next one goes on where the ledger is."""
    org = deployment.org()
    have_workers(deployment, 1)
    die(deployment, org, CALLS)
    redrives = deployment.client.redrives
    seen = redrives.plan(CallFilter(org_id=org, state=CallState.DEAD), ANN)
    until(lambda: is_planned(deployment, seen.redrive_id), TIMEOUT_S)
    # Three a second, and fifteen at most after a pause: no worker that is killed has released all of them.
    redrives.start(seen.redrive_id, ANN, expected_calls=CALLS, terms=RedriveTerms(rate_per_min=180))

    for killed in range(1, 4):
        most = killed * CALLS // 5
        until(partial(has_released, deployment, org, most), TIMEOUT_S)
        deployment.stop_workers()
        assert generations(deployment, org)[2] < CALLS
        # A lease of a step that was under way would expire in a minute.
        deployment.rows("UPDATE redrive SET step_at = now() WHERE id = :id", id=seen.redrive_id)
        have_workers(deployment, 2)
    until(
        lambda: redrives.get(seen.redrive_id).state is RedriveState.DONE,
        TIMEOUT_S,
    )

    calls = redrives.calls_of(seen.redrive_id, limit=1_000)
    assert Counter(call.outcome for call in calls) == {RedriveOutcome.SUCCEEDED: CALLS}
    assert generations(deployment, org) == {1: CALLS, 2: CALLS}
    paid = deployment.rows(
        "SELECT call_id FROM ai_call_log WHERE org_id = :org AND status = 'succeeded'", org=org
    )
    assert Counter(row.call_id for row in paid).most_common(1)[0][1] == 1
    assert len(paid) == CALLS
    assert deployment.provider.counts().repeated == {}
    deployment.assert_audit_is_clean()


def test_the_command_line_follows_the_stored_redrive(deployment: Deployment) -> None:
    """Killing the command does not stop it; pausing it does; its outcome is the same wherever one looks."""
    org = deployment.org()
    have_workers(deployment, 1)
    handles = die(deployment, org, 6)
    command = ("dead-letters", "redrive", "--org", org, "--reason", "repaired", "--rate", "2")

    refused = run_command(deployment, *command, "--expect", "7")
    assert refused.wait(TIMEOUT_S) == 1
    assert "you expect 7, and 6 match" in refused.output()
    assert generations(deployment, org) == {1: 6}

    watching = run_command(deployment, *command, "--yes")
    until(partial(has_released, deployment, org, 1), TIMEOUT_S)
    watching.kill()
    (running, aborted) = deployment.client.redrives.newest(limit=2)
    assert aborted.state is RedriveState.ABORTED
    redrive_id = str(running.redrive_id)
    paused = run_command(deployment, "redrives", "pause", redrive_id, "--reason", "lunch")
    assert paused.wait(TIMEOUT_S) == 0
    resumed = run_command(
        deployment, "redrives", "resume", redrive_id, "--reason", "go", "--rate", "6000"
    )
    assert resumed.wait(TIMEOUT_S) == 0
    for handle in handles:
        again = deployment.client.handle(CallKey(handle.key.call_id, 2).task_id)
        until(partial(exists, deployment, again), TIMEOUT_S)
        assert again.get(timeout=TIMEOUT_S).text

    until(
        lambda: deployment.client.redrives.get(running.redrive_id).ended_at is not None, TIMEOUT_S
    )
    shown = run_command(deployment, "redrives", "show", redrive_id, "--json")
    assert shown.wait(TIMEOUT_S) == 0
    fields = json.loads(shown.output())
    assert (fields["state"], fields["counts"]["succeeded"]) == ("done", 6)
    assert {call["outcome"] for call in fields["calls"]} == {"succeeded"}
    logged = deployment.client.operations.actions(limit=6)
    actions = [action.action.removeprefix("redrive.") for action in logged]
    assert actions == ["resume", "pause", "start", "plan", "abort", "plan"]


def exists(deployment: Deployment, handle: Handle) -> bool:
    """True once there is such a call."""
    return next(iter(deployment.client.ledger.read([handle.key]))) is not None
