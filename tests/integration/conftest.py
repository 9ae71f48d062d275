"""Fixtures for tests of one component: a Valkey for each file, emptied for each test, and an empty ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
import structlog
from celery import Celery
from sqlalchemy import Engine

from callgate.adapters.postgres.session import PostgresSession
from callgate.cli import run
from devkit.servers.embedded import DevServers
from tests.support.celery_worker import Note, client_of
from tests.support.dev_servers import embedded, folder
from tests.support.ledger_under_test import LedgerUnderTest, open_postgres
from tests.support.partitions import PartitionedLedger, partitioned_ledger
from tests.support.simulator_client import ask, provider, simulator, transport
from tests.support.statistics import forgotten, take_statistics
from tests.support.valkey import Valkey

__all__ = ["ask", "embedded", "folder", "provider", "simulator", "transport"]

Command = Callable[..., int]
POOLS = ["worker.celery_ext.pool:AsyncioPool", "threads"]


@pytest.fixture(scope="module", params=POOLS, ids=["asyncio", "threads"])
def pool(request: pytest.FixtureRequest) -> str:
    """Both pools with threads, for tests that must pass in either."""
    pool: str = request.param
    return pool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One Valkey for all tests of a file."""
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    valkey.start()
    yield valkey
    valkey.kill()


@pytest.fixture
def valkey(server: Valkey) -> Valkey:
    """The server, emptied."""
    server.client.flushall()
    return server


@pytest.fixture
def app(valkey: Valkey) -> Celery:
    """An app that publishes tasks to the worker."""
    return client_of(valkey)


@pytest.fixture
def note(app: Celery) -> Note:
    """Publishes the task `note`, which records its start and its end."""

    def publish(word: str, sleep_s: float = 0, **options: Any) -> Any:
        return app.send_task("note", (word, sleep_s), **options)

    return publish


@pytest.fixture
def command(services: DevServers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs a command line in this process; returns the exit code."""
    monkeypatch.setenv("CALLGATE_DATABASE_URL", services.database_url)
    monkeypatch.setenv("CALLGATE_BROKER_URL", services.broker_url)
    yield lambda *arguments: run(arguments)
    # The command has configured structlog for this process.
    structlog.reset_defaults()


@pytest.fixture
def ledger(postgres_engine: Engine, postgres_session: PostgresSession) -> LedgerUnderTest:
    """An empty ledger in Postgres."""
    return open_postgres(postgres_session)


@pytest.fixture(params=[None, 1, 8], ids=["nothing is known", "lives of 1", "lives of 8"])
def statistics(request: pytest.FixtureRequest, postgres_engine: Engine) -> Iterator[None]:
    """
    What Postgres knows of the tables: nothing, or how they were in another life. It learns nothing meanwhile.

    With these lives claims, settlements and plans of redrives read all calls, before indexes said whom they are for.
    """
    with forgotten(postgres_engine):
        if request.param is not None:
            take_statistics(postgres_engine, Random(request.param))  # noqa: S311 - a case
        yield


@pytest.fixture
def nothing_is_known(postgres_engine: Engine) -> Iterator[None]:
    """Postgres knows nothing of the tables, and learns nothing meanwhile."""
    with forgotten(postgres_engine):
        yield


@pytest.fixture
def log(postgres_engine: Engine, services: DevServers) -> Iterator[PartitionedLedger]:
    """An empty ledger with the partitions that a migration makes."""
    with partitioned_ledger(postgres_engine, services.database_url) as ledger:
        yield ledger
