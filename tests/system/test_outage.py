"""A provider outage with 500 queued calls, until after the first probe: no call dies, and few requests are posted."""

from __future__ import annotations

from tests.support.deployment import Deployment, until
from tests.support.outages import PATIENCE_S, TRIALS, all_wait, assert_all_succeeded

CALLS = 500


def test_calls_survive_an_outage_that_a_probe_meets(deployment: Deployment) -> None:
    """Three attempts and a probe meet it. The first probe comes after ten seconds, the second after twenty more."""
    handles, worker = all_wait(deployment, CALLS)
    until(lambda: deployment.provider.counts().total > TRIALS, PATIENCE_S)
    asked_in_outage = deployment.provider.counts().total
    deployment.provider.script([])
    worker.until_it_says("breaker.closed", PATIENCE_S)
    ended = list(deployment.client.as_completed(handles, timeout=PATIENCE_S))

    assert asked_in_outage == TRIALS + 1
    assert len(ended) == CALLS
    assert_all_succeeded(deployment, CALLS, probes=1)
    assert worker.output().count("breaker.opened") == 1
