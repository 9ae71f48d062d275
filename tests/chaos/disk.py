"""
A full disk for the ledger, without filling the machine's.

Where this process may mount, the servers' folder is a small tmpfs and a ballast file takes what is left of it: writes
fail with ENOSPC. Elsewhere Postgres's processes get a limit on the size of files (RLIMIT_FSIZE) that its largest table
has just reached: extending it fails with EFBIG. Both need no help from Postgres and end when the harm is taken back.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devkit.servers.embedded import DevServers
from devkit.servers.server import Server, marked_pids
from tests.support.deployment import Deployment

SMALL_BYTES = 160 * 1024 * 1024
FILE_BYTES_MAX = 16 * 1024 * 1024
"""The size of one WAL file: what is written ahead still fits, so that the server lives."""
PAGE_BYTES = 8 * 1024
BALLAST = "ballast"
COMPLAINTS = ("No space left on device", "File too large")

# Four rows leave no room for a fifth in their page.
FILL_TABLE = """
INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, call_type, provider, model,
                      input_token_bound, error, end_reason)
SELECT gen_random_uuid(), 1, 'filler', sha256('x'), 'rejected', 'filler', 'sim', 'sim-1', 0, repeat('x', 1850),
       'cancelled'
  FROM generate_series(1, :rows)
"""


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make `folder` a small disk of its own if this process may mount; say whether it did."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={SMALL_BYTES},mode=755"
    mount = subprocess.run(  # noqa: S603
        ["mount", "-t", "tmpfs", "-o", options, "callgate-chaos", str(folder)],  # noqa: S607
        capture_output=True,
        check=False,
    )
    if mount.returncode != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607


@contextmanager
def fill_disk(services: DevServers, deployment: Deployment) -> Iterator[str]:
    """Leave no room for the ledger's files inside the block; say how. Postgres is started again if it gave up."""
    folder = services.postgres.program.folder
    if folder.parent.is_mount():
        with _ballast(folder.parent / BALLAST):
            yield f"tmpfs of {SMALL_BYTES >> 20} MiB, filled"
    else:
        _grow_table(deployment)
        with _capped_files(services.postgres):
            yield f"files of Postgres limited to {FILE_BYTES_MAX >> 20} MiB (RLIMIT_FSIZE)"
    services.postgres.start()


@contextmanager
def _ballast(file: Path) -> Iterator[None]:
    zeros = bytes(1024 * 1024)
    try:
        with file.open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(zeros)
        yield
    finally:
        file.unlink()


def refusals(services: DevServers) -> int:
    """How often Postgres has complained of its disk since it was started."""
    log = services.postgres.program.log.read_text(errors="replace")
    return sum(log.count(words) for words in COMPLAINTS)


def _grow_table(deployment: Deployment) -> None:
    """Fill the table of calls to just below the limit, with calls that were rejected long ago."""
    rows = 2_000
    while rows:
        (size,) = deployment.rows("SELECT pg_relation_size('llm_call')")[0]
        rows = max(0, FILE_BYTES_MAX - 4 * PAGE_BYTES - size) // PAGE_BYTES * 4
        deployment.rows(FILL_TABLE, rows=rows)


@contextmanager
def _capped_files(server: Server) -> Iterator[None]:
    _limit_files(server, str(FILE_BYTES_MAX))
    try:
        yield
    finally:
        _limit_files(server, "unlimited")


def _limit_files(server: Server, limit: str) -> None:
    """Set the soft limit of every process of the server, as its own account, which needs no privilege for that."""
    account = server.program.account
    for pid in marked_pids("postgres", server.program.mark):
        done = subprocess.run(  # noqa: S603
            ["prlimit", "--pid", str(pid), f"--fsize={limit}:"],  # noqa: S607
            capture_output=True,
            check=False,
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
        # A session may end between the look and the call.
        assert done.returncode == 0 or not Path(f"/proc/{pid}").exists(), done.stderr.decode()
