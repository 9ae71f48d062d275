"""One trial: load, a fault in the middle of it, more load, and the judgement."""

from __future__ import annotations

import time

from tests.chaos.environment import TIGHT_HOLDS, Environment
from tests.chaos.evaluation import Verdict, judge
from tests.chaos.faults import Fault

WORKERS = 2
CLIENTS = 3


def run_trial(environment: Environment, fault: Fault, seconds: float) -> Verdict:
    """
    Do one kind of harm to a deployment under load, and judge what came of it.

    Args:
        seconds: How long clients submit, at least; longer if the fault takes longer.
    """
    deployment = environment.deployment
    rich, tight = deployment.org(), deployment.org(0)
    deployment.limit(
        tight, TIGHT_HOLDS * deployment.hold_of(deployment.request(tight, "question 1000"))
    )
    began = time.monotonic()
    environment.fleet(WORKERS)
    for _ in range(CLIENTS):
        environment.client([rich, rich, tight])
    environment.until_it_flows()
    complaints = fault.inject(environment)
    recover_s = environment.recovery_s(environment.hit_at or environment.now())
    while time.monotonic() < began + seconds:
        time.sleep(0.05)
    environment.stop.touch()
    evidence = environment.evidence(recover_s)
    return judge(
        evidence, [*complaints, *environment.unfounded_ends(rich), *fault.check(environment)]
    )
