"""Collapse stress: many duplicates of few requests, from several processes, while workers are killed."""

from __future__ import annotations

from devkit.simulator.simulator import Rule, Step, Uniform
from tests.chaos.environment import Environment
from tests.chaos.evaluation import Evidence, Verdict, judge

CLIENTS = 4
WORKERS = 2
BATCH = 25


def stress_collapse(
    environment: Environment, *, submissions: int, requests: int, kills: int
) -> Verdict:
    """
    Submit, kill workers meanwhile, and judge: one success for each request, and a link for each submission.

    Args:
        requests: How many different ones there are among the submissions.
        kills: Workers killed while calls are in flight, each replaced.
    """
    slow = Step(latency_s=Uniform(low_s=0.3, high_s=1.2))
    environment.deployment.provider.script([Rule(reply=[slow], seed=1)])
    org = environment.deployment.org()
    # Else a breaker lets three calls through until the first succeeds, and a worker that is killed may have none.
    environment.deployment.vouch_for_the_provider()
    environment.fleet(WORKERS)
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
        environment.dice.choice(environment.living_workers()).kill()
        environment.worker().until_it_says("ready.")
    recover_s = environment.recovery_s(environment.now())
    evidence = environment.evidence(recover_s)
    return judge(evidence, _complaints(evidence, submissions, requests))


def _complaints(evidence: Evidence, submissions: int, requests: int) -> list[str]:
    outcomes = [outcome for batch in evidence.batches for _, outcome in batch.outcomes]
    wrong = {
        f"{len(outcomes)} submissions instead of {submissions}": len(outcomes) != submissions,
        f"{len(evidence.calls)} calls instead of {requests}": len(evidence.calls) != requests,
        "not every call succeeded": set(evidence.calls.values()) != {"succeeded"},
        "not every handle got its result": set(outcomes) != {"succeeded"},
    }
    return [words for words, is_so in wrong.items() if is_so]
