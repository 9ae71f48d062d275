"""Each block of Python or of the console in docs/ is executed, or says why not; each command has its options."""

from __future__ import annotations

import re
import shlex
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from callgate.adapters.catalogue_file import load_catalogue
from callgate.cli import build_app
from callgate.domain.webhook_signature import signed_headers
from tests.support.page_runner import PageBlock, page_blocks, runs_here

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted((CHECKOUT / "docs").rglob("*.md"))
MARK = re.compile(r"<!-- (?:all )?(?:not run|run by): ")
COMMAND = re.compile(r"^ *(?:\w+=\S+ +)*callgate (.+)$", re.MULTILINE)
CONTINUED = re.compile(r" *\\\n *")
END_OF_COMMAND = re.compile(r" +#.*$| *(?:\|\|?|&&|[<>]) .*$| *…")
RUNNER = "tests/acceptance/test_docs_pages.py"


def name_of(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


BLOCKS = [(page, block) for page in PAGES for block in page_blocks(page)]
RUN_BY = sorted({(name_of(page), block.run_by) for page, block in BLOCKS if block.run_by})
CATALOGUES = [
    (page, block)
    for page, block in BLOCKS
    if block.file and block.file.endswith("catalogue.toml") and block.language == "toml"
]


@pytest.mark.parametrize(("page", "test"), RUN_BY)
def test_a_named_test_knows_the_page(page: str, test: str) -> None:
    assert Path(page).name in (CHECKOUT / test).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_mark_is_above_a_block(page: Path) -> None:
    text = page.read_text("utf-8")
    marked = [b for b in page_blocks(page) if b.not_run or b.run_by]

    if text.startswith("<!-- all "):
        assert len(MARK.findall(text)) == 1
    else:
        assert len(MARK.findall(text)) == len(marked)


def test_blocks_without_a_mark_are_run() -> None:
    """The test of pages takes every page that has one, so no list can be out of date."""
    assert any(map(runs_here, PAGES))
    assert "runs_here(page)" in (CHECKOUT / RUNNER).read_text("utf-8")


def commands() -> Iterator[tuple[str, str]]:
    """Each command in blocks of the console, with its page."""
    for page, block in BLOCKS:
        if block.language == "console":
            for line in COMMAND.findall(CONTINUED.sub(" ", block.text)):
                yield name_of(page), END_OF_COMMAND.sub("", line).strip()


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_a_command_has_these_options(page: str, command: str) -> None:
    """Values are not looked at, for they may be `ID`."""
    words = [word for word in shlex.split(command) if word != "..."]
    at: Any = get_command(build_app())
    while words and hasattr(at, "commands"):
        assert words[0] in at.commands, page
        at = at.commands[words.pop(0)]

    known = {
        "--help",
        *(name for param in at.params for name in (*param.opts, *param.secondary_opts)),
    }
    assert {
        word.partition("=")[0] for word in words if word.startswith("-") and word != "-"
    } <= known


def test_many_commands_are_parsed() -> None:
    assert len(set(commands())) > 40


@pytest.mark.parametrize(("page", "block"), CATALOGUES, ids=lambda x: getattr(x, "name", ""))
def test_a_catalogue_of_a_page_is_one(page: Path, block: PageBlock, tmp_path: Path) -> None:
    file = tmp_path / "catalogue.toml"
    file.write_text(block.text)

    assert load_catalogue(file).providers, page


def test_the_page_of_alerts_checks_a_signature_as_the_worker_makes_it() -> None:
    (block,) = [
        block for page, block in BLOCKS if page.name == "alerts.md" and block.language == "python"
    ]
    names: dict[str, Any] = {}
    exec(block.text, names)  # noqa: S102 - the page is ours
    key, body = bytes(range(32)), b"{}"
    secret = "whsec_" + b64encode(key).decode()
    headers = signed_headers([key], "msg_1", int(names["time"].time()), body)

    assert names["is_genuine"](secret, headers, body)
    assert not names["is_genuine"](secret, headers, b"[]")
