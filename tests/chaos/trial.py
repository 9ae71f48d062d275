"""One trial: load, a fault in the middle of it, more load, and the judgement."""

from __future__ import annotations

import time

from tests.chaos.environment import TIGHT_HOLDS, Stage
from tests.chaos.evaluation import Verdict, judge
from tests.chaos.faults import Fault

WORKERS = 2
CLIENTS = 3


def run_trial(stage: Stage, fault: Fault, seconds: float) -> Verdict:
    """
    Do one kind of harm to a deployment under load, and judge what came of it.

    Args:
        seconds: How long clients submit, at least; longer if the fault takes longer.
    """
    deployment = stage.deployment
    rich, tight = deployment.org(), deployment.org(0)
    deployment.limit(
        tight, TIGHT_HOLDS * deployment.hold_of(deployment.request(tight, "question 1000"))
    )
    began = time.monotonic()
    stage.fleet(WORKERS)
    for _ in range(CLIENTS):
        stage.client([rich, rich, tight])
    stage.until_it_flows()
    complaints = fault.inject(stage)
    recover_s = stage.recovery_s(stage.hit_at or stage.now())
    while time.monotonic() < began + seconds:
        time.sleep(0.05)
    stage.stop.touch()
    evidence = stage.evidence(recover_s)
    return judge(evidence, [*complaints, *stage.unfounded_ends(rich), *fault.check(stage)])
