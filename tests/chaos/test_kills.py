"""Workers are killed when an answer is recorded. `tests/system/test_chaos.py` kills them at every point."""

from __future__ import annotations

import itertools
import signal

import pytest

from tests.chaos.environment import END_MAX_S, POSTED_NANO_USD, Environment
from tests.chaos.kill_points import Point
from tests.chaos.mix import TARGETS, fits, request_of

pytestmark = pytest.mark.long


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
