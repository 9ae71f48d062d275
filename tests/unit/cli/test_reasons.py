"""Calls say why they wait, why they ended and how their last attempt was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from callgate.client import Client
from callgate.domain.calls import AttemptRef, CallState
from callgate.domain.provider import Billing, Failure
from callgate.domain.reports import EndReason
from tests.support.command_line import Shell, a_request, fields_of
from tests.support.ledger_under_test import (
    LedgerUnderTest,
    a_failure,
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


def test_all_attempts_are_shown_with_their_money(shell: Shell, ledger: LedgerUnderTest) -> None:
    """A retry hides nothing: what each attempt held and posted, who sent it, and whose price was used."""
    first = ledger.running("twice")
    ledger.record(an_answer(first))
    failure = Failure("server_error", "it broke", True, Billing.UNBILLED, status=500)
    ledger.settle(a_failure(first, CallState.WAITING, due_in_s=0.0, error=failure.to_json()))
    ledger.requeued(first.key)
    second = ledger.claim(first.key)
    ledger.record(an_answer(second))
    ledger.settle(a_success(second, price_source="list 2026-11"))

    shown = shell("calls", "show", first.key.task_id)[1]
    told = json.loads(shell("calls", "show", first.key.task_id, "--json")[1])

    for ref in (first, second):
        assert str(ref.attempt_id) in shown
    assert [a["error"] and a["error"]["code"] for a in told["attempts"]] == ["server_error", None]
    assert told["attempts"][0]["error_fingerprint"] == failure.fingerprint("openai")
    assert told["attempts"][0]["posted_nano_usd"] == 0
    assert "settled at list 2026-11" in shown
    assert fields_of(shown)["sent by"].startswith("worker ")
    assert "Nothing: it has its answer" in fields_of(shown)["next"]


def test_who_joined_a_call_and_what_replaced_it_is_shown(
    shell: Shell, open_client: Callable[[], Client]
) -> None:
    """Its submissions, and its later generation."""
    with open_client() as client:
        key = client.submit(a_request(), idempotency_key="mine").key
        client.submit(a_request())
        joined = shell("calls", "show", key.task_id)[1]
        client.cancel(key.task_id, "by a test")
        later = client.submit(a_request()).key

    shown = shell("calls", "show", key.task_id)[1]
    told = json.loads(shell("calls", "show", key.task_id, "--json")[1])

    assert fields_of(joined)["asked for"] == "2 times, 1 without a call of their own"
    assert [line["outcome"] for line in told["submissions"]["lines"]] == ["created", "joined"]
    assert "mine" in joined
    assert fields_of(shown)["later"] == f"{later.task_id} replaced it"
    assert [g["task_id"] for g in told["generations"]] == [later.task_id, key.task_id]


def test_a_dead_call_names_the_group_it_belongs_to(shell: Shell, ledger: LedgerUnderTest) -> None:
    """So that the others that failed alike can be listed, and redriven."""
    code = Failure("bad_request", "no such model", False, Billing.UNBILLED, status=400)
    ref = ledger.running("dead")
    ledger.record(an_answer(ref))
    group = code.fingerprint("openai")
    ledger.settle(a_failure(ref, error=code.to_json(), error_fingerprint=group))

    named = fields_of(shell("calls", "show", ref.key.task_id)[1])["fingerprint"]
    assert named == group

    found = json.loads(shell("dead-letters", "list", "--fingerprint", named, "--json")[1])
    assert [call["task_id"] for call in found["calls"]] == [ref.key.task_id]
