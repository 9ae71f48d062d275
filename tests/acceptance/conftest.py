"""One deployment per test file, with an audit after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Simulator
from tests.support.deployment import Deployment, until_equal


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    """The simulated provider of a file."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def standing(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The deployment of a file: servers, provider and client."""
    with Deployment(services, provider, tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


@pytest.fixture
def deployment(standing: Deployment) -> Iterator[Deployment]:
    """The deployment of one test, without a script. After the test, calls must end and the audit must be clean."""
    standing.provider.reset()
    standing.close_breaker()
    yield standing
    try:
        until_equal(0, standing.open_calls)
    finally:
        # Open calls of a failed test must not affect other tests.
        standing.end_open_calls()
    standing.assert_audit_is_clean()
