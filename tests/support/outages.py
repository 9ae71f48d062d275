"""An outage of a provider that begins before the first call."""

from __future__ import annotations

from callgate.client import Handle
from devkit.simulator.simulator import Kind, Rule, Step
from tests.support.deployment import Deployment, Process, until_equal

ORGS = 3
TRIALS = 3
"""The attempts that meet an outage before the breaker opens."""
PATIENCE_S = 40.0
AWAY = [Step(kind=Kind.STATUS, status=503), Step(kind=Kind.RESET_BEFORE_HEADERS)]
STATES = "SELECT state, count(*) FROM llm_call GROUP BY state"
WAITING = (
    "SELECT count(*) FROM llm_call l WHERE state = 'waiting' AND wait_reason = 'provider'"
    " AND NOT EXISTS (SELECT 1 FROM ai_call_log a WHERE a.call_id = l.call_id AND a.posted_nano_usd IS NULL)"
)
UNKNOWN = (
    "SELECT count(*), count(DISTINCT call_id), sum((posted_nano_usd = hold_nano_usd)::int),"
    " sum((kind = 'probe')::int) FROM ai_call_log WHERE status = 'unknown'"
)


def all_wait(deployment: Deployment, count: int) -> tuple[list[Handle], Process]:
    """Have so many calls meet 503 and reset connections in turn: three ask, then all wait without a hold."""
    # Nobody vouches for this provider: it has been away since before the first call.
    deployment.rows("DELETE FROM breaker")
    deployment.provider.script([Rule(reply=AWAY)])
    orgs = [deployment.org() for _ in range(ORGS)]
    handles = deployment.client.submit_many(
        [deployment.request(orgs[n % ORGS]) for n in range(count)]
    )
    worker = deployment.worker()
    worker.until_it_says("breaker.opened")
    asked_when_told = deployment.provider.counts().total
    until_equal(count, lambda: deployment.rows(WAITING)[0][0], PATIENCE_S)
    held = sum(budget.reserved_nano_usd for budget in deployment.client.operations.budgets())
    assert (asked_when_told, held) == (TRIALS, 0)
    return handles, worker


def assert_all_succeeded(deployment: Deployment, count: int, *, probes: int) -> None:
    """Each attempt that met the outage posted its whole hold, and was its call's only one."""
    assert dict(map(tuple, deployment.rows(STATES))) == {"succeeded": count}
    met = TRIALS + probes
    assert [tuple(row) for row in deployment.rows(UNKNOWN)] == [(met, met, met, probes)]
    assert deployment.provider.counts().total == met + count
