"""How many calls of an organisation run at a time, on the command line."""

from __future__ import annotations

import json

import pytest

from callgate.domain.stored_errors import error_text
from tests.contract.concurrency_steps import allow, in_line
from tests.contract.flow_steps import sent
from tests.support.command_line import Shell
from tests.support.ledger_under_test import LIMIT, LedgerUnderTest, a_reserve, open_memory


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
    assert "concurrency_limited, given up at " in shown
    assert "concurrency_limited: 1 calls of acme may run at a time" in shown
    assert key.task_id in shell("calls", "list", "--wait-reason", "concurrency_limited")[1]


def test_calls_show_says_what_is_before_a_call(shell: Shell, ledger: LedgerUnderTest) -> None:
    """How many wait before it, and how many run: nobody knows when those end."""
    allow(ledger, {"": 2}, {"extraction": 1})
    sent(ledger, "a")
    _, key = in_line(ledger, "b", "c")

    shown = shell("calls", "show", key.task_id)[1]
    assert "1 calls of acme that wait for the same, 1 of them extraction" in shown
    assert "1 of 2 acme calls, 1 of 1 extraction calls" in shown
    fields = json.loads(shell("calls", "show", key.task_id, "--json")[1])
    assert fields["ahead"] == {"of_call_type": 1, "of_organisation": 1}
    assert [line["amount"] for line in fields["places"]] == [2, 1]


def test_calls_show_says_who_holds_the_money(shell: Shell, ledger: LedgerUnderTest) -> None:
    """The budget's figures, also of a refusal that Postgres wrote, which has no message."""
    ledger.running("holds all", LIMIT)
    key = ledger.queued("b")
    ledger.reserve(a_reserve(key))

    shown = shell("calls", "show", key.task_id)[1]
    assert "budget_held, tried again at " in shown
    assert "0 calls of acme that wait for the same" in shown
    assert "$0.000001 are held for calls in flight" in shown
    view = ledger.view(key)
    fields = json.loads(view.error or "")
    del fields["message"]
    assert error_text(json.dumps(fields)) == error_text(view.error)
