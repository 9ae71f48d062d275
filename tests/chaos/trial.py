"""One trial: load, a fault, more load, and the evaluation."""

from __future__ import annotations

import time

from tests.chaos.environment import MAX_OUTPUT_TOKENS, Environment
from tests.chaos.evaluation import Evaluation, evaluate
from tests.chaos.faults import Fault
from tests.chaos.mix import FORMS, TARGETS, request_of
from tests.support.deployment import Deployment

WORKERS = 2
CLIENTS = 3
LOAD_AFTER_S = 2.0
"""How long clients submit after a fault at least."""


def run_trial(environment: Environment, fault: Fault, seconds: float) -> Evaluation:
    """
    Inject one fault into a deployment under load, and evaluate the result.

    Args:
        seconds: The minimum time for which clients submit; longer if the fault takes longer, or has its own.
    """
    deployment = environment.deployment
    environment.limit(fault.flow)
    rich, tight = deployment.org(), deployment.org(0)
    # One call of the largest form fits, or three plain ones: its calls wait for each other.
    deployment.limit(tight, _largest_hold(deployment, tight))
    began = time.monotonic()
    environment.start_workers(WORKERS)
    for _ in range(CLIENTS):
        environment.client([rich, rich, tight], **fault.load)
    environment.until_calls_succeed()
    violations = fault.inject(environment)
    until_s = max(began + (fault.seconds or seconds), time.monotonic() + LOAD_AFTER_S)
    recover_s = _recovered_s(environment, until_s)
    observations = environment.observe(recover_s)
    return evaluate(
        observations, [*violations, *environment.unexpected_ends(rich), *fault.check(environment)]
    )


def _largest_hold(deployment: Deployment, org: str) -> int:
    requests = [
        request_of(org, "answer", 1000, target, form) for target in TARGETS for form in FORMS
    ]
    bound = {"max_output_tokens": MAX_OUTPUT_TOKENS}
    return max(deployment.hold_of(request.model_copy(update=bound)) for request in requests)


def _recovered_s(environment: Environment, until_s: float) -> float | None:
    """Stop the clients at a moment, and return after how long all calls from before the fault had ended."""
    since = environment.fault_at or environment.now()
    recover_s = environment.recovery_s(since, until_s - time.monotonic())
    time.sleep(max(0.0, until_s - time.monotonic()))
    environment.stop.touch()
    # While a limit is used up, calls that were sent before wait behind new ones (ADR 21).
    return environment.recovery_s(since) if recover_s is None else recover_s
