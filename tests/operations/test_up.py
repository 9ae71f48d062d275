"""`callgate up`: one command runs servers, worker and dashboard for development."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from devkit.servers.ports import free_port
from devkit.simulator.simulator import Simulator
from tests.support.callgate_process import REQUEST, ROOT, RUN_TIMEOUT_S, UP_TIMEOUT_S, connects
from tests.support.waiting import until


class Up:
    """A running `callgate up`."""

    def __init__(self, folder: Path, environ: dict[str, str], *options: str) -> None:
        self.folder = folder
        self.data_dir = folder / ".callgate"
        self.environ = environ
        self.errors = folder / "up.err"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - the command under test
                [sys.executable, "-m", "callgate", "up", *options],
                env=environ,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def banner(self) -> dict[str, str]:
        """What it prints once, when its children have been started."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        assert lines, self.errors.read_text()
        return dict(json.loads("".join(lines)))

    def callgate(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command beside it that finds the services by CALLGATE_EMBEDDED=1."""
        return subprocess.run(  # noqa: S603 - the command under test
            [sys.executable, "-m", "callgate", *arguments],
            env={**self.environ, "CALLGATE_EMBEDDED": "1"},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )

    def children(self) -> dict[int, str]:
        """The processes it started, and those that they started, by their command lines."""
        found: dict[int, str] = {}
        parents = {pid: ppid for pid, ppid, _ in processes()}
        for pid, _, command in processes():
            above = pid
            while above in parents and above != self.process.pid:
                above = parents[above]
            if above == self.process.pid != pid:
                found[pid] = command
        return found

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(UP_TIMEOUT_S)


def processes() -> Iterator[tuple[int, int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                ppid = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                yield int(entry.name), int(ppid), command


@pytest.fixture
def provider() -> Iterator[Simulator]:
    """A provider that answers everything."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(params=["--json"])
def up(request: pytest.FixtureRequest, provider: Simulator, tmp_path: Path) -> Iterator[Up]:
    """`callgate up` in a folder of its own, with a worker that calls the simulator. Its output is JSON, unless `""`."""
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(f'[providers.openai]\nbase_url = "{provider.base_url}"\n')
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CALLGATE_CATALOGUE": str(catalogue),
        "CALLGATE_WORKER__CREDENTIALS__OPENAI": "any",
        "CALLGATE_WORKER__FLOWER_PORT": str(free_port()),
    }
    running = Up(tmp_path, environ, *filter(None, [request.param]))
    yield running
    if running.process.poll() is None:
        running.stop()
    assert running.process.stdout is not None
    running.process.stdout.close()


def test_up_runs_calls_until_ctrl_c(up: Up, provider: Simulator) -> None:
    """One command gives services, worker and dashboard; Ctrl-C leaves nothing behind."""
    banner = up.banner()
    until(
        lambda: connects(banner["flower_url"]), UP_TIMEOUT_S, lambda: "waited too long for Flower"
    )

    budget = up.callgate("budgets", "set", "acme", "--daily-usd", "5")
    submitted = up.callgate("submit", "--file", "-", "--json", stdin=json.dumps(REQUEST))
    second = up.callgate("up")
    children = up.children()
    code = up.stop()

    assert budget.returncode == 0
    assert submitted.returncode == 0, submitted.stderr + up.errors.read_text()
    assert json.loads(submitted.stdout)["attempts"] == 1
    assert provider.counts().total == 1
    assert second.returncode == 2
    assert "is in use by process" in second.stderr
    assert any("callgate worker" in command for command in children.values())
    assert any("callgate flower" in command for command in children.values())
    assert code == 0
    assert children.keys().isdisjoint(pid for pid, _, _ in processes())
    assert not (up.data_dir / "env").exists()


def test_up_starts_a_worker_again_that_was_killed(up: Up) -> None:
    """Development goes on after a crash."""
    up.banner()
    killed = worker_pid(up)
    assert killed is not None

    os.kill(killed, signal.SIGKILL)
    until(
        lambda: worker_pid(up) not in (None, killed),
        UP_TIMEOUT_S,
        lambda: "waited too long for another worker",
    )

    assert up.stop(signal.SIGTERM) == 0


def test_no_child_outlives_an_up_that_was_killed(up: Up) -> None:
    """The kernel ends them, so that a next `up` finds the folder free."""
    up.banner()
    children = up.children()

    up.stop(signal.SIGKILL)
    until(
        lambda: children.keys().isdisjoint(pid for pid, _, _ in processes()),
        UP_TIMEOUT_S,
        lambda: "waited too long for all to end",
    )

    assert len(children) >= 4


@pytest.mark.parametrize("up", [""], indirect=True)
def test_its_first_words_have_no_password_and_each_line_has_its_process(up: Up) -> None:
    """A line of the worker is told from one of Flower, and what is printed can be shown to anybody."""
    assert up.process.stdout is not None
    until(lambda: "ready." in up.errors.read_text(), UP_TIMEOUT_S, up.errors.read_text)
    exported = (up.data_dir / "env").read_text()
    password = exported.partition("://")[2].partition(":")[2].partition("@")[0]

    assert up.stop() == 0

    banner, lines = up.process.stdout.read(), up.errors.read_text().splitlines()
    assert "callgate is up. Dashboard: http://127.0.0.1:" in banner
    assert "    . .callgate/env\n" in banner
    assert len(password) > 20
    assert password not in banner + "".join(lines)
    (stopping,) = [line for line in lines if line.startswith("stopping when the calls in flight")]
    others = [line for line in lines if line and line != stopping]
    assert {line.partition(" | ")[0] for line in others} == {"worker", "flower"}
    assert not [line for line in others if "Traceback" in line or "superuser" in line]
    assert any("ready." in line for line in others if line.startswith("worker | "))


def worker_pid(up: Up) -> int | None:
    return next((pid for pid, c in up.children().items() if c.endswith("callgate worker ")), None)
