"""
The opening run: many calls at once against a provider with a rate limit, real worker processes and real servers.

The provider counts in a sliding window, not like callgate. Each run prints one line: its duration, successes, refusals,
and the share of the limit that was used.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import ProviderLimits, Rule, Simulator, Step
from tests.support.deployment import Deployment, Process
from tests.support.limit_use import CATALOGUE, LimitUse, declared, until_all_ended, use_of

OPENING_CALLS = 200
OPENING_A_MINUTE = 120
OPENING_REFUSALS_MAX = 25
OPENING_MAX_S = 200.0
"""About three minutes, and what a busy machine adds."""

DECLARED_A_MINUTE = 600
DECLARED_CALLS = 700
"""More than a minute's: fewer would never be refused, however fast they are sent."""

ENDED_TIMEOUT_S = 320.0
KILLED_WITHIN_S = (3.0, 45.0)
LATENCY_S = 0.3
"""Long enough that a killed worker has calls in flight."""

pytestmark = pytest.mark.timeout(450)

Deploy = Callable[[ProviderLimits, str], Deployment]
Say = Callable[..., None]


@pytest.fixture
def deploy(services: DevServers, tmp_path: Path) -> Iterator[Deploy]:
    """Makes the deployment of a test, with a limited provider and additional lines of its catalogue."""
    with ExitStack() as stack:

        def make(limits: ProviderLimits, lines: str) -> Deployment:
            provider = stack.enter_context(Simulator(limits))
            provider.script([Rule(reply=[Step(latency_s=LATENCY_S)])])
            catalogue = CATALOGUE + lines
            deployment = Deployment(services, provider, tmp_path, catalogue=catalogue)
            return stack.enter_context(deployment)

        yield make


@pytest.fixture
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints a line about this test, also when pytest captures the output."""

    def line(*words: object) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}:", *words)  # noqa: T201

    return line


def run(
    deployment: Deployment,
    limits: ProviderLimits,
    calls: int,
    meanwhile: Callable[[], None] = lambda: None,
) -> LimitUse:
    """Submit calls at once and wait until all have ended."""
    org = deployment.org()
    started_s = time.monotonic()
    deployment.client.submit_many([deployment.request(org) for _ in range(calls)])
    meanwhile()
    until_all_ended(deployment, ENDED_TIMEOUT_S)
    return use_of(deployment, limits, time.monotonic() - started_s)


def kill_each_once(deployment: Deployment, workers: list[Process], seed: int) -> None:
    """Kill every worker at a random moment, and start another one in its place."""
    moments_s = sorted(random.Random(seed).uniform(*KILLED_WITHIN_S) for _ in workers)  # noqa: S311
    started_s = time.monotonic()
    for worker, moment_s in zip(workers, moments_s, strict=True):
        time.sleep(max(0.0, started_s + moment_s - time.monotonic()))
        worker.kill()
        deployment.worker()


@pytest.mark.parametrize("sends_headers", [False, True], ids=["without headers", "with headers"])
def test_an_undeclared_limit_costs_few_refusals_and_no_call(
    deploy: Deploy, say: Say, sends_headers: bool
) -> None:
    """Nobody has told callgate about the limit: it learns it from the provider's headers or refusals."""
    limits = ProviderLimits(
        requests=OPENING_A_MINUTE, sends_headers=sends_headers, sends_retry_after=sends_headers
    )
    deployment = deploy(limits, "")
    deployment.worker()

    use = run(deployment, limits, OPENING_CALLS)

    say(use)
    say("refusals in each ten seconds:", use.refusals_by(10.0))
    assert use.states == {"succeeded": OPENING_CALLS}
    assert use.refused <= OPENING_REFUSALS_MAX
    assert use.duration_s <= OPENING_MAX_S
    deployment.assert_audit_is_clean()


def test_a_declared_limit_is_never_exceeded(deploy: Deploy, say: Say) -> None:
    """The provider refuses no request at all."""
    limits = ProviderLimits(requests=DECLARED_A_MINUTE)
    deployment = deploy(limits, declared(requests=DECLARED_A_MINUTE))
    deployment.worker()

    use = run(deployment, limits, DECLARED_CALLS)

    say(use)
    assert use.states == {"succeeded": DECLARED_CALLS}
    assert use.refused == 0
    deployment.assert_audit_is_clean()


def test_killed_workers_exceed_no_declared_limit(deploy: Deploy, say: Say) -> None:
    """What a killed worker had sent still counts for the others."""
    limits = ProviderLimits(requests=DECLARED_A_MINUTE)
    deployment = deploy(limits, declared(requests=DECLARED_A_MINUTE))
    workers = deployment.have_workers(3)
    seed = random.SystemRandom().getrandbits(32)

    use = run(deployment, limits, DECLARED_CALLS, lambda: kill_each_once(deployment, workers, seed))

    say(use, f"(seed {seed})")
    assert use.states == {"succeeded": DECLARED_CALLS}
    assert use.refused == 0
    deployment.assert_audit_is_clean()


@pytest.mark.parametrize("sends_headers", [False, True], ids=["without headers", "with headers"])
def test_killed_workers_meet_no_undeclared_limit_more_often(
    deploy: Deploy, say: Say, sends_headers: bool
) -> None:
    """What was learned is in the ledger, so those that take over know it; no call is lost."""
    limits = ProviderLimits(
        requests=OPENING_A_MINUTE, sends_headers=sends_headers, sends_retry_after=sends_headers
    )
    deployment = deploy(limits, "")
    workers = deployment.have_workers(3)
    seed = random.SystemRandom().getrandbits(32)

    use = run(deployment, limits, OPENING_CALLS, lambda: kill_each_once(deployment, workers, seed))

    say(use, f"(seed {seed})")
    say("refusals in each ten seconds:", use.refusals_by(10.0))
    assert use.states == {"succeeded": OPENING_CALLS}
    assert use.refused <= OPENING_REFUSALS_MAX
    assert use.duration_s <= OPENING_MAX_S
    deployment.assert_audit_is_clean()
