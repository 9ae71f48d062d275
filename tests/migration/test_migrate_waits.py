"""A migration beside clients that keep transactions open: it says whom it waits for, gives up, and can be run again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

import worker.migrate
from callgate.adapters.postgres.roles import CLIENT
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tenants import PostgresTenants
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.tenants import Tenant
from devkit.servers.embedded import DevServers
from tests.support.logins import a_client, a_login, name_of
from tests.support.tables import open_connection
from worker.migrate import migrate

LIMITS = """SELECT coalesce(array_agg(split_part(line, '=', 1) ORDER BY 1), '{}') FROM pg_db_role_setting s
  JOIN pg_roles r ON r.oid = s.setrole JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) line
 WHERE r.rolname = :login AND d.datname = current_database()"""


@contextmanager
def reading(url: str) -> Iterator[None]:
    """A client that has looked at its calls, and leaves the transaction open."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        connection.commit()
        connection.execute(text("SELECT * FROM callgate_costs_v1(NULL)")).all()
        yield
        connection.rollback()


def limits_of(owner_url: str, login: str) -> list[str]:
    """The limits that a login has in this database."""
    with create_engine(owner_url, poolclass=NullPool).connect() as connection:
        return list(connection.execute(text(LIMITS), {"login": login}).scalar_one())


def test_a_migration_says_whom_it_waits_for_and_gives_up(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line; nothing was changed, and it passes when it is run again."""
    monkeypatch.setattr(worker.migrate, "LOCK_TIMEOUT_S", 1.5)
    migrate(empty_url)
    said: list[str] = []
    with closing(PostgresSession(empty_url)) as owner, a_client(owner, "acme") as url:
        login = name_of(url)
        with reading(url), pytest.raises(LedgerUnavailable) as raised:
            migrate(empty_url, "base", on_wait=said.append)
        assert owner.answers("SELECT count(*) AS n FROM tenant_login", {})[0].n == 1
        migrate(empty_url)

    (line,) = said
    assert f"is held by {login} (pid " in line
    assert "in a transaction for" in line
    assert f"is held by {login} (pid " in str(raised.value)
    assert "run it again" in str(raised.value)
    assert "\n" not in str(raised.value)
    migrate(empty_url, "base")


def test_a_login_that_was_granted_before_gets_its_limits(empty_url: str) -> None:
    """From the migration; from `tenants grant` at once; and what it has of its own stays."""
    migrate(empty_url)
    with closing(PostgresSession(empty_url)) as owner, a_client(owner, "acme") as url:
        login = name_of(url)
        granted = limits_of(empty_url, login)
        owner.rows(f"ALTER ROLE {login} IN DATABASE {make_url(empty_url).database} RESET ALL", {})
        owner.rows(f"ALTER ROLE {login} SET lock_timeout = '3s'", {})
        assert migrate(empty_url) == []
        migrated = limits_of(empty_url, login)

    limits = {"idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout"}
    assert limits <= set(granted)
    assert set(granted) - set(migrated) == {"lock_timeout"}


def test_a_client_that_forgets_its_transaction_is_ended(empty_url: str) -> None:
    """By default, after ten seconds; the session starts with the limit."""
    migrate(empty_url)
    shown = "SHOW idle_in_transaction_session_timeout"
    with (
        closing(PostgresSession(empty_url)) as owner,
        a_client(owner, "acme") as url,
        open_connection(url) as connection,
    ):
        assert connection.execute(text(shown)).scalar_one() == "10s"


def test_an_owner_that_may_not_alter_a_login_says_what_to_run(
    empty_url: str, services: DevServers
) -> None:
    """The grant stands; who may alter the login runs the statements."""
    with a_login(services.database_url) as ordinary, open_connection(empty_url) as admin:
        database = make_url(empty_url).database
        admin.execute(text(f"ALTER DATABASE {database} OWNER TO {name_of(ordinary)}"))
        admin.commit()
        own_url = make_url(ordinary).set(database=database).render_as_string(hide_password=False)
        migrate(own_url)
        with (
            closing(PostgresSession(own_url)) as owner,
            a_login(services.database_url, CLIENT) as client,
        ):
            login = name_of(client)
            to_run = PostgresTenants(owner).grant(Tenant(login, "acme"))
            assert to_run is not None
            assert f"ALTER ROLE {login} IN DATABASE {database} SET statement_timeout" in to_run
            of_client, of_owner = migrate(own_url)
            assert of_client.endswith(f"run this as a role that may alter the login: {to_run}")
            to_grant = f"GRANT pg_signal_backend TO {name_of(ordinary)}"
            assert of_owner.endswith(f"cannot be stopped yet; run this as a superuser: {to_grant}")
            admin.exec_driver_sql(f"{to_run}; {to_grant}")
            admin.commit()
            assert migrate(own_url) == []
        migrate(own_url, "base")
        admin.execute(text(f"REASSIGN OWNED BY {name_of(ordinary)} TO callgate"))
        admin.commit()
