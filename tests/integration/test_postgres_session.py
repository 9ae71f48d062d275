"""`PostgresSession` on a real server: bounded in time, errors translated, transient ones retried."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.errors import ConfigurationError, LedgerUnavailable, NotMigrated, RowRefused
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port

TIMEOUT_S = 1.0
PATIENCE_S = 8.0
"""What the bound of a second may become on a busy machine."""


@pytest.fixture
def session(services: DevServers) -> Iterator[PostgresSession]:
    """A session whose statements may take a second."""
    with closing(
        PostgresSession(services.database_url, timeout_s=TIMEOUT_S, pool_size=2)
    ) as opened:
        yield opened


@pytest.fixture
def scratch(services: DevServers) -> Iterator[Engine]:
    """A table of one row that tests may lock."""
    engine = create_engine(services.database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE scratch (id int PRIMARY KEY, n int)"))
        connection.execute(text("INSERT INTO scratch VALUES (1, 0), (2, 0)"))
    yield engine
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE scratch"))
    engine.dispose()


def test_it_brings_rows(session: PostgresSession) -> None:
    """A statement's rows come by name; a statement without rows brings none."""
    assert session.rows("SELECT %(n)s + 1 AS sum", {"n": 1})[0].sum == 2
    assert session.rows("SET LOCAL lock_timeout = 0", {}) == []


def test_a_stopped_server_is_noticed(services: DevServers, session: PostgresSession) -> None:
    """A server that answers nothing and breaks nothing costs the bound and no more; the next statement works."""
    session.rows("SELECT 1", {})
    services.postgres.suspend()
    began = time.monotonic()
    try:
        with pytest.raises(LedgerUnavailable):
            session.rows("SELECT 1", {})
        waited_s = time.monotonic() - began
    finally:
        services.postgres.resume()

    assert TIMEOUT_S * 0.9 <= waited_s < PATIENCE_S
    assert session.rows("SELECT 1 AS one", {})[0].one == 1


def test_an_absent_server_is_noticed(services: DevServers) -> None:
    """Nobody listens: the error comes at once, and holds no password."""
    url = make_url(services.database_url).set(port=free_port())

    with (
        closing(PostgresSession(url.render_as_string(hide_password=False), timeout_s=2)) as absent,
        pytest.raises(LedgerUnavailable) as away,
    ):
        absent.rows("SELECT 1", {})

    assert str(url.password) not in str(away.value)


def test_a_slow_statement_is_cut_off(session: PostgresSession) -> None:
    """A statement that takes longer than its bound is unavailability, not a wait."""
    began = time.monotonic()

    with pytest.raises(LedgerUnavailable):
        session.rows("SELECT pg_sleep(30)", {})

    assert time.monotonic() - began < PATIENCE_S


def test_a_busy_pool_is_noticed(session: PostgresSession) -> None:
    """With every connection taken a caller waits for the bound, and hears so."""
    with (
        session.engine.connect(),
        session.engine.connect(),
        pytest.raises(LedgerUnavailable, match="no database connection was free"),
    ):
        session.rows("SELECT 1", {})


def test_a_deadlock_is_tried_again(services: DevServers, scratch: Engine) -> None:
    """Whichever of two statements Postgres gives up, both take effect."""
    both = threading.Barrier(2)
    # Locks are waited for a third of the bound: longer than Postgres takes to see the deadlock (a second), so that it
    # gives up one of the two, not both at once.
    session = PostgresSession(services.database_url, timeout_s=PATIENCE_S, pool_size=2)

    def add(first: int, second: int) -> None:
        both.wait(PATIENCE_S)
        session.rows(
            f"DO $$ BEGIN UPDATE scratch SET n = n + 1 WHERE id = {first};"  # noqa: S608
            f" PERFORM pg_sleep(0.2); UPDATE scratch SET n = n + 1 WHERE id = {second}; END $$",
            {},
        )

    threads = [threading.Thread(target=add, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    session.close()

    with scratch.connect() as connection:
        assert [r.n for r in connection.execute(text("SELECT n FROM scratch"))] == [2, 2]


def test_a_lock_that_stays_is_unavailability(session: PostgresSession, scratch: Engine) -> None:
    """A row somebody else holds is waited for, within bounds."""
    with scratch.begin() as connection:
        connection.execute(text("UPDATE scratch SET n = 5 WHERE id = 1"))
        began = time.monotonic()

        with pytest.raises(LedgerUnavailable):
            session.rows("UPDATE scratch SET n = 6 WHERE id = 1", {})

        assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT * FROM no_such_table", NotMigrated),
        ("SELECT no_such_function()", NotMigrated),
        ("SELEC 1", ConfigurationError),
        ("INSERT INTO scratch VALUES (1, 0)", RowRefused),
        ("SELECT 1 / 0", RowRefused),
        ("SELECT pg_terminate_backend(pg_backend_pid())", LedgerUnavailable),
    ],
)
def test_errors_are_translated(
    session: PostgresSession, scratch: Engine, sql: str, error: type[Exception]
) -> None:
    """What Postgres raises becomes an error that says who is to blame; the session stays usable."""
    with pytest.raises(error):
        session.rows(sql, {})

    assert session.rows("SELECT 1 AS one", {})[0].one == 1


def test_parameters_stay_out_of_messages(session: PostgresSession, scratch: Engine) -> None:
    """An error message is stored and logged: what a row holds does not belong there."""
    with pytest.raises(RowRefused) as refused:
        session.rows("SELECT %(text)s::int", {"text": "a prompt"})

    assert "SELECT" not in str(refused.value)


def test_text_with_nul_is_refused_as_a_row(session: PostgresSession) -> None:
    """Postgres has no NUL in text: the row is to blame, not the server."""
    with pytest.raises(RowRefused):
        session.rows("SELECT %(text)s", {"text": "a\0b"})


def test_a_url_that_cannot_be_used_is_refused() -> None:
    """A wrong URL stops the process at its start."""
    with pytest.raises(ConfigurationError):
        PostgresSession("no-such-dialect://host/name")
