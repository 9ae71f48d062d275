"""A defect of one protocol is noticed. Otherwise nobody would know that a trial looks at all three."""

from __future__ import annotations

import pytest

from tests.chaos.environment import Environment
from tests.chaos.evaluation import evaluate
from tests.chaos.mix import TARGETS

QUESTIONS = 40
"""Each protocol gets a request of each form."""


@pytest.mark.parametrize(
    ("defect", "target", "words"),
    [
        ("sends_twice", "sim-messages", "{} provider requests share a row"),
        ("drops_usage", "sim-responses", "sim-responses: {} attempts are not posted"),
        ("counts_reasoning_twice", "sim", "sim: {} attempts are not posted"),
        ("drops_reasoning", "sim-messages", "{} results do not fit their requests"),
    ],
)
def test_a_defect_of_one_protocol_is_noticed(
    environment: Environment, defect: str, target: str, words: str
) -> None:
    """No worker is killed; the defect alone is a violation, and no other one is found."""
    worker = environment.fork_server.fork(
        "tests.chaos.defective_worker",
        environment.deployment.environ,
        defect=defect,
        target=target,
    )
    environment.workers.append(worker.until_it_says("ready."))
    environment.client([environment.deployment.org()], total_max=QUESTIONS, repeat=1)

    evaluation = evaluate(environment.observe(recover_s=0))

    (violation,) = evaluation.violations
    assert words.format(evaluation.protocols[target].calls) in violation
    assert set(evaluation.protocols) == set(TARGETS)
