"""The short form: one nursery per test file, and a stage per test on the servers of this test process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.servers.embedded import Embedded
from tests.chaos.environment import Stage, staged
from tests.chaos.observers import forget
from tests.support.forked_workers import Nursery


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where processes come from."""
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery


@pytest.fixture
def stage(services: Embedded, nursery: Nursery, tmp_path: Path) -> Iterator[Stage]:
    """A deployment without workers and clients, its ledger and its broker empty."""
    with staged(services, nursery, tmp_path) as stage:
        yield stage
    # The servers are those of other tests too: they must find them well.
    services.valkey.start()
    services.postgres.start()
    forget(services.database_url)
