"""Child processes of tests: started in the checkout, their output in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from uuid import uuid4

from tests.support.waiting import until

CHECKOUT = Path(__file__).parents[2]
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0


class Process:
    """A child process with its output in a file."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        folder: Path,
        *,
        cwd: Path = CHECKOUT,
        user: str | None = None,
    ) -> None:
        self.log = folder / f"{name}-{uuid4().hex[:8]}.log"
        with self.log.open("wb") as output:
            self._child = subprocess.Popen(  # noqa: S603 - the argument list is ours
                argv,
                cwd=cwd,
                env=clean_environ(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=user,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def is_alive(self) -> bool:
        """True until it has ended."""
        return self.code is None

    def until_it_says(self, text: str, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Wait until its output contains a text."""
        until(
            lambda: text in self.output() or not self.is_alive(),
            timeout_s,
            lambda: f"no {text!r} in:\n{self.output()}",
        )
        assert text in self.output(), f"ended with {self.code}:\n{self.output()}"
        return self

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._child.send_signal(number)

    def freeze(self) -> None:
        """Stop it with SIGSTOP; return when all its threads have stopped, which takes time on a busy machine."""
        self.send(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")
        until(lambda: all(_state(thread / "stat") in "Tt" for thread in threads.iterdir()))

    def kill(self) -> None:
        """Kill it with SIGKILL; return when it has ended."""
        self._child.kill()
        self._child.wait(STOP_TIMEOUT_S)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait until it has ended; return its exit code."""
        return self._child.wait(timeout_s)

    def stop(self) -> int:
        """Stop it with SIGTERM; return its exit code."""
        self.send(signal.SIGTERM)
        return self.wait()


def _state(stat: Path) -> str:
    return stat.read_text().rpartition(")")[2].split()[0]


def worker_argv(role: str = "all") -> list[str]:
    """Return the command line of a worker process."""
    return [sys.executable, "-m", "callgate", "worker", "--queues", role]


def clean_environ(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with `changes`, and without callgate's other variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CALLGATE_", "OPENAI_"))}
    return {**kept, **changes}
