"""Fixtures of all tests: real servers, an empty ledger, a clean environment."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.session import PostgresSession
from devkit.servers.embedded import DevServers
from tests.support import executed_functions
from tests.support.guardian import Guardian
from tests.support.tables import EMPTY
from worker.migrate import migrate

SHORT = "not long"
"""What `make test` runs."""
LONGEST_FIRST = (
    *("acceptance/", "operations/", "security/", "chaos/", "simulation/"),
    *("migration/", "integration/", "contract/"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Remove settings of the shell, so that tests do not see them. What tests start ends with this process."""
    config.add_cleanup(Guardian().end)
    for name in list(os.environ):
        if name.startswith("CALLGATE_") or name in ("OPENAI_API_KEY", "TIKTOKEN_CACHE_DIR"):
            del os.environ[name]


def pytest_itemcollected(item: pytest.Item) -> None:
    """`-m 'not servers'` leaves out what needs Postgres and Valkey. Pages and their servers take long."""
    if "tests/operations/" in item.nodeid:
        item.add_marker("long")
    if {"services", "callgate_deployment"} & set(getattr(item, "fixturenames", ())):
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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """
    Collect no garbage while tests are found, and none among them later: they stay until the end.

    Else each collection visits thousands of them, which took a third of the time in which they are found.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """A process of xdist has ended."""
    executed_functions.add_executed_of(node)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run of all short tests has executed every SQL function, or it fails."""
    is_worker = hasattr(session.config, "workeroutput")
    is_whole = [Path(name).name for name in session.config.args] == ["tests"]
    option = session.config.option
    is_filtered = bool(option.keyword) or option.markexpr not in ("", SHORT)
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


@pytest.fixture(scope="session")
def emptying(services: DevServers) -> Iterator[Engine]:
    """The connection that empties tables. Tests may restart the server meanwhile."""
    engine = create_engine(services.database_url, pool_size=1, pool_pre_ping=True)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_session(services: DevServers) -> Iterator[PostgresSession]:
    """Connections of all tests of this process: a new one first compiles each function that it executes."""
    with closing(PostgresSession(services.database_url)) as session:
        yield session


@pytest.fixture
def postgres_engine(services: DevServers, emptying: Engine) -> Iterator[Engine]:
    """Yield an engine on the migrated database with empty tables."""
    with emptying.begin() as connection:
        connection.execute(text(EMPTY))
    engine = create_engine(services.database_url, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def _logging_of_this_test_only() -> Iterator[None]:
    """Commands configure structlog for their process: here, for all tests that come after."""
    was_configured = structlog.is_configured()
    yield
    if structlog.is_configured() and not was_configured:
        structlog.reset_defaults()
