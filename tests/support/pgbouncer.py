"""Debian's PgBouncer in transaction mode, run as an ordinary user in front of one Postgres."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
from sqlalchemy import make_url

from devkit.servers.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import until

SERVER_CONNECTIONS = 2
"""Fewer than clients, so that every one of them meets sessions that others have used."""
CONFIG = """
[databases]
{database} = host={host} port={port} dbname={database}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
"""


@contextmanager
def a_pooler(database_url: str, folder: Path) -> Iterator[str]:
    """Run a pooler; yields the database's URL by way of it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "no pgbouncer on this machine: run `make test-system`"
    url = make_url(database_url)
    port = free_port()
    users = folder / "users.txt"
    users.write_text(f'"{url.username}" "{url.password}"\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        CONFIG.format(
            database=url.database, host=url.host, port=url.port, own_port=port, users=users,
            size=SERVER_CONNECTIONS,
        )
    )  # fmt: skip
    pooled = url.set(port=port).render_as_string(hide_password=False)
    # PgBouncer refuses to run as root, and other accounts cannot read the files of root.
    for path in (users, config):
        path.chmod(0o644)
    user = "nobody" if os.getuid() == 0 else None
    process = Process("pgbouncer", [program, str(config)], {}, folder, user=user)
    try:
        until(lambda: _answers(pooled) or not process.is_alive())
        assert process.is_alive(), process.output()
        yield pooled
    finally:
        process.kill()


def _answers(url: str) -> bool:
    try:
        psycopg2.connect(url.replace("+psycopg2", "")).close()
    except psycopg2.OperationalError:
        return False
    return True
