"""Connections that are bad without an outage, and what a database URL means: the same to everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.session import PostgresSession
from callgate.client import Client
from callgate.domain.calls import CallKey
from callgate.domain.errors import ConfigurationError, LedgerUnavailable, NotMigrated
from callgate.settings import ClientSettings
from devkit.servers.embedded import DevServers
from devkit.servers.ports import free_port
from tests.integration.conftest import Command
from tests.support.ledger_under_test import a_submission
from tests.support.waiting import until
from worker.migrate import migrate

WRITE = "UPDATE scratch SET n = n + 1 RETURNING n"
PID = "SELECT pg_backend_pid() AS pid"


@pytest.fixture
def owner(services: DevServers) -> Iterator[Engine]:
    """The owner's own way to the server, past everything of callgate's, with a table to write to."""
    engine = create_engine(services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE scratch AS SELECT 0 AS n"))
        yield engine
        connection.execute(text("DROP TABLE scratch"))
    engine.dispose()


@pytest.fixture
def session(services: DevServers) -> Iterator[PostgresSession]:
    """A session with one connection that is open already."""
    with closing(PostgresSession(services.database_url, pool_size=1)) as session:
        assert pid_of(session)
        yield session


def pid_of(session: PostgresSession) -> int:
    """The server's process behind the one connection of a session."""
    pid: int = session.rows(PID, {})[0].pid
    return pid


def is_gone(owner: Engine, pid: int) -> bool:
    """Whether a process of the server has ended."""
    with owner.connect() as connection:
        seen = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        return not connection.scalar(seen, {"pid": pid})


def test_a_connection_that_became_read_only_is_given_up(
    owner: Engine, session: PostgresSession
) -> None:
    """As after a failover: the statement passes on a new connection, and nobody hears of it."""
    before = pid_of(session)
    session.rows("SET default_transaction_read_only = on", {})

    assert session.rows(WRITE, {})[0].n == 1
    assert pid_of(session) != before


def test_connections_older_than_the_bad_one_are_given_up_too(
    owner: Engine, services: DevServers
) -> None:
    """Or each of them would fail a statement."""
    with closing(PostgresSession(services.database_url, pool_size=3)) as session:
        engine = session.engine
        with engine.connect() as one, engine.connect() as two, engine.connect() as three:
            before = {c.exec_driver_sql(PID).scalar() for c in (one, two, three)}
            for connection in (one, two, three):
                connection.exec_driver_sql("SET default_transaction_read_only = on")
        session.rows(WRITE, {})
        with engine.connect() as one, engine.connect() as two, engine.connect() as three:
            after = {c.exec_driver_sql(PID).scalar() for c in (one, two, three)}

    assert not before & after


