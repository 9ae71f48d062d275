"""
An upgrade from the recorded release and back, as docs/howto/upgrade.md says: processes of both on one ledger.

The old code runs from `git archive`, in this environment.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Rule, Simulator, Step
from tests.support.processes import CHECKOUT, Process, clean_environ, worker_argv

RELEASE = CHECKOUT / "tests" / "migration" / "previous_release.txt"
CALLS = 20
COMMAND_TIMEOUT_S = 90
CATALOGUE = """
[providers.sim]
base_url = "{base_url}"
needs_key = false

[[prices]]
provider = "sim"
model = "sim-1"
input_usd_per_million = 1
output_usd_per_million = 2
source = "made up, for tests"
as_of = 2026-11-01
"""
PIPELINE = """
import sys
from callgate import Client, LLMRequest, Message
first, count = map(int, sys.argv[1:])
client = Client.from_env()
handles = client.submit_many([
    LLMRequest(org_id="acme", call_type="answer", provider="sim", model="sim-1", max_output_tokens=50,
               messages=[Message(role="user", content=f"question {n}")])
    for n in range(first, first + count)
])
print("submitted", flush=True)
print("done", sum(1 for handle in client.as_completed(handles, timeout=90) if handle.get(timeout=9).text))
client.close()
"""


class Release:
    """The processes of one version."""

    def __init__(self, code: Path, environ: dict[str, str], folder: Path, stack: ExitStack) -> None:
        self._code, self._environ, self._folder, self._stack = code, environ, folder, stack

    def start(self, name: str, argv: list[str]) -> Process:
        """Start a process, which is killed at the end."""
        process = Process(name, argv, self._environ, self._folder, cwd=self._code)
        self._stack.callback(process.kill)
        return process

    def worker(self) -> Process:
        """Start a worker; return when it is ready."""
        return self.start("worker", worker_argv()).until_it_says("ready.")

    def submit(self, first: int) -> Process:
        """Start a pipeline; return when it has submitted its calls."""
        argv = [sys.executable, "-c", PIPELINE, str(first), str(CALLS)]
        return self.start("pipeline", argv).until_it_says("submitted")

    def command(self, *words: str) -> str:
        """Run a command of callgate."""
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "callgate", *words],
            cwd=self._code,
            env=clean_environ(self._environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the recorded release."""
    folder = tmp_path_factory.mktemp("release")
    (line,) = [ln for ln in RELEASE.read_text().splitlines() if not ln.startswith("#")]
    git, archive = shutil.which("git") or "git", folder / "code.tar"
    subprocess.run(  # noqa: S603 - our own commit
        [git, "-C", CHECKOUT, "archive", "--output", archive, line.split()[1]], check=True
    )
    shutil.unpack_archive(archive, folder / "code", filter="data")
    return folder / "code"


@pytest.fixture
def releases(old_code: Path, tmp_path: Path) -> Iterator[tuple[Release, Release, Simulator]]:
    """The old and the new version, on the same empty servers."""
    with ExitStack() as stack:
        servers = stack.enter_context(
            DevServers(tmp_path / "data", fsync=False, valkey_persistence=False)
        )
        provider = stack.enter_context(Simulator())
        catalogue = tmp_path / "catalogue.toml"
        catalogue.write_text(CATALOGUE.format(base_url=provider.base_url))
        environ = {
            "CALLGATE_DATABASE_URL": servers.database_url,
            "CALLGATE_BROKER_URL": servers.broker_url,
            "CALLGATE_CATALOGUE": str(catalogue),
        }
        new = {**environ, "CALLGATE_WORKER__STATUS_PORT": "0"}
        yield (
            Release(old_code, environ, tmp_path, stack),
            Release(CHECKOUT, new, tmp_path, stack),
            provider,
        )


def all_done(pipeline: Process) -> None:
    """Wait until every call of a pipeline has its answer."""
    pipeline.until_it_says(f"done {CALLS}")


@pytest.mark.timeout(600)
def test_workers_are_replaced_one_by_one_and_back(
    releases: tuple[Release, Release, Simulator],
) -> None:
    """While calls are under way; each is sent once, and no money is lost."""
    old, new, provider = releases
    provider.script([Rule(reply=[Step(latency_s=1.0)])])
    old.command("migrate")
    old.command("budgets", "set", "acme", "--daily-usd", "100")
    old_worker = old.worker()

    under_way = old.submit(0)
    new.command("migrate")
    all_done(under_way)

    under_way = old.submit(CALLS)
    new_worker = new.worker()
    assert old_worker.stop() == 0
    all_done(under_way)
    all_done(new.submit(2 * CALLS))

    under_way = new.submit(3 * CALLS)
    old_worker = old.worker()
    assert new_worker.stop() == 0
    all_done(under_way)
    all_done(old.submit(4 * CALLS))

    assert provider.counts().total == 5 * CALLS
    assert json.loads(new.command("unknown", "list", "--json")) == []
    new.command("audit")
    old.command("audit")
