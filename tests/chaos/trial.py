"""One trial: load, a fault, more load, and the evaluation."""

from __future__ import annotations

import time

from tests.chaos.environment import TIGHT_HOLDS, Environment
from tests.chaos.evaluation import Evaluation, evaluate
from tests.chaos.faults import Fault

WORKERS = 2
CLIENTS = 3


def run_trial(environment: Environment, fault: Fault, seconds: float) -> Evaluation:
    """
    Inject one fault into a deployment under load, and evaluate the result.

    Args:
        seconds: The minimum time for which clients submit; longer if the fault takes longer.
    """
    deployment = environment.deployment
    rich, tight = deployment.org(), deployment.org(0)
    deployment.limit(
        tight, TIGHT_HOLDS * deployment.hold_of(deployment.request(tight, "question 1000"))
    )
    began = time.monotonic()
    environment.start_workers(WORKERS)
    for _ in range(CLIENTS):
        environment.client([rich, rich, tight])
    environment.until_calls_succeed()
    violations = fault.inject(environment)
    recover_s = environment.recovery_s(environment.fault_at or environment.now())
    while time.monotonic() < began + seconds:
        time.sleep(0.05)
    environment.stop.touch()
    observations = environment.observe(recover_s)
    return evaluate(
        observations, [*violations, *environment.unexpected_ends(rich), *fault.check(environment)]
    )
