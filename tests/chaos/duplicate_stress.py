"""Duplicate stress: many duplicates of few requests, from several processes, while workers are killed."""

from __future__ import annotations

from devkit.simulator.simulator import Rule, Step, Uniform
from tests.chaos.environment import USAGE, Environment
from tests.chaos.evaluation import Evaluation, Observations, evaluate
from tests.chaos.limits import TIGHT

CLIENTS = 4
WORKERS = 2
BATCH = 25


def stress_duplicates(
    environment: Environment, *, submissions: int, requests: int, kills: int
) -> Evaluation:
    """
    Submit while workers are killed; expect one success for each request, and one link for each submission.

    Args:
        requests: The number of different requests among the submissions.
        kills: The number of workers that are killed while calls are in flight, and replaced.
    """
    environment.limit(TIGHT)
    slow = Step(latency_s=Uniform(low_s=0.3, high_s=1.2), usage=USAGE)
    environment.deployment.provider.script([Rule(reply=[slow], seed=1)])
    org = environment.deployment.org()
    # Otherwise the breaker admits three calls until one succeeds, and a killed worker may have none in flight.
    environment.close_breakers()
    environment.start_workers(WORKERS)
    for number in range(CLIENTS):
        environment.client(
            [org],
            batch=BATCH,
            total_max=submissions // CLIENTS,
            offset=number * requests // CLIENTS,
            repeat=1,
            distinct=requests,
            pause_s=0.02,
        )
    for _ in range(kills):
        environment.until_in_flight(1)
        environment.pause(0.1, 0.4)
        environment.rng.choice(environment.living_workers()).kill()
        environment.worker().until_it_says("ready.")
    recover_s = environment.recovery_s(environment.now())
    observations = environment.observe(recover_s)
    return evaluate(observations, _violations(observations, submissions, requests))


def _violations(observations: Observations, submissions: int, requests: int) -> list[str]:
    outcomes = [outcome for batch in observations.batches for _, outcome in batch.outcomes]
    checks = {
        f"{len(outcomes)} submissions instead of {submissions}": len(outcomes) != submissions,
        f"{len(observations.calls)} calls instead of {requests}": len(observations.calls)
        != requests,
        "not every call succeeded": set(observations.calls.values()) != {"succeeded"},
        "not every handle got its result": set(outcomes) != {"succeeded"},
    }
    return [text for text, is_violated in checks.items() if is_violated]
