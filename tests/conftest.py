"""Fixtures of all tests: real servers, an empty ledger, a clean environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from devkit.servers.embedded import DevServers
from tests.support import executed_functions
from tests.support.tables import EMPTY
from worker.migrate import migrate

LONGEST_FIRST = (
    *("acceptance/", "security/", "chaos/", "simulation/"),
    *("migration/", "integration/", "contract/"),
)


def pytest_configure() -> None:
    """Remove settings of the shell, so that tests do not see them."""
    for name in list(os.environ):
        if name.startswith("CALLGATE_") or name in ("OPENAI_API_KEY", "TIKTOKEN_CACHE_DIR"):
            del os.environ[name]


def pytest_itemcollected(item: pytest.Item) -> None:
    """`-m 'not servers'` leaves out what needs Postgres and Valkey."""
    if "services" in getattr(item, "fixturenames", ()):
        item.add_marker("servers")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Begin with the folders whose files take longest, so that all cores are busy until the end.

    The sort is stable: within a file the order stays random, and all workers of xdist compute the same order.
    """

    def rank(item: pytest.Item) -> int:
        return next((n for n, part in enumerate(LONGEST_FIRST) if part in item.nodeid), 99)

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """A process of xdist has ended."""
    executed_functions.add_executed_of(node)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run of all tests has executed every SQL function, or it fails."""
    is_worker = hasattr(session.config, "workeroutput")
    is_whole = [Path(name).name for name in session.config.args] == ["tests"]
    is_filtered = bool(session.config.option.keyword or session.config.option.markexpr)
    if is_worker or is_filtered or not is_whole or session.exitstatus != pytest.ExitCode.OK:
        return
    if missed := executed_functions.missed_by():
        print(f"\nno test has executed these SQL functions: {', '.join(missed)}")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def services(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[DevServers]:
    """A real Postgres, migrated, and a real Valkey, for this test process."""
    folder = tmp_path_factory.mktemp("services")
    with DevServers(folder, fsync=False, valkey_persistence=False) as embedded:
        migrate(embedded.database_url)
        executed_functions.count_executions(embedded.database_url)
        yield embedded
        executed_functions.keep_executed(embedded.database_url, pytestconfig)


@pytest.fixture
def postgres_engine(services: DevServers) -> Iterator[Engine]:
    """Yield an engine on the migrated database with empty tables."""
    engine = create_engine(services.database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(EMPTY))
    yield engine
    engine.dispose()
