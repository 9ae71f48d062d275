"""A limit that is declared too high is noticed. Otherwise nobody would know that trials put limits to the test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.environment import Environment
from tests.chaos.limits import CONCURRENCY, TIGHT, violations_of
from tests.chaos.trial import CLIENTS, WORKERS


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"requests": 2 * TIGHT.declared["requests"]}, "requests were refused, and 0 came late"),
        ({"concurrency": 2 * CONCURRENCY}, f"requests at one time, of {CONCURRENCY}"),
    ],
    ids=["requests", "concurrency"],
)
def test_a_limit_that_is_declared_twice_as_high_is_noticed(
    environment: Environment, wrong: dict[str, int], words: str
) -> None:
    """The load is that of a trial, without its pauses and without a fault."""
    environment.limit(replace(TIGHT, declared={**TIGHT.declared, **wrong}))
    org = environment.deployment.org()
    environment.start_workers(WORKERS)
    for _ in range(CLIENTS):
        environment.client([org], pause_s=0.02)

    environment.until_refused()

    seen = environment.records.limits_seen(environment.flow, environment.records.requests())
    for name, of_protocol in seen.items():
        violations = list(violations_of(of_protocol))
        assert any(words in violation for violation in violations), (name, violations)
