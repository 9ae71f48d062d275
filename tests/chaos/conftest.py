"""The short form: one nursery per test file, and a stage per test on the servers of this test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.servers.embedded import DevServers
from tests.chaos.environment import Environment, staged
from tests.chaos.observers import forget
from tests.support.forked_workers import ForkServer


@pytest.fixture(scope="module")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Where processes come from."""
    with ForkServer(tmp_path_factory.mktemp("nursery")) as fork_server:
        yield fork_server


@pytest.fixture
def environment(
    services: DevServers, fork_server: ForkServer, tmp_path: Path
) -> Iterator[Environment]:
    """A deployment without workers and clients, its ledger and its broker empty."""
    with staged(services, fork_server, tmp_path) as environment:
        yield environment
    # The servers are those of other tests too: they must find them well.
    services.valkey.start()
    services.postgres.start()
    forget(services.database_url)
