"""What the pages of docs/ show is what happens: their blocks run against `callgate up` and the simulated provider."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from devkit.servers.ports import free_port
from devkit.simulator.simulator import ErrorBody, Kind, Match, Rule, Simulator, Step
from tests.support.page_runner import page_blocks, run_page, runs_here
from tests.support.processes import clean_environ

pytestmark = pytest.mark.long
DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = DOCS / "tutorial.md"
PAGES = sorted(page for page in DOCS.rglob("*.md") if runs_here(page))
ADDRESS = re.compile(r"^# (base_url = ).*$", re.MULTILINE)
"""The line of the tutorial's catalogue that a reader without a key changes."""
KEY_REFUSED = Step(kind=Kind.STATUS, status=401, error=ErrorBody(code="invalid_api_key"))


@dataclass(frozen=True)
class Up:
    """A running `callgate up`."""

    flower_url: str
    provider: Simulator
    environ: dict[str, str]


@contextmanager
def up_in(folder: Path) -> Iterator[Up]:
    """Servers, a worker and Flower in a folder of their own."""
    (folder / "keys").mkdir()
    (folder / "keys" / "openai").write_text("sk-nobody")
    flower_port = free_port()
    with Simulator() as provider:
        catalogue = folder / "catalogue.toml"
        (block,) = [block for block in page_blocks(TUTORIAL) if block.file == catalogue.name]
        catalogue.write_text(ADDRESS.sub(rf'\1"{provider.base_url}"', block.text))
        environ = {
            "CALLGATE_CATALOGUE": str(catalogue),
            "CALLGATE_WORKER__CREDENTIALS_DIR": str(folder / "keys"),
            "CALLGATE_WORKER__FLOWER_PORT": str(flower_port),
            "CALLGATE_WORKER__STATUS_PORT": "0",
            "CALLGATE_WORKER__FLOWER_STATUS_PORT": "0",
            "CALLGATE_WORKER__DATA_DIR": str(folder / ".callgate"),
        }
        with (
            (folder / "up.log").open("wb") as log,
            subprocess.Popen(
                [sys.executable, "-m", "callgate", "up", "--json"],
                cwd=folder,
                env=clean_environ(environ),
                stdout=subprocess.PIPE,
                stderr=log,
            ) as process,
        ):
            assert process.stdout is not None
            assert process.stdout.readline(), (folder / "up.log").read_text()
            try:
                yield Up(f"http://127.0.0.1:{flower_port}", provider, environ)
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """What the pages share, but for the tutorial."""
    with up_in(tmp_path_factory.mktemp("up")) as started:
        yield started


def a_folder_of(up: Up, folder: Path) -> Path:
    """The folder of a reader, who has started `callgate up` in it."""
    folder.mkdir()
    (folder / ".callgate").symlink_to(up.environ["CALLGATE_WORKER__DATA_DIR"])
    return folder


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    """On an empty ledger, as its reader has it."""
    (tmp_path / "up").mkdir()
    with up_in(tmp_path / "up") as up:
        up.provider.script([Rule(match=Match(text="Nothing works"), reply=[KEY_REFUSED, Step()])])

        said = run_page(TUTORIAL, a_folder_of(up, tmp_path / "reader"), up.environ)

        with urlopen(f"{up.flower_url}/calls", timeout=30) as page:  # noqa: S310 - loopback
            assert "acme" in page.read().decode()
    assert "error: budget_not_configured" in said
    assert said.count(", collapsed") == 1
    assert re.search(r"no money: .* is more than the whole limit of \$0\.00001", said)
    assert said.count("Ticket(topic=") == 2
    assert "no answer: authentication_failed after 1 attempt(s)" in said
    assert "done: 1 succeeded" in said
    assert said.rstrip().endswith("no dead calls")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != TUTORIAL], ids=lambda page: page.stem
)
def test_the_blocks_of_a_page_run(up: Up, page: Path, tmp_path: Path) -> None:
    up.provider.script([])

    run_page(page, a_folder_of(up, tmp_path / "reader"), up.environ)
