"""No process outlives the test process that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT
from tests.support.waiting import until

OWNER = """
import subprocess, sys, time
from tests.support.guardian import Guardian

guardian = Guardian()
sleeper = ["sleep", "1000"]
child = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(1000)"
with subprocess.Popen([sys.executable, "-c", child, *sleeper], start_new_session=True) as started:
    print(started.pid, flush=True)
    sys.stdin.read()
    guardian.end()
"""


@pytest.mark.parametrize("ending", ["is killed", "is terminated", "ends"])
def test_what_a_test_process_has_started_ends_with_it(ending: str) -> None:
    """A child in a session of its own, and the child's child."""
    owner = subprocess.Popen(  # noqa: S603 - the program above
        [sys.executable, "-c", OWNER],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        started = [int(owner.stdout.readline()) for _ in range(2)]
        assert all(map(is_running, started))

        if ending == "ends":
            owner.stdin.close()
        else:
            owner.send_signal(signal.SIGKILL if ending == "is killed" else signal.SIGTERM)
        try:
            until(lambda: not any(map(is_running, started)))
        finally:
            owner.kill()


def is_running(pid: int) -> bool:
    """False also for one that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
