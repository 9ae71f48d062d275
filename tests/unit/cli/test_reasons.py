"""Calls say why they wait, why they ended and how their last attempt was made."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from callgate.domain.calls import AttemptRef
from callgate.domain.reports import EndReason
from tests.support.command_line import Shell
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    a_reserve,
    a_success,
    an_answer,
    open_memory,
)


@pytest.fixture
def ledger() -> LedgerUnderTest:
    """A ledger in memory, with a budget."""
    return open_memory()


def test_a_call_that_waits_says_for_what(shell: Shell, ledger: LedgerUnderTest) -> None:
    """And until when, in lists and alone."""
    key = ledger.waiting(due_in_s=60).key
    until = f"{ledger.now() + timedelta(seconds=60):%H:%M:%S}"

    listed, shown = shell("calls", "list")[1], shell("calls", "show", key.task_id)[1]

    for out in (listed, shown):
        assert "retry, tried again at 20" in out
        assert until in out
    assert json.loads(shell("calls", "list", "--json")[1])[0]["wait_reason"] == "retry"


def test_an_attempt_says_how_it_was_made_and_what_was_odd(
    shell: Shell, ledger: LedgerUnderTest
) -> None:
    """Whose key was used, and whether it was a probe."""
    key = ledger.queued()
    ledger.reserve(a_reserve(key, credential="acme"))
    ref = AttemptRef(key, ledger.view(key).last.attempt_id)  # type: ignore[union-attr]
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, anomalies=("usage_zero", "tier_unasked")))

    shown = shell("calls", "show", key.task_id)[1]

    assert "as a first, with acme's own key" in shown
    assert "usage_zero, tier_unasked" in shown


def test_calls_are_chosen_by_why_they_wait_or_ended(shell: Shell, ledger: LedgerUnderTest) -> None:
    """Each reason is a filter, a field of the JSON and a column of the table."""
    waiting, cancelled = ledger.waiting(due_in_s=60).key, ledger.queued("cancelled")
    ledger.operations.end([cancelled], code=EndReason.CANCELLED, message="by a test")
    ledger.queued("open")
    ledger.dead("dead")

    def listed(*options: str) -> list[tuple[str, str | None, str | None]]:
        calls = json.loads(shell("calls", "list", *options, "--json")[1])
        return [(c["task_id"], c["wait_reason"], c["end_reason"]) for c in calls]

    assert listed("--wait-reason", "retry") == [(waiting.task_id, "retry", None)]
    assert listed("--wait-reason", "provider") == []
    assert listed("--end-reason", "cancelled") == [(cancelled.task_id, None, "cancelled")]
    assert listed("--end-reason", "cancelled", "--state", "dead") == []
    assert listed("--end-reason", "cancelled", "--wait-reason", "retry") == []
    assert len(listed()) == 4
    assert "cancelled" in shell("calls", "list", "--state", "rejected")[1]
