"""
A full disk for the ledger, without filling the disk of the machine.

If this process may mount, the folder of the servers is a small tmpfs, and a ballast file fills it: writes fail with
ENOSPC. Otherwise the processes of Postgres get a file size limit (RLIMIT_FSIZE) that the largest table has just
reached: extending the table fails with EFBIG. Both are removed at the end of the fault.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devkit.servers.embedded import DevServers
from devkit.servers.server import Server, processes_tagged
from tests.support.deployment import Deployment

SMALL_BYTES = 160 * 1024 * 1024
FILE_MAX_BYTES = 16 * 1024 * 1024
"""The size of one WAL file: the WAL can still be written, so the server stays alive."""
PAGE_BYTES = 8 * 1024
BALLAST = "ballast"
MESSAGES = ("No space left on device", "File too large")

# Four rows fill a page.
FILL_TABLE = """
INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, call_type, provider, model,
                      input_token_bound, error, end_reason)
SELECT gen_random_uuid(), 1, 'filler', sha256('x'), 'rejected', 'filler', 'sim', 'sim-1', 0, repeat('x', 1850),
       'cancelled'
  FROM generate_series(1, :rows)
"""


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small disk on `folder` if this process may mount; yield whether it did."""
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
    """Fill the disk of the ledger inside the block; yield how. Restart Postgres afterwards if it has ended."""
    folder = services.postgres.program.folder
    if folder.parent.is_mount():
        with _ballast(folder.parent / BALLAST):
            yield f"tmpfs of {SMALL_BYTES >> 20} MiB, filled"
    else:
        _grow_table(deployment)
        with _capped_files(services.postgres):
            yield f"files of Postgres limited to {FILE_MAX_BYTES >> 20} MiB (RLIMIT_FSIZE)"
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


def disk_errors(services: DevServers) -> int:
    """Return how many disk errors Postgres has logged since its start."""
    log = services.postgres.program.log.read_text(errors="replace")
    return sum(log.count(words) for words in MESSAGES)


def _grow_table(deployment: Deployment) -> None:
    """Fill the table of calls to just below the limit, with rejected calls."""
    rows = 2_000
    while rows:
        (size,) = deployment.rows("SELECT pg_relation_size('llm_call')")[0]
        rows = max(0, FILE_MAX_BYTES - 4 * PAGE_BYTES - size) // PAGE_BYTES * 4
        deployment.rows(FILL_TABLE, rows=rows)


@contextmanager
def _capped_files(server: Server) -> Iterator[None]:
    _limit_files(server, str(FILE_MAX_BYTES))
    try:
        yield
    finally:
        _limit_files(server, "unlimited")


def _limit_files(server: Server, limit: str) -> None:
    """Set the soft limit of every process of the server. Its own account may do so without privileges."""
    account = server.program.account
    for pid in (process.pid for process in processes_tagged(server.program.process_tag)):
        done = subprocess.run(  # noqa: S603
            ["prlimit", "--pid", str(pid), f"--fsize={limit}:"],  # noqa: S607
            capture_output=True,
            check=False,
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
        # The process of a session may have ended since it was found.
        assert done.returncode == 0 or not Path(f"/proc/{pid}").exists(), done.stderr.decode()
