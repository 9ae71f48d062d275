"""An empty database for each test of migrations."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from devkit.servers.embedded import DevServers


@pytest.fixture
def empty_url(services: DevServers) -> Iterator[str]:
    """A new database on the server of this run, dropped afterwards."""
    name = f"empty_{uuid4().hex[:12]}"
    admin = create_engine(services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = make_url(services.database_url).set(database=name)
    yield url.render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
