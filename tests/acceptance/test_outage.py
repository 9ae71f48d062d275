"""A provider outage with 500 queued calls: no call dies, and few requests are made and posted."""

from __future__ import annotations

from devkit.simulator.simulator import Kind, Rule, Step
from tests.support.deployment import Deployment, until, until_equal

CALLS = 500
ORGS = 3
TRIALS = 3
PROBE_TIMEOUT_S = 40.0
"""The first probe comes ten seconds after the third failure, the second one twenty seconds after that."""
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


def test_calls_survive_an_outage_of_their_provider(deployment: Deployment) -> None:
    """503 and reset connections in turn: only three attempts and a probe meet them, other calls wait without a hold."""
    # Nobody vouches for this provider: it has been away since before the first call.
    deployment.rows("DELETE FROM breaker")
    deployment.provider.script([Rule(reply=AWAY)])
    orgs = [deployment.org() for _ in range(ORGS)]
    handles = deployment.client.submit_many(
        [deployment.request(orgs[n % ORGS]) for n in range(CALLS)]
    )

    worker = deployment.worker()
    worker.until_it_says("breaker.opened")
    asked_when_told = deployment.provider.counts().total
    until_equal(CALLS, lambda: deployment.rows(WAITING)[0][0], PROBE_TIMEOUT_S)
    held = sum(budget.reserved_nano_usd for budget in deployment.client.operations.budgets())
    until(lambda: deployment.provider.counts().total > TRIALS, PROBE_TIMEOUT_S)
    asked_in_outage = deployment.provider.counts().total
    deployment.provider.script([])
    worker.until_it_says("breaker.closed", PROBE_TIMEOUT_S)
    ended = list(deployment.client.as_completed(handles, timeout=PROBE_TIMEOUT_S))

    assert (asked_when_told, held) == (TRIALS, 0)
    assert asked_in_outage == TRIALS + 1
    assert len(ended) == CALLS
    assert dict(map(tuple, deployment.rows(STATES))) == {"succeeded": CALLS}
    # Each posted its whole hold, and each was another call's only one.
    assert [tuple(row) for row in deployment.rows(UNKNOWN)] == [(TRIALS + 1,) * 3 + (1,)]
    assert deployment.provider.counts().total == TRIALS + 1 + CALLS
    assert worker.output().count("breaker.opened") == 1
