"""A tenant whose calls fail on purpose opens its own circuit breaker only."""

from __future__ import annotations

from collections.abc import Callable

from devkit.simulator.simulator import Kind, Match, Rule, Step
from tests.support.deployment import Deployment, Process, until

FAILING = "poison"
OTHERS_TIMEOUT_S = 8.0
"""Shorter than a breaker's wait before its first probe."""
FLOOD = 60
FAILURES = {
    "a server error": Step(kind=Kind.STATUS, status=500),
    "a flagged input that a router refuses": Step(kind=Kind.STATUS, status=403),
    "an answer that takes longer than it may": Step(kind=Kind.HANG),
}
OPEN = "SELECT org_id FROM breaker WHERE is_open"
WAITING = "SELECT count(*) FROM llm_call WHERE org_id = :org AND wait_reason = 'provider'"


def test_a_tenant_whose_calls_fail_waits_alone(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """Its other calls wait for its own circuit breaker. Another organisation's calls are answered."""
    worker()
    evils = []
    for name, step in FAILURES.items():
        deployment.provider.script([Rule(match=Match(text=FAILING), reply=[step])])
        evils.append(fails(deployment))

        assert_others_succeed(deployment)

        assert {row[0] for row in deployment.rows(OPEN)} == set(evils), name
    deployment.end_open_calls()


def fails(deployment: Deployment) -> str:
    """Make an organisation with more failing calls than run at once. Return when some wait."""
    org = deployment.org()
    texts = [f"{FAILING} {org} {n}" for n in range(FLOOD)]
    deployment.client.submit_many([deployment.request(org, t, call_type="brief") for t in texts])
    until(lambda: deployment.rows(WAITING, org=org)[0][0] > 0)
    return org


def assert_others_succeed(deployment: Deployment, count: int = 20) -> None:
    """Assert that another organisation's calls succeed without delay."""
    org = deployment.org()
    handles = deployment.client.submit_many([deployment.request(org) for _ in range(count)])
    assert len(list(deployment.client.as_completed(handles, timeout=OTHERS_TIMEOUT_S))) == count
    assert {row.status for row in deployment.attempts(org)} == {"succeeded"}
