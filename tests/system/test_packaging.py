"""The two distributions, each in an environment without the checkout: what users install."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import callgate
from devkit.servers.embedded import DevServers
from tests.support.callgate_process import REQUEST, ROOT, RUN_TIMEOUT_S

INSTALL_TIMEOUT_S = 300.0
UV = (sys.executable, "-m", "uv")
OF_WORKERS = ("worker", "migrate", "flower")
CLIENT_MAX_BYTES = 80_000_000
IMPORT_RATIO_MAX = 1.7
IMPORTS = 9
NONE: Mapping[str, str] = {}

LOADED = """
import sys
before = set(sys.modules)
import callgate
callgate.Client
own = {"callgate", *sys.stdlib_module_names}
print(*(name for name in sys.modules if name not in before and name.partition(".")[0] not in own))
"""
LOAD = """
import importlib, sys, time
began_s = time.process_time()
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError:
        pass  # a module that another one makes
print(time.process_time() - began_s)
"""
CLIENT = """
import time
began_s = time.process_time()
import callgate
callgate.Client
print(time.process_time() - began_s)
"""
SUBMIT = """
from callgate import Client, LLMRequest, Message
with Client.from_env() as client:
    message = Message(role="user", content="Hello " * 1_000)
    handle = client.submit(LLMRequest(org_id="acme", call_type="letters", provider="openai", model="gpt-4o-mini",
        messages=[message], max_output_tokens=5))
    print(handle.state)
"""

pytestmark = pytest.mark.timeout(2 * INSTALL_TIMEOUT_S)


def run(
    *command: str | Path,
    cwd: Path,
    timeout_s: float = RUN_TIMEOUT_S,
    variables: Mapping[str, str] = NONE,
) -> subprocess.CompletedProcess[str]:
    """Run a command outside the checkout."""
    environ = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "UV_CACHE_DIR", "SSL_CERT_FILE")
        if name in os.environ
    }
    return subprocess.run(  # noqa: S603 - the commands are ours
        command,
        cwd=cwd,
        env={**environ, **variables},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def ran(
    *command: str | Path,
    cwd: Path,
    timeout_s: float = RUN_TIMEOUT_S,
    variables: Mapping[str, str] = NONE,
) -> str:
    """The output of a command that succeeds."""
    done = run(*command, cwd=cwd, timeout_s=timeout_s, variables=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of both distributions."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "packaging" / "worker"):
        ran(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=project)
    return folder


def installed(folder: Path, lock: str, wheels: list[Path]) -> Path:
    """The programs of a new environment with locked dependencies and wheels."""
    python = folder / "venv" / "bin" / "python"
    ran(*UV, "venv", "--python", sys.executable, folder / "venv", cwd=folder)
    install = (*UV, "pip", "install", "--python", python, "--no-deps")
    requirements = ROOT / "requirements" / lock
    ran(
        *(*install, "--require-hashes", "-r", requirements),
        cwd=folder,
        timeout_s=INSTALL_TIMEOUT_S,
    )
    ran(*install, *wheels, cwd=folder)
    # The lock was installed without asking the wheels.
    ran(*UV, "pip", "check", "--python", python, cwd=folder)
    return python.parent


@pytest.fixture(scope="module")
def client(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the client alone."""
    return installed(
        tmp_path_factory.mktemp("client"), "client.txt", list(wheels.glob("callgate-*.whl"))
    )


