"""Short chaos trials: one fork server per test file, and an environment per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.servers.embedded import DevServers
from tests.chaos.environment import Environment, open_environment
from tests.chaos.observers import drop_observers
from tests.support.forked_workers import ForkServer


@pytest.fixture(scope="module")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """The fork server of a file."""
    with ForkServer(tmp_path_factory.mktemp("fork-server")) as fork_server:
        yield fork_server


@pytest.fixture
def environment(
    services: DevServers, fork_server: ForkServer, tmp_path: Path
) -> Iterator[Environment]:
    """A deployment with an empty ledger, an empty broker, and no workers or clients."""
    with open_environment(services, fork_server, tmp_path) as environment:
        yield environment
    # Other tests use the same servers.
    services.valkey.start()
    services.postgres.start()
    drop_observers(services.database_url)
