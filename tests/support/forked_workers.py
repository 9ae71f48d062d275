"""
Start many Python processes cheaply: one process imports everything once, then forks children on demand.

    with ForkServer(folder) as fork_server:
        child = fork_server.fork("tests.chaos.killable_worker", environ, point="after_reserve")

A forked worker runs the same `run_worker` as `callgate worker` does, but starts in a third of a second instead of
three. The fork server has no threads and no connections when it forks. Its children die with it, and it dies with its
owner.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from tests.support.deployment import CHECKOUT, clean_environ, until
from tests.support.waiting import holds_within
from worker.tied_process import die_with

ROLES = (
    *("tests.chaos.killable_worker", "tests.chaos.client", "tests.chaos.budget_hammer"),
    *("tests.chaos.attacker", "tests.chaos.defective_worker"),
)
"""The modules whose `main(**spec) -> int` a child can run."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


class Child:
    """One forked process, as the test sees it."""

    def __init__(self, fork_server: ForkServer, pid: int, log: Path) -> None:
        self._fork_server = fork_server
        self.pid = pid
        self.log = log

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        return self._fork_server.codes.get(self.pid)

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.code is None

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if self.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL; return when it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait until it has ended; return its exit code."""
        until(lambda: self.code is not None, timeout_s, lambda: f"still alive:\n{self._tail()}")
        assert self.code is not None
        return self.code

    def until_it_says(self, words: str, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Wait until its output has these words."""
        until(
            lambda: words in self.output() or not self.is_alive(),
            timeout_s,
            lambda: f"no {words!r} in:\n{self._tail()}",
        )
        assert words in self.output(), f"ended with {self.code}:\n{self._tail()}"
        return self

    def _tail(self) -> str:
        return "\n".join(self.output().splitlines()[-40:])


class ForkServer:
    """The owner's side: asks for children, and learns when they end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.codes: dict[int, int] = {}
        self._pids: dict[int, int] = {}
        self._numbers = itertools.count()
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - the argument list is ours
            [sys.executable, "-m", "tests.support.forked_workers", *ROLES],
            cwd=CHECKOUT,
            env=clean_environ({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, name="fork-server", daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for child in self._children:
            child.send(signal.SIGKILL)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(STOP_TIMEOUT_S)
        self._listener.join(STOP_TIMEOUT_S)
        self._process.stdout.close()

    def fork(self, role: str, environ: Mapping[str, str], **spec: Any) -> Child:
        """Have a child run `main(**spec)` of a role, with these variables besides the usual ones."""
        number = next(self._numbers)
        log = self._folder / f"{role.rpartition('.')[2]}-{number}.log"
        # The child is known before it has opened its log, and may be asked for it.
        log.touch()
        order = {"number": number, "role": role, "environ": environ, "log": str(log), "spec": spec}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**order, "environ": dict(environ)}) + "\n")
        self._process.stdin.flush()
        until(
            lambda: number in self._pids, START_TIMEOUT_S, lambda: "the fork server forks nothing"
        )
        child = Child(self, self._pids[number], log)
        self._children.append(child)
        return child

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if "code" in event:
                self.codes[event["pid"]] = event["code"]
            else:
                self.codes.pop(event["pid"], None)
                self._pids[event["number"]] = event["pid"]


def main(roles: list[str]) -> None:
    """Fork a child per order on stdin until that is closed; then kill the children and end."""
    mains = {role: importlib.import_module(role).main for role in roles}
    assert threading.active_count() == 1, "a process with threads must not fork"
    alive: set[int] = set()
    orders = b""
    while True:
        _report_ended(alive)
        if not select.select([0], [], [], 0.01)[0]:
            continue
        if not (piece := os.read(0, 65_536)):
            break
        *lines, orders = (orders + piece).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = _fork(mains[order["role"]], order)
            alive.add(pid)
            _report({"number": order["number"], "pid": pid})
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    holds_within(STOP_TIMEOUT_S / 2, lambda: _report_ended(alive))


def _report_ended(alive: set[int]) -> bool:
    """Report the children that have ended; True if all have."""
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return False
        alive.discard(pid)
        _report({"pid": pid, "code": os.waitstatus_to_exitcode(status)})
    return True


def _report(event: dict[str, int]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _fork(run: Callable[..., int], order: dict[str, Any]) -> int:
    fork_server = os.getpid()
    if pid := os.fork():
        return pid
    code = 70
    try:
        die_with(fork_server)
        _become(order)
        code = run(**order["spec"])
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _become(order: dict[str, Any]) -> None:
    """Give the child its own input, output, environment and process group, which Ctrl-C does not reach."""
    os.setpgrp()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environ"])


if __name__ == "__main__":
    main(sys.argv[1:])
