"""How many calls of an organisation run at a time, on the command line."""

from __future__ import annotations

import json

import pytest

from tests.contract.concurrency_steps import allow, in_line
from tests.contract.flow_steps import sent
from tests.support.command_line import Shell
from tests.support.ledger_under_test import LedgerUnderTest, open_memory


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def test_limits_list_shows_who_runs_and_who_waits(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Beside what is declared for each organisation."""
    allow(ledger, {"": 2}, {"extraction": 1, "": 3})
    sent(ledger, "a")
    in_line(ledger, "b")

    lines = json.loads(shell("limits", "list", "--json")[1])
    shown = {x["what"]: (x["amount"], x["used"], x["free"], x["waiting"]) for x in lines}
    assert shown == {
        "running calls of each organisation": (2, None, None, {}),
        "running calls of each call type of each organisation": (3, None, None, {}),
        "running extraction calls of each organisation": (1, None, None, {}),
        "running calls of acme": (2, 1, 1, {"acme": 1}),
        "running extraction calls of acme": (1, 1, 0, {"acme": 1}),
    }
    assert "running extraction calls of acme" in shell("limits", "list")[1]


def test_calls_show_says_what_a_call_waits_for(shell: Shell, ledger: LedgerUnderTest) -> None:
    allow(ledger, {"": 1})
    sent(ledger, "a")
    (key,) = in_line(ledger, "b")

    shown = shell("calls", "show", key.task_id)[1]
    assert "concurrency_limited until " in shown
    assert "concurrency_limited: 1 calls of acme may run at a time" in shown
    assert key.task_id in shell("calls", "list", "--wait-reason", "concurrency_limited")[1]