@pytest.fixture(scope="module")
def worker(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment of the worker."""
    return installed(
        tmp_path_factory.mktemp("worker"), "production.txt", list(wheels.glob("*.whl"))
    )


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServers]:
    """Servers with an empty database."""
    with DevServers(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


def test_both_have_the_version_of_the_checkout(client: Path, worker: Path) -> None:
    for programs in (client, worker):
        assert ran(programs / "callgate", "--version", cwd=programs) == (
            f"callgate {callgate.__version__}\n"
        )


def commands_of(programs: Path) -> set[str]:
    """The commands that an installed `callgate` lists."""
    out = ran(programs / "callgate", "--help", cwd=programs)
    return {line.strip("│ ").split(" ")[0] for line in out.splitlines()}


def test_each_lists_the_commands_that_it_has(client: Path, worker: Path) -> None:
    everywhere = {"submit", "calls", "budgets", "dead-letters", "doctor"}

    assert everywhere <= commands_of(client)
    assert commands_of(client).isdisjoint({*OF_WORKERS, "up", "demo"})
    assert {*everywhere, *OF_WORKERS, "up", "demo"} <= commands_of(worker)


@pytest.mark.parametrize("command", [(*OF_WORKERS, "up", "demo")[n] for n in range(5)])
def test_the_client_says_where_a_command_of_the_worker_is(client: Path, command: str) -> None:
    """In one line, with the words that install it; whatever options are given."""
    done = run(client / "callgate", command, "--queues", "call", cwd=client)

    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "uv tool install 'callgate-worker" in line


def test_packages_of_others_add_no_commands(client: Path, tmp_path: Path) -> None:
    """`worker` is a name that others use too."""
    (package,) = (client.parent / "lib").glob("python*/site-packages")
    other = package / "worker"
    other.mkdir()
    try:
        (other / "cli.py").write_text("raise SystemExit(9)\n")
        assert "doctor" in commands_of(client)
    finally:
        (other / "cli.py").unlink()
        other.rmdir()


def test_the_client_is_small(client: Path) -> None:
    """Without bytecode, which pip adds and uv does not."""
    files = (client.parent / "lib").rglob("*")
    sizes = [f.stat().st_size for f in files if f.is_file() and f.suffix != ".pyc"]

    assert sum(sizes) <= CLIENT_MAX_BYTES


def test_the_import_costs_little_more_than_its_libraries(client: Path) -> None:
    """CPU time, beside that of importing the modules of others that the client loads."""
    python = client / "python"
    modules = ran(python, "-I", "-c", LOADED, cwd=client).split()
    pairs = [
        (
            float(ran(python, "-I", "-c", CLIENT, cwd=client)),
            float(ran(python, "-I", "-c", LOAD, *modules, cwd=client)),
        )
        for _ in range(IMPORTS + 1)
    ][1:]

    own, libraries = (statistics.median(times) for times in zip(*pairs, strict=True))
    assert own <= IMPORT_RATIO_MAX * libraries


def urls_of(servers: DevServers) -> dict[str, str]:
    """The variables of a client."""
    return {
        "CALLGATE_DATABASE_URL": servers.database_url,
        "CALLGATE_BROKER_URL": servers.broker_url,
    }


def test_a_client_works_on_a_ledger_that_the_worker_migrated(
    client: Path, worker: Path, servers: DevServers
) -> None:
    """Before the migration the client says so; without a tokenizer it stores no bound."""
    urls = urls_of(servers)
    for to in ("head", "base"):
        # Another test may have migrated it.
        ran(worker / "callgate", "migrate", "--to", to, "--yes", cwd=worker, variables=urls)
    early = run(client / "python", "-I", "-c", SUBMIT, cwd=client, variables=urls)
    assert "NotMigrated" in early.stderr

    ran(worker / "callgate", "migrate", cwd=worker, variables=urls)
    ran(
        client / "callgate",
        "budgets",
        "set",
        "acme",
        "--daily-usd",
        "5",
        cwd=client,
        variables=urls,
    )

    assert ran(client / "python", "-I", "-c", SUBMIT, cwd=client, variables=urls) == "queued\n"
    listed = ran(client / "callgate", "calls", "list", "--org", "acme", cwd=client, variables=urls)
    assert "letters" in listed


@pytest.fixture(scope="module", params=["lowest-direct", "highest"])
def bound(
    request: pytest.FixtureRequest, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The programs of an environment with the client and the lowest, or the highest, versions that it allows."""
    folder = tmp_path_factory.mktemp(request.param)
    python = folder / "venv" / "bin" / "python"
    ran(*UV, "venv", "--python", sys.executable, folder / "venv", cwd=folder)
    ran(
        *(*UV, "pip", "install", "--python", python, "--resolution", request.param),
        *wheels.glob("callgate-*.whl"),
        cwd=folder,
        timeout_s=INSTALL_TIMEOUT_S,
    )
    return python.parent


def test_a_client_works_at_its_bounds(bound: Path, worker: Path, servers: DevServers) -> None:
    """It submits, reads, estimates and asks the workers, whatever kombu can and cannot do."""
    urls = urls_of(servers)
    ran(worker / "callgate", "migrate", cwd=worker, variables=urls)
    requests = bound / "requests.jsonl"
    requests.write_text(json.dumps(REQUEST))

    assert ran(bound / "python", "-I", "-c", SUBMIT, cwd=bound, variables=urls) == "queued\n"
    for command in ("calls list --org acme", "budgets show acme", f"estimate {requests}"):
        ran(bound / "callgate", *command.split(), cwd=bound, variables=urls)
    found = json.loads(
        run(bound / "callgate", "doctor", "--json", cwd=bound, variables=urls).stdout
    )
    failed = {check["name"] for check in found if check["status"] == "fail"}
    assert failed <= {"consumers", "workers"}
    assert not [check for check in found if "Error" in check["sentence"]]
