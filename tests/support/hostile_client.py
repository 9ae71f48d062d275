# ruff: noqa: S608 - every statement is ours, or an attack of ours
"""A hostile client: it has the password of its own login, and may run any SQL. Its organisation is "mine"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tables import metadata
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.calls import CallKey
from devkit.servers.embedded import DevServers
from tests.support.ledger_under_test import (
    LINK,
    LedgerUnderTest,
    a_failure,
    a_submission,
    a_success,
    an_answer,
    open_postgres,
)
from tests.support.logins import a_client
from tests.support.tables import EMPTY

DENIED = "42501"
"""insufficient_privilege"""
THEIR_PROMPT = "what only they may read"


@pytest.fixture(scope="module")
def owner(services: DevServers) -> Iterator[PostgresSession]:
    """The owner's session, on a ledger that was empty before."""
    with closing(PostgresSession(services.database_url)) as session:
        session.rows(EMPTY, {})
        yield session


@pytest.fixture(scope="module")
def ledger(owner: PostgresSession) -> LedgerUnderTest:
    """The owner's ledger; "theirs" has a call of each kind, "mine" has nothing."""
    ledger = open_postgres(owner)
    ledger.operations.set_budget("theirs", ORG_SCOPE, Window.DAY, 10_000)
    contents = (THEIR_PROMPT, "running", "succeeded", "dead")
    queued = [their(c, link=LINK, idempotency_key=f"key of {c}") for c in contents]
    keys = [answer.key for answer in ledger.submit(*queued)]
    ledger.claim(keys[1])
    done = ledger.claim(keys[2])
    ledger.record(an_answer(done))
    ledger.settle(a_success(done))
    kill(ledger, keys[3])
    ledger.submit(*(their(f"call {number}") for number in range(200)))
    owner.rows("ANALYZE", {})
    return ledger


@pytest.fixture(scope="module")
def url(owner: PostgresSession, ledger: LedgerUnderTest) -> Iterator[str]:
    """The hostile client's own login, which acts for "mine"."""
    with a_client(owner, "mine") as url:
        yield url


@pytest.fixture(scope="module")
def session(url: str) -> Iterator[PostgresSession]:
    """What the ordinary client uses, with that login."""
    with closing(PostgresSession(url, pool_size=1)) as session:
        yield session


@pytest.fixture
def attacker(url: str) -> Iterator[Connection]:
    """A connection for any SQL."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def kill(ledger: LedgerUnderTest, key: CallKey) -> None:
    """Have a queued call end as a dead letter."""
    attempt = ledger.claim(key)
    ledger.record(an_answer(attempt, reply=None, error="{}"))
    ledger.settle(a_failure(attempt))


def their(content: str, **changes: Any) -> Any:
    """A submission of the other organisation."""
    return a_submission(content, org_id="theirs", **changes)


def all_rows(owner: PostgresSession) -> dict[str, list[Any]]:
    """Every row of every table."""
    return {
        table.name: [tuple(row) for row in owner.rows(f"SELECT * FROM {table.name} ORDER BY 1", {})]
        for table in metadata.sorted_tables
    }


def sqlstate_of(connection: Connection, statement: str) -> str:
    """How Postgres refuses a statement; empty if it does not."""
    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as exc:
        return str(getattr(exc.orig, "pgcode", None))
    return ""


# The ordinary client.
