"""Workers are killed at every point: nothing is lost, overspent, unrecorded, or paid twice without an UNKNOWN."""

from __future__ import annotations

import itertools
import signal

import pytest

from tests.chaos.environment import END_MAX_S, POSTED_NANO_USD, Environment
from tests.chaos.faults import Fault, killed_at_every_point, worker_frozen
from tests.chaos.kill_points import Point
from tests.chaos.mix import TARGETS, fits, request_of
from tests.chaos.trial import run_trial

# The attempts of eight killed workers occupy the limit, until their leases have run out.
pytestmark = pytest.mark.timeout(240)


def test_workers_killed_at_every_named_point(environment: Environment) -> None:
    """One worker dies at each point, under one load; then one is frozen until its attempts expire."""

    def inject(environment: Environment) -> list[str]:
        return [*killed_at_every_point(environment), *worker_frozen(environment)]

    evaluation = run_trial(
        environment, Fault("every point, and a frozen worker", inject), seconds=0
    )

    assert evaluation.violations == ()
    assert evaluation.duplicates_unknown > 0, "no worker died between a request and its record"
    assert evaluation.link_errors_owed > 0, "nothing was rejected, so no error link was due"


def test_recorded_answers_of_each_protocol_are_settled_by_another_worker(
    environment: Environment,
) -> None:
    """Each answer loses its worker when it is recorded. What is stored is enough: nothing is asked again."""
    deployment = environment.deployment
    environment.close_breakers()
    org = deployment.org()
    kinds = list(itertools.product(TARGETS, ("tool_call", "schema")))
    handles = []
    for number, kind in enumerate(kinds):
        worker = environment.worker(Point.AFTER_RECORD).until_it_says("ready.")
        handles.append(deployment.client.submit(request_of(org, "answer", number, *kind)))
        assert worker.wait() == -signal.SIGKILL

    environment.start_workers(1)
    results = [handle.get(timeout=END_MAX_S) for handle in handles]

    misfits = [k for k, r in zip(kinds, results, strict=True) if not fits(k[1], k[0], r)]
    posted = {attempt.posted_nano_usd for attempt in deployment.attempts(org)}
    assert misfits == []
    assert posted == {POSTED_NANO_USD}
    assert len(environment.records.requests()) == len(kinds)
    assert environment.unknown_since_s() == {}
    deployment.assert_audit_is_clean()
