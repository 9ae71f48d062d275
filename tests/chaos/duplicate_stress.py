"""Duplicate stress: many duplicates of few requests, from several processes, while workers are killed."""

from __future__ import annotations

from devkit.simulator.simulator import Rule, Step, Uniform
from tests.chaos.environment import END_MAX_S, USAGE, Environment
from tests.chaos.evaluation import Evaluation, Observations, evaluate
from tests.chaos.limits import TIGHT
from tests.support.deployment import until

CLIENTS = 4
WORKERS = 4
BATCH = 25


def stress_duplicates(
    environment: Environment, *, submissions: int, requests: int, kills: int
) -> Evaluation:
    """
    Submit while workers are killed; expect one success for each request, and one link for each submission.

    Args:
        requests: The number of different requests among the submissions.
        kills: The number of workers that are killed with calls in flight, and replaced; fewer if all calls end before.
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
    environment.until_in_flight(1)
    killed = sum(_kills(environment, requests) for _ in range(kills))
    environment.notes.append(f"{killed} workers were killed with a call in flight")
    recover_s = environment.recovery_s(environment.now())
    observations = environment.observe(recover_s)
    few = ["fewer than two workers were killed"] * (killed < 2)
    return evaluate(observations, [*few, *_violations(observations, submissions, requests)])


def _kills(environment: Environment, requests: int) -> bool:
    """
    Kill one of several workers and replace it, or return False.

    On a busy machine a worker starts so slowly that the load may be over before the last kill.
    """
    counts = environment.deployment.provider.counts
    ready = environment.ready_workers

    def is_time() -> bool:
        is_over = environment.succeeded() == requests
        return is_over or (counts().in_flight > 0 and len(ready()) > 1)

    until(is_time, END_MAX_S, lambda: f"{counts().in_flight} in flight, {len(ready())} workers")
    if environment.succeeded() == requests:
        return False
    environment.pause(0.1, 0.4)
    environment.rng.choice(ready()).kill()
    environment.worker()
    return True


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
