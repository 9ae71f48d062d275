"""What the tests of the development servers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from devkit.servers.data_folder import process_tag_of
from devkit.servers.embedded import DevServers, Server
from devkit.servers.server import processes_tagged


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder after its first run. Its path has spaces and is too long for a socket."""
    name = "a path with spaces and some length " + "x" * 80
    folder = tmp_path_factory.mktemp("embedded") / name
    with DevServers(folder, fsync=False):
        return folder


@pytest.fixture
def embedded(folder: Path) -> Iterator[DevServers]:
    """Run both servers on a folder that was used before."""
    with DevServers(folder, fsync=False) as embedded:
        yield embedded


def query(embedded: DevServers, sql: str) -> list[Any]:
    """Run one statement in a new connection; return its rows, if it returns any."""
    with closing(connect(embedded)) as connection, connection:
        return fetch(connection, sql)


def connect(embedded: DevServers) -> Any:
    return psycopg2.connect(embedded.database_url.replace("+psycopg2", ""), connect_timeout=10)


def fetch(connection: Any, sql: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def pids_of(folder: Path) -> set[int]:
    """Return the ids of all processes of the servers in a data folder, also without an owner."""
    return {
        process.pid
        for name in ("postgres", "valkey")
        for process in processes_tagged(process_tag_of(folder / name))
    }


def password(embedded: DevServers) -> str:
    return embedded.database_url.partition("://callgate:")[2].partition("@")[0]


def urls(embedded: DevServers) -> set[str]:
    return {embedded.database_url, embedded.broker_url}


def servers(embedded: DevServers) -> list[Server]:
    return [embedded.postgres, embedded.valkey]