def test_a_server_that_stays_read_only_is_unavailable(owner: Engine, services: DevServers) -> None:
    """Within the bound, in callgate's words; once it is writable again everything goes on."""
    name = make_url(services.database_url).database
    with closing(PostgresSession(services.database_url, timeout_s=1)) as session:
        try:
            with owner.connect() as connection:
                connection.execute(
                    text(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
                )
            with pytest.raises(LedgerUnavailable, match="read-only"):
                session.rows(WRITE, {})
        finally:
            with owner.connect() as connection:
                connection.execute(text("SET default_transaction_read_only = off"))
                connection.execute(
                    text(f"ALTER DATABASE {name} RESET default_transaction_read_only")
                )
        assert session.rows(WRITE, {})[0].n == 1


def test_an_idle_timeout_costs_no_statement(owner: Engine, session: PostgresSession) -> None:
    """`idle_session_timeout` of a server, or of the login."""
    before = pid_of(session)
    session.rows("SET idle_session_timeout = 50", {})
    until(lambda: is_gone(owner, before))

    assert session.rows(WRITE, {})[0].n == 1


def test_a_shutdown_while_nobody_spoke_costs_no_statement(
    owner: Engine, session: PostgresSession
) -> None:
    """A restart, a failover, an administrator."""
    before = pid_of(session)
    with owner.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": before})
    until(lambda: is_gone(owner, before))

    assert session.rows(WRITE, {})[0].n == 1


def test_a_shutdown_in_mid_statement_is_unavailability(session: PostgresSession) -> None:
    """Whether it took effect is not known: that is for the caller to ask; the next statement works."""
    with pytest.raises(LedgerUnavailable):
        session.rows("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(1)", {})

    assert pid_of(session)


@pytest.fixture
def two_hosts(services: DevServers, postgres_engine: Engine) -> str:
    """A URL whose first host is nobody's, and whose second is the server."""
    url = make_url(services.database_url)
    return (
        f"postgresql://{url.username}:{url.password}@127.0.0.1:{free_port()},127.0.0.1:{url.port}"
        f"/{url.database}?target_session_attrs=read-write"
    )


@pytest.fixture
def keyless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue whose provider needs no key, so that a doctor misses none."""
    (file := tmp_path / "keyless.toml").write_text(
        '[providers.openai]\nbase_url = "http://127.0.0.1:1/v1"\nneeds_key = false\n'
    )
    monkeypatch.setenv("CALLGATE_CATALOGUE", str(file))


def test_several_hosts_mean_the_one_that_serves(
    two_hosts: str, command: Command, monkeypatch: pytest.MonkeyPatch, keyless: None
) -> None:
    """To the client, the command line and the migrations alike."""
    monkeypatch.setenv("CALLGATE_DATABASE_URL", two_hosts)
    migrate(two_hosts)
    with Client.from_env() as client:
        assert list(client.ledger.read([CallKey(uuid4(), 1)])) == [None]
    assert command("doctor", "--offline", "--json") == 0
    assert command("budgets", "show", "nobody") == 0
    assert command("migrate") == 0


def test_a_failover_needs_nobody(tmp_path: Path, services: DevServers) -> None:
    """The primary becomes read-only under open connections, the standby takes over: the next write goes there."""
    first = make_url(services.database_url)
    with DevServers(tmp_path / "other", fsync=False, valkey_persistence=False) as other:
        second = make_url(other.database_url)
        both = {url.port: create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
                for url in (first, second)}  # fmt: skip

        def on(port: int | None, statement: str) -> None:
            with both[port].connect() as connection:
                connection.execute(text("SET default_transaction_read_only = off"))
                connection.execute(text(statement))

        def read_only(port: int | None, state: str) -> None:
            on(port, f"ALTER SYSTEM SET default_transaction_read_only = {state}")
            on(port, "SELECT pg_reload_conf()")

        login = f"failing_over_{uuid4().hex[:8]}"
        url = f"postgresql://{login}:secret@127.0.0.1:{first.port},127.0.0.1:{second.port}/callgate"
        try:
            for port in both:
                on(port, f"CREATE ROLE {login} LOGIN PASSWORD 'secret'")
                on(port, f"CREATE TABLE scratch AS SELECT {port} AS n")
                on(port, f"GRANT ALL ON scratch TO {login}")
            read_only(second.port, "on")
            with closing(PostgresSession(url, pool_size=2)) as session:
                written_to = lambda: session.rows("UPDATE scratch SET n = n RETURNING n", {})[0].n  # noqa: E731
                assert written_to() == first.port
                read_only(second.port, "off")
                read_only(first.port, "on")
                # A server reads its configuration in its own time.
                until(lambda: written_to() == second.port)
        finally:
            on(first.port, "ALTER SYSTEM RESET default_transaction_read_only")
            on(first.port, "SELECT pg_reload_conf()")
            on(first.port, "DROP TABLE IF EXISTS scratch")
            on(first.port, f"DROP ROLE {login}")
            for engine in both.values():
                engine.dispose()


def test_options_of_the_url_are_obeyed_by_everything(
    services: DevServers,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    keyless: None,
) -> None:
    """A ledger in a schema of its own, for migrations, client and command line; without them it is not there."""
    url = make_url(services.database_url)
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as owner:
        owner.execute(text("CREATE DATABASE apart"))
        try:
            plain = url.set(database="apart").render_as_string(hide_password=False)
            own = f"{plain}?options=-csearch_path%3Dours"
            with closing(PostgresSession(plain)) as session:
                session.rows("CREATE SCHEMA ours", {})
            migrate(own)
            with Client(settings_of(own, services)) as client:
                client.ledger.submit([a_submission()])
                assert client.operations.snapshot().calls_by_state == {"queued": 1}
            monkeypatch.setenv("CALLGATE_DATABASE_URL", own)
            # The call waits, and no worker is there.
            assert command("doctor") == 1
            assert "OK   schema: migrated\n" in capsys.readouterr().out
            assert command("audit") == 0
            with closing(PostgresSession(plain)) as session, pytest.raises(NotMigrated):
                PostgresLedger(session).submit([a_submission()])
        finally:
            owner.execute(text("DROP DATABASE apart WITH (FORCE)"))


def test_a_schema_that_is_not_there_is_not_a_matter_of_migrating(services: DevServers) -> None:
    """The migration itself must not answer that it should be run."""
    plain = make_url(services.database_url).render_as_string(hide_password=False)

    with pytest.raises(ConfigurationError, match="CREATE SCHEMA first"):
        migrate(f"{plain}?options=-csearch_path%3Dnobodys")


def settings_of(url: str, services: DevServers) -> ClientSettings:
    """A client's settings."""
    return ClientSettings(database_url=url, broker_url=services.broker_url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:canary/x@h/n",
        "postgresql://u:12/canary@h/n",
        "postgresql://u:can@ary@h/n",
        "postgresql://u:canary%zz@h/n",
        "postgresql://u:a?b/canary@h/n",
        "postgresql://u:a?canary=b/c@h/n",
        "postgresql://u:canary[@h:x/n",
        "postgresql://h/n?canary",
    ],
)
def test_a_password_that_is_not_escaped_is_not_quoted(url: str) -> None:
    """The refusal says how it is escaped, and nothing of it."""
    with pytest.raises(Exception, match="%2F, @ %40") as refused:
        PostgresSession(url)

    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None
