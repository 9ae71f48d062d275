"""A call that has ended without an answer says why, in a column that can be filtered: `end_reason`."""

from __future__ import annotations

import json

import pytest

from callgate.domain.calls import CallKey, CallState, WaitReason
from callgate.domain.ledger import Defer, Refused, Reject
from callgate.domain.reports import CallFilter, EndReason
from callgate.domain.retry import WORKER_LOST
from tests.support.ledger_under_test import (
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
)


def reason_of(ledger: LedgerUnderTest, key: CallKey) -> str | None:
    """Why a call has ended."""
    return ledger.view(key).end_reason


@pytest.mark.parametrize("state", ["queued", "running", "waiting", "succeeded"])
def test_a_call_that_is_open_or_succeeded_has_no_end_reason(
    ledger: LedgerUnderTest, state: str
) -> None:
    made = getattr(ledger, state)()
    key = made if isinstance(made, CallKey) else made.key

    assert ledger.state(key) == state
    assert reason_of(ledger, key) is None


def test_a_cancelled_call_says_so(ledger: LedgerUnderTest) -> None:
    assert reason_of(ledger, ledger.rejected()) == "cancelled"


def test_a_discarded_dead_letter_says_so_instead_of_its_failure(ledger: LedgerUnderTest) -> None:
    key = ledger.dead().key
    assert reason_of(ledger, key) == "rate_limited"

    ledger.operations.end([key], code=EndReason.DISCARDED, message="by a test")

    assert (ledger.state(key), reason_of(ledger, key)) == (CallState.REJECTED, "discarded")


@pytest.mark.parametrize(
    ("settle", "code"), [(a_failure, "rate_limited"), (a_loss, WORKER_LOST.code)]
)
def test_a_dead_call_names_the_code_of_its_failure(
    ledger: LedgerUnderTest, settle: object, code: str
) -> None:
    ref = ledger.answered() if settle is a_failure else ledger.running()
    ledger.settle(settle(ref, next_state=CallState.DEAD))  # type: ignore[operator]

    assert (ledger.state(ref.key), reason_of(ledger, ref.key)) == (CallState.DEAD, code)


def test_a_budget_that_is_too_small_is_named(ledger: LedgerUnderTest) -> None:
    key = ledger.queued()

    (refused,) = ledger.reserve(a_reserve(key, LIMIT + 1))

    assert isinstance(refused, Refused)
    assert reason_of(ledger, key) == "budget_too_small"


def test_an_exhausted_budget_is_named_if_the_call_does_not_wait(ledger: LedgerUnderTest) -> None:
    ledger.succeeded("before", posted_nano_usd=LIMIT)
    key = ledger.queued()

    ledger.reserve(a_reserve(key))

    assert reason_of(ledger, key) == "budget_exhausted"


def test_an_organisation_without_a_budget_is_named(ledger: LedgerUnderTest) -> None:
    """By the code of `BudgetNotConfigured`."""
    key = ledger.queued(org_id="without")

    ledger.reserve(a_reserve(key))

    assert reason_of(ledger, key) == "budget_not_configured"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (json.dumps({"code": "invalid_schema", "message": "no"}), "invalid_schema"),
        (json.dumps({"code": "x" * 200}), "x" * 128),
        (json.dumps({"message": "no code"}), "unspecified"),
        (json.dumps({"code": ""}), "unspecified"),
        (json.dumps({"code": None}), "unspecified"),
        (json.dumps(["code"]), "unspecified"),
        ("no JSON", "unspecified"),
    ],
)
def test_a_worker_rejects_a_call_for_the_code_of_its_error(
    ledger: LedgerUnderTest, error: str, code: str
) -> None:
    """An error without a code must not stop the batch that it is in."""
    key = ledger.queued()

    ledger.reserve(Reject(key, error))

    assert (ledger.state(key), reason_of(ledger, key)) == (CallState.REJECTED, code)


def test_a_deferred_call_has_a_wait_reason_and_no_end_reason(ledger: LedgerUnderTest) -> None:
    key = ledger.queued()

    ledger.reserve(Defer(key, '{"code": "too_large"}', 60.0, WaitReason.QUARANTINE))

    view = ledger.view(key)
    assert (view.wait_reason, view.end_reason) == (WaitReason.QUARANTINE, None)


def test_the_next_generation_of_a_rejected_call_starts_without_a_reason(
    ledger: LedgerUnderTest,
) -> None:
    ledger.rejected("again")

    (submitted,) = ledger.submit(a_submission("again"))

    assert (submitted.key.generation, reason_of(ledger, submitted.key)) == (2, None)


def test_calls_are_listed_by_why_they_ended_or_wait(ledger: LedgerUnderTest) -> None:
    cancelled, dead = ledger.rejected("cancelled"), ledger.dead("dead").key
    retried = ledger.waiting("retried", due_in_s=60.0).key
    ledger.queued("queued")

    def listed(**changes: object) -> list[CallKey]:
        which = CallFilter(org_id=ORG, **changes)  # type: ignore[arg-type]
        return [view.key for view in ledger.operations.calls(which, limit=10)]

    assert listed(end_reason="cancelled") == [cancelled]
    assert listed(end_reason="rate_limited") == [dead]
    assert listed(end_reason="rate_limited", state=CallState.REJECTED) == []
    assert listed(wait_reason=WaitReason.RETRY) == [retried]
    assert listed(wait_reason=WaitReason.PROVIDER) == []
