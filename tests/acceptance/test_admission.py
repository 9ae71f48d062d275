"""Budgets admit, refuse and delay calls: real worker processes, real servers, a simulated provider."""

from __future__ import annotations

import pytest

from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import CallState
from callgate.domain.errors import BudgetExhausted, BudgetTooSmall, CallRejected, WaitTimeout
from devkit.simulator.simulator import Rule, Step
from tests.support.deployment import Deployment, until

PATIENCE_S = 30.0


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
