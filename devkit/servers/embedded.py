"""
A real PostgreSQL 18 and a real Valkey 9 in a data folder, as child processes of this one.

For `callgate demo`, `callgate up` and the tests: the code runs against what it runs against in production, with
nothing to install but the `embedded` extra. Linux only.

    <data folder>/lock        held while an `Embedded` runs here; like all here, its owner's alone, whatever the umask
                  password    of the database role, readable by the servers' account alone
                  postgres/   postgres.log   postgres.port
                  valkey/     valkey.log     valkey.port

As root, both servers run as `nobody`, because PostgreSQL refuses to run as root. Data stays in the folder that was
asked for: where `nobody` may not enter it or the programs (a clone under root's home, say), the servers keep one
capability for that (CAP_DAC_OVERRIDE, which opens every other file to them too).

Warning: not for production. Both listen on loopback only; PostgreSQL asks for a password, Valkey does not.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from devkit.servers.data_folder import account_for, held, package_folder
from devkit.servers.postgres import postgres_binary, start_postgres
from devkit.servers.server import DevServersError, FolderInUse, Server, ServerFailed
from devkit.servers.valkey import start_valkey, valkey_binary

__all__ = ["DevServers", "DevServersError", "FolderInUse", "Server", "ServerFailed"]


class DevServers:
    """
    Runs both servers inside a `with`. What they store is there for the next one on the same folder.

    Args:
        data_dir: Made if missing. One `Embedded` at a time; others may run beside it in other folders.
        fsync: False makes PostgreSQL faster, and its data may be lost when the machine (not the server)
            goes down. For tests.
        valkey_persistence: False keeps Valkey's data in memory only.

    Raises on entering:
        FolderInUse: another `Embedded` runs in `data_dir`.
        ServerFailed: a server did not start; carries the end of its log.
        EmbeddedError: a package is missing, or the folder cannot be used.
    """

    postgres: Server
    valkey: Server
    database_url: str
    """For SQLAlchemy. Holds the password; the same from run to run unless the port was taken."""
    broker_url: str
    """For Celery. The same from run to run unless the port was taken."""

    def __init__(
        self, data_dir: Path | str, *, fsync: bool = True, valkey_persistence: bool = True
    ) -> None:
        self._folder = Path(data_dir).absolute()
        self._fsync = fsync
        self._valkey_persistence = valkey_persistence
        self._running = ExitStack()

    def __enter__(self) -> Self:
        if sys.platform != "linux":
            raise DevServersError(
                "the embedded servers run on Linux only; give the URLs of your own"
            )
        package_folder("psutil", extra="embedded")
        with ExitStack() as stack:
            stack.enter_context(held(self._folder))
            account = account_for(self._folder, postgres_binary(), valkey_binary())
            valkey = start_valkey(self._folder, account, persistence=self._valkey_persistence)
            self.valkey, self.broker_url = stack.enter_context(valkey)
            postgres = start_postgres(self._folder, account, fsync=self._fsync)
            self.postgres, self.database_url = stack.enter_context(postgres)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._running.close()
