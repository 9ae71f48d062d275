"""Classes, deadlines and what a call waits for, on the command line."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest

from callgate.domain.call_order import Priority
from callgate.domain.calls import CallState
from callgate.domain.errors import NotPermitted
from callgate.domain.limits import Declaration
from callgate.domain.reports import CallFilter
from callgate.domain.slots import AHEAD_MAX
from tests.contract.flow_steps import WORKER, a_rule, declare, sent, waits
from tests.support.command_line import Shell, fields_of
from tests.support.ledger_under_test import LedgerUnderTest, a_submission, open_memory

REQUEST = (
    *("--org", "acme", "--call-type", "x", "--model", "gpt-4o-mini", "--prompt", "hi"),
    *("--max-output-tokens", "5"),
)


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def test_a_call_is_submitted_with_class_and_deadline(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Both are shown."""
    options = ("--priority", "bulk", "--start-before", "2199-11-30T18:00+01:00", "--no-wait")
    code, task_id, err = shell("submit", *REQUEST, *options)
    assert (code, err) == (0, "")
    fields = fields_of(shell("calls", "show", task_id.strip())[1])

    assert fields["class"] == "bulk"
    assert fields["deadline"].startswith("to be sent before 2199-11-")
    shown = json.loads(shell("calls", "show", task_id.strip(), "--json")[1])
    assert (shown["priority"], "earliest_at" in shown) == ("bulk", False)
    assert datetime.fromisoformat(shown["start_before"]).year == 2199


def test_without_options_a_call_is_normal(shell: Shell) -> None:
    """It has no deadline."""
    _, task_id, _ = shell("submit", *REQUEST, "--no-wait")
    fields = fields_of(shell("calls", "show", task_id.strip())[1])

    assert fields["class"] == "normal"
    assert "deadline" not in fields


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--priority", "urgent", "bulk, normal, interactive"),
        ("--start-before", "tomorrow", "is not a time, for example 2026-11-30T18:00Z"),
        ("--start-before", "2026-11-30T18:00", "has no time zone"),
        ("--on-busy", "panic", "'raise', 'wait'"),
    ],
)
def test_a_wrong_value_is_named(shell: Shell, option: str, value: str, says: str) -> None:
    code, out, err = shell("submit", *REQUEST, option, value)

    assert (code, out) == (2, "")
    assert says in " ".join(err.replace("│", " ").split())


def test_a_deadline_that_has_passed_is_an_error(shell: Shell) -> None:
    code, _, err = shell("submit", *REQUEST, "--start-before", "2020-01-01T00:00Z")

    assert (code, err) == (1, "error: invalid_request: start_before has passed already\n")


@pytest.mark.parametrize("on_busy", [(), ("--on-busy", "wait", "--timeout", "0")])
def test_a_busy_organisation_is_an_error(
    shell: Shell, ledger: LedgerUnderTest, on_busy: tuple[str, ...]
) -> None:
    """With `wait` after the timeout."""
    ledger.queued("open")
    ledger.flow.publish(WORKER, Declaration(open_calls_max=1))
    code, out, err = shell("submit", *REQUEST, *on_busy)

    assert (code, out) == (1, "")
    assert err.startswith("error: organisation_busy: organisation 'acme' has 1 open calls")


def test_a_call_that_waits_for_a_limit_says_why_and_when(
    shell: Shell, ledger: LedgerUnderTest
) -> None:
    declare(ledger, a_rule(2))
    sent(ledger, "first")
    key = waits(ledger, "second", priority=Priority.INTERACTIVE)
    fields = fields_of(shell("calls", "show", key.task_id)[1])

    assert fields["class"] == "interactive"
    assert re.fullmatch(
        "rate_limited, tried next about 20.* UTC, given up at 20.* UTC", fields["waits for"]
    )
    assert fields["earliest"].startswith("about 20")
    assert fields["error"] == "rate_limited: 2 requests per day of openai/gpt-4o-mini are used"
    shown = json.loads(shell("calls", "show", key.task_id, "--json")[1])
    assert datetime.fromisoformat(shown["earliest_at"]).tzinfo is not None


def test_who_may_not_read_limits_sees_the_rest(
    shell: Shell, ledger: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's login sees its own calls only."""

    def refuse() -> None:
        raise NotPermitted("use the dashboard's login")

    declare(ledger, a_rule(2))
    sent(ledger, "first")
    key = waits(ledger, "second")
    monkeypatch.setattr(ledger.operations, "limits", refuse)
    code, shown, _ = shell("calls", "show", key.task_id)

    assert code == 0
    assert "earliest" not in fields_of(shown)


def test_calls_are_listed_by_what_they_wait_for(shell: Shell, ledger: LedgerUnderTest) -> None:
    """A limit, or the backlog."""
    declare(ledger, a_rule(2))
    sent(ledger, "first")
    limited = waits(ledger, "second")
    batch = [a_submission(f"{n}", org_id="bolt") for n in range(AHEAD_MAX)]
    ledger.submit(*batch)
    (backlog,) = ledger.submit(a_submission("last", org_id="bolt"))

    for reason, key in (("rate_limited", limited), ("backlog", backlog.key)):
        listed = json.loads(shell("calls", "list", "--wait-reason", reason, "--json")[1])
        assert [call["task_id"] for call in listed] == [key.task_id]
        assert f"{reason}, tried " in shell("calls", "list", "--wait-reason", reason)[1]
    waiting = CallFilter(state=CallState.WAITING)
    assert len(ledger.operations.calls(waiting, limit=9)) == 2
