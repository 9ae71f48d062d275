"""The README is short, names commands that exist, and its program does what it says in each case."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callgate.testing import MemoryClient, Refusal
from tests.support.page_blocks import blocks_of, run_python

CHECKOUT = Path(__file__).parents[2]
README = CHECKOUT / "README.md"
LINES_MAX = 150
Extract = Callable[[str, str], None]


@pytest.fixture(scope="module")
def program() -> dict[str, Any]:
    """The names of the program. It is loaded once: Celery shares its task with all apps of this process."""
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("CALLGATE_DATABASE_URL", "postgresql://127.0.0.1/nowhere")
        environ.setenv("CALLGATE_BROKER_URL", "redis://127.0.0.1/0")
        return run_python(README)


@pytest.fixture
def extract(program: dict[str, Any], callgate_client: MemoryClient) -> Extract:
    """The function of the program, on the testing kit."""
    program["client"].close()
    program["client"] = callgate_client
    function: Extract = program["extract"]
    return function


def test_it_is_read_in_two_minutes() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= LINES_MAX


def test_its_commands_are_targets_and_ci_runs_its_tests() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    first = next(block for block in blocks_of(README) if block.language == "console")
    commands = re.findall(r"^(make ([a-z-]+)) +#", first.text, re.MULTILINE)

    assert [target for _, target in commands] == ["demo", "test"]
    assert {target for _, target in commands} <= set(targets)
    assert "make test" in (CHECKOUT / ".ci" / "run").read_text().splitlines()


def test_its_program_is_the_only_block_of_python() -> None:
    assert [block.language for block in blocks_of(README)].count("python") == 1


def test_an_answer_is_parsed_paid_once_and_given_to_the_link(
    extract: Extract, callgate_client: MemoryClient, capsys: pytest.CaptureFixture[str]
) -> None:
    callgate_client.script.reply({"number": "INV-7", "total": 120})

    extract("doc-7", "Invoice INV-7, total 120.00 EUR")
    extract("doc-8", "Invoice INV-7, total 120.00 EUR")

    invoice = "Invoice(number='INV-7', total=120.0)"
    said = capsys.readouterr().out
    assert said.count(f"{invoice} for ") == 2
    assert ("duplicate: False" in said, "duplicate: True" in said) == (True, True)
    assert len(callgate_client.sent) == 1
    assert f"stored doc-7: {invoice}" in said
    assert f"stored doc-8: {invoice}" in said
    outcome, document_id = callgate_client.links[0].args
    assert (outcome["state"], document_id) == ("succeeded", "doc-7")
    assert outcome.keys() == {"task_id", "state"}


def test_each_error_is_caught_where_it_says(
    extract: Extract, callgate_client: MemoryClient, capsys: pytest.CaptureFixture[str]
) -> None:
    callgate_client.script.reply(Refusal(400), match="a wrong one")
    callgate_client.script.reply({"number": "1", "total": 1}, match="a slow one", latency_s=61)
    said = []

    def says(text: str) -> None:
        extract("doc", text)
        said.append(capsys.readouterr().out.partition(":")[0].strip())

    says("too long " * 200_000)
    says("a wrong one")
    says("a slow one")
    callgate_client.interrupt_ledger(times=1)
    says("an outage")
    callgate_client.set_budget("acme", usd=0.000001)
    says("an expensive one")

    assert said == ["not accepted", "no answer", "not yet", "try again", "no money"]


def test_the_blocks_of_the_page_about_pipelines_run(callgate_client: MemoryClient) -> None:
    callgate_client.script.reply("an answer")

    names = run_python(CHECKOUT / "docs" / "pipelines.md")

    assert len(names["texts"]) == 20
    assert {block.language for block in blocks_of(CHECKOUT / "docs" / "pipelines.md")} == {"python"}
