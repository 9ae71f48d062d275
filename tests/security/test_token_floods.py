"""A tenant sends prompts of the greatest length, which are expensive to count and all refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from callgate.domain.calls import CallState
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Simulator
from tests.support.deployment import CATALOGUE, Deployment, Process, until
from tests.support.direct_submission import submit_without_gates

pytestmark = pytest.mark.long
PATIENCE_S = 60.0
COUNTED = CATALOGUE.replace(
    "needs_key = false", 'needs_key = false\npricing_provider = "openai"', 1
).replace('model = "sim-1"', 'model = "gpt-4o-mini"', 1)
"""With this the tokens are counted exactly; a bound by bytes would take no time."""
DASHES = ("-" * 8_000 + "\n") * 2_000
"""
Sixteen megabytes that pass by their bytes and are refused by their tokens: 128,000 are the limit. A line of dashes
takes a hundred times as long as other text.
"""
WORDS = "some ordinary words of a prompt " * 1_000


@pytest.fixture(scope="module")
def standing(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment whose provider's vocabulary is known."""
    folder = tmp_path_factory.mktemp("counted")
    with Deployment(services, provider, folder, catalogue=COUNTED) as deployment:
        yield deployment


def test_short_prompts_are_counted_between_long_ones(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """Six prompts of 16 MB come first. Another organisation's calls end before these are counted."""
    process, org, other = worker(), deployment.org(), deployment.org()
    hostile = [
        submit_without_gates(
            deployment, deployment.request(org, f"{n}\n{DASHES}", model="gpt-4o-mini")
        )
        for n in range(6)
    ]
    # Now the first one is being counted.
    until(lambda: any(handle.state is not CallState.REJECTED for handle in hostile))

    requests = [deployment.request(other, f"{n} {WORDS}", model="gpt-4o-mini") for n in range(10)]
    handles = deployment.client.submit_many(requests)
    ended = list(deployment.client.as_completed(handles, timeout=PATIENCE_S))

    states = [handle.state for handle in hostile]
    for handle in hostile:
        deployment.client.cancel(handle.task_id, "the test is over")
    assert [handle.state for handle in ended] == [CallState.SUCCEEDED] * 10
    assert CallState.QUEUED in states
    assert deployment.attempts(org) == []
    assert process.is_alive()
