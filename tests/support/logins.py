# ruff: noqa: S608 - the names in the statements are ours
"""Logins of the database roles, as an administrator creates them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.roles import CLIENT
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tenants import PostgresTenants
from callgate.domain.tenants import Tenant


@contextmanager
def a_login(owner_url: str, *roles: str, options: str = "") -> Iterator[str]:
    """The URL of a login in some roles. It is dropped afterwards."""
    name, password = f"login_{uuid4().hex[:12]}", uuid4().hex
    owner = create_engine(owner_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def run(statement: str) -> None:
        with owner.connect() as connection:
            connection.execute(text(statement))

    members = f" IN ROLE {', '.join(roles)}" if roles else ""
    run(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' {options}{members}")
    try:
        url: URL = make_url(owner_url).set(username=name, password=password)
        yield url.render_as_string(hide_password=False)
    finally:
        run(f"DELETE FROM tenant_login WHERE login = '{name}'")
        run(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{name}'"
        )
        run(f"DROP OWNED BY {name}")
        run(f"DROP ROLE {name}")
        owner.dispose()


@contextmanager
def a_client(owner: PostgresSession, org: str) -> Iterator[str]:
    """The URL of a login that acts for one organisation."""
    with a_login(owner_url(owner), CLIENT) as url:
        PostgresTenants(owner).grant(Tenant(name_of(url), org))
        yield url


def owner_url(owner: PostgresSession) -> str:
    """The owner's URL, password and all."""
    return owner.url


def name_of(url: str) -> str:
    """The login of a URL."""
    return str(make_url(url).username)
