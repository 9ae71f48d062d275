"""
Ends what a test process has started, when that process has ended, also if it was killed.

Children carry a word in their environment, and so do theirs. Postgres and Valkey do not: they die with their owner. A
process of xdist carries the word of the process that started it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

VARIABLE = "TEST_PROCESS"
PR_SET_PDEATHSIG = 1
SWEEPS_MAX = 20
STOP_TIMEOUT_S = 20.0


class Guardian:
    """The owner's side: a process that waits for the end of this one."""

    def __init__(self) -> None:
        word = f"{VARIABLE}={uuid4().hex}"
        argv = [sys.executable, "-I", "-S", __file__, str(os.getpid()), word]
        # It inherits the mask, so that SIGTERM waits until it has started.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        # A session of its own: Ctrl-C must not end it first.
        self._process = subprocess.Popen(argv, start_new_session=True)  # noqa: S603 - our own file
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.environ[VARIABLE] = word.partition("=")[2]

    def end(self) -> None:
        """End what still runs, and the guardian."""
        self._process.terminate()
        self._process.wait(STOP_TIMEOUT_S)


def main(owner_pid: int, word: str) -> None:
    """Wait for the owner's end, or for SIGTERM, which is blocked; then kill what carries the word."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == owner_pid:
        signal.sigwait({signal.SIGTERM})
    # One that is killed may have started another one meanwhile.
    for _ in range(SWEEPS_MAX):
        carriers = list(_carriers(word.encode()))
        if not carriers:
            break
        for pid in carriers:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _carriers(word: bytes) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        # Those that have ended have no environment; those of other accounts are not ours.
        with suppress(OSError):
            if folder.name.isdigit() and word in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
