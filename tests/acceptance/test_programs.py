"""The program of the README and those of `examples/`, run as their readers run them: real servers, a real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Match, Rule, Simulator, Step
from tests.support.deployment import CHECKOUT, Deployment, Process, until
from tests.support.page_blocks import blocks_of

EXAMPLES = CHECKOUT / "examples"
PATIENCE_S = 60.0
ADDRESS = "http://127.0.0.1:8080/v1"
"""Where the catalogue of the examples says that the simulator is."""


@pytest.fixture(scope="module")
def standing(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment with the catalogue of the examples."""
    text = (EXAMPLES / "catalogue.toml").read_text("utf-8")
    assert text.count(ADDRESS) == 3
    catalogue = text.replace("{", "{{").replace("}", "}}").replace(ADDRESS, "{base_url}")
    folder = tmp_path_factory.mktemp("programs")
    with Deployment(services, provider, folder, catalogue=catalogue) as deployment:
        deployment.worker()
        yield deployment


def run(deployment: Deployment, *arguments: str) -> str:
    """Run a program in the checkout to its end; return what it said."""
    process = deployment.python("program", arguments)
    code = process.wait(PATIENCE_S)
    assert code == 0, process.output()
    return process.output()


def celery_worker(deployment: Deployment, app: str, folder: Path = CHECKOUT) -> Process:
    """Start the pipeline's own worker; return when it is ready."""
    options = ["--loglevel", "INFO", "--concurrency", "1"]
    argv = ["-m", "celery", "--workdir", str(folder), "-A", app, "worker", *options]
    return deployment.python("pipeline", argv).until_it_says("ready.")


def test_the_program_of_the_readme(deployment: Deployment, tmp_path: Path) -> None:
    """Twice: the second run is free, and both links come."""
    (block,) = [b for b in blocks_of(CHECKOUT / "README.md") if b.language == "python"]
    file = tmp_path / "invoices.py"
    file.write_text(block.text)
    answer = json.dumps({"number": "INV-7", "total": 120})
    deployment.provider.script([Rule(match=Match(text="INV-7"), reply=[Step(text=answer)])])
    deployment.limit("acme", 5 * 10**9)
    worker = celery_worker(deployment, "invoices", tmp_path)

    first, second = [
        run(deployment, str(file), "doc-7", "Invoice INV-7, total 120.00 EUR") for _ in range(2)
    ]

    assert "Invoice(number='INV-7', total=120.0) for 0.0" in first
    assert ("duplicate: False" in first, "duplicate: True" in second) == (True, True)
    stored = "stored doc-7: Invoice(number='INV-7', total=120.0)"
    until(lambda: worker.output().count(stored) == 2, PATIENCE_S, worker.output)
    assert deployment.provider.counts().total == 1
    worker.kill()
