"""One deployment per test file; after each test its books must be right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Simulator
from tests.support.deployment import Deployment, until_equal


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    """A simulated provider."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def standing(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """What the tests of a file share: services, provider and client, but no state of calls."""
    with Deployment(services, provider, tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


@pytest.fixture
def deployment(standing: Deployment) -> Iterator[Deployment]:
    """The deployment without a script, with a worker if the test starts one; audited after the test."""
    standing.provider.reset()
    standing.vouch_for_the_provider()
    yield standing
    try:
        until_equal(0, standing.open_calls)
    finally:
        # What a failed test left open must not fail its neighbours.
        standing.end_open_calls()
    standing.assert_books_are_right()
