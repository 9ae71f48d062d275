"""The program of the README, run as its reader runs it: real servers, a real worker, a worker of the pipeline."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Simulator, Step
from tests.support.deployment import CHECKOUT, Deployment, until
from tests.support.page_blocks import blocks_of
from tests.support.programs import PATIENCE_S, celery_worker, deployed, rule, run

INVOICE = json.dumps({"number": "INV-7", "total": 120})


@pytest.fixture(scope="module")
def standing(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment with the catalogue of the examples."""
    with deployed(services, provider, tmp_path_factory.mktemp("programs")) as deployment:
        yield deployment


def test_the_program_of_the_readme(deployment: Deployment, tmp_path: Path) -> None:
    """With the commands below it. The second run is free, and both links come."""
    blocks = blocks_of(CHECKOUT / "README.md")
    (program,) = [block.text for block in blocks if block.language == "python"]
    (said,) = [
        block.text for block in blocks if "invoices.py" in block.text and block.text != program
    ]
    (tmp_path / "invoices.py").write_text(program)
    (budget,) = re.findall(r"^callgate budgets .*", said, re.MULTILINE)
    (start,) = re.findall(r"^python (.*)", said, re.MULTILINE)
    file, *arguments = shlex.split(start, comments=True)
    deployment.provider.script([rule("INV-7", Step(text=INVOICE))])
    run(deployment, "-m", *shlex.split(budget, comments=True))
    worker = celery_worker(deployment, "invoices", tmp_path)

    first, second = [run(deployment, str(tmp_path / file), *arguments) for _ in range(2)]

    assert "Invoice(number='INV-7', total=120.0) for 0.0" in first
    assert ("duplicate: False" in first, "duplicate: True" in second) == (True, True)
    stored = "stored doc-7: Invoice(number='INV-7', total=120.0)"
    until(lambda: worker.output().count(stored) == 2, PATIENCE_S, worker.output)
    assert deployment.provider.counts().total == 1
    worker.kill()
