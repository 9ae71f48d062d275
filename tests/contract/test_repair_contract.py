"""Repairs in the ledger: attempts of a kind of their own, counted, and with the broken answer to be found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from callgate.domain.bounds import INPUT_TOKENS_MAX
from callgate.domain.budgets import RefusalReason
from callgate.domain.calls import AttemptKind, AttemptRef, AttemptStatus, CallState
from callgate.domain.ledger import Refused, Reserve, Reserved, SubmitOutcome, Unstorable
from callgate.domain.limits import Measure
from callgate.domain.provider import Billing, Failure
from callgate.domain.repairs import invalid_output
from callgate.domain.reports import CallFilter
from tests.contract.flow_steps import a_rule, declare
from tests.support.ledger_under_test import (
    LIMIT,
    LINK,
    REPLY,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
    an_answer,
)

BROKEN = invalid_output(["$.total: breaks 'type'"])
UNBILLED = Failure("conflict", "not now", True, Billing.UNBILLED, status=409)


def a_repair(ref: AttemptRef, after: int = 1, **changes: Any) -> Reserve:
    """A claim of a call for a repair of its newest attempt."""
    return a_reserve(ref.key, 130, repair_after=after, input_token_bound=250, **changes)


def broken(ledger: LedgerUnderTest, ref: AttemptRef | None = None) -> AttemptRef:
    """An attempt that was answered and paid, and broke its schema; the call is queued again."""
    ref = ref or ledger.running()
    ledger.record(an_answer(ref))
    failed = a_failure(
        ref,
        CallState.WAITING,
        posted_nano_usd=60,
        error=BROKEN.to_json(),
        due_in_s=0.0,
        error_fingerprint=BROKEN.fingerprint("openai"),
    )
    assert ledger.settle(failed)[0].is_applied
    ledger.requeued(ref.key)
    return ref


def claimed(ledger: LedgerUnderTest, claim: Reserve) -> Reserved:
    """The attempt that a claim makes."""
    (reserved,) = ledger.reserve(claim)
    assert isinstance(reserved, Reserved)
    return reserved


def test_a_repair_is_an_attempt_with_its_own_hold_and_kind(ledger: LedgerUnderTest) -> None:
    first = broken(ledger)

    repair = claimed(ledger, a_repair(first))

    assert (repair.kind, repair.attempt) == (AttemptKind.REPAIR, 2)
    assert ledger.figures() == (130, 60)
    view = ledger.view(first.key)
    assert view.last is not None
    assert (view.last.kind, view.last.hold_nano_usd) == (AttemptKind.REPAIR, 130)


def test_the_kinds_of_other_attempts_are_told_too(ledger: LedgerUnderTest) -> None:
    first = claimed(ledger, a_reserve(ledger.queued(), 100))
    broken(ledger, first.ref)

    again = claimed(ledger, a_reserve(first.ref.key, 100))

    assert (first.kind, again.kind) == (AttemptKind.FIRST, AttemptKind.RETRY)


def test_the_same_claim_again_is_told_the_same_kind(ledger: LedgerUnderTest) -> None:
    """Its first answer may have been lost, and the kind says what is sent."""
    claim = a_repair(broken(ledger))

    assert claimed(ledger, claim) == claimed(ledger, claim)


def test_a_repair_that_was_prepared_before_another_attempt_is_none(ledger: LedgerUnderTest) -> None:
    """That attempt may have been the repair, and the process that prepared this one did not know."""
    first = broken(ledger)
    broken(ledger, claimed(ledger, a_repair(first)).ref)

    late = claimed(ledger, a_repair(first, after=1))

    assert (late.kind, late.attempt) == (AttemptKind.RETRY, 3)


def test_the_longer_request_becomes_the_bound_of_the_call(ledger: LedgerUnderTest) -> None:
    """Limits of input tokens and the check of its usage count with it. It never falls."""
    first = broken(ledger)
    repair = claimed(ledger, a_repair(first))
    assert ledger.view(first.key).input_token_bound == 250

    broken(ledger, repair.ref)
    claimed(ledger, a_reserve(first.key, 100, input_token_bound=120))

    assert ledger.view(first.key).input_token_bound == 250


def test_a_bound_that_no_column_takes_is_refused_alone(ledger: LedgerUnderTest) -> None:
    first, other = broken(ledger), ledger.queued("other")

    outcomes = ledger.reserve(
        a_reserve(first.key, 1, input_token_bound=INPUT_TOKENS_MAX + 1),
        a_reserve(other, 100),
    )

    assert [type(outcome) for outcome in outcomes] == [Unstorable, Reserved]


def test_the_newest_failed_attempt_with_a_reply_can_be_repaired(ledger: LedgerUnderTest) -> None:
    first = broken(ledger)
    found = ledger.view(first.key).broken
    assert found is not None
    assert (found.attempt_id, found.reply_bytes) == (first.attempt_id, len(REPLY))

    second = claimed(ledger, a_repair(first)).ref
    assert ledger.view(first.key).broken == found
    broken(ledger, second)

    newest = ledger.view(first.key).broken
    assert newest is not None
    assert newest.attempt_id == second.attempt_id


def test_an_attempt_without_a_reply_cannot_be_repaired(ledger: LedgerUnderTest) -> None:
    ref = ledger.running()
    ledger.record(an_answer(ref, reply=None, error=UNBILLED.to_json()))
    ledger.settle(a_failure(ref, CallState.WAITING, due_in_s=0.0))

    assert ledger.view(ref.key).broken is None
    assert ledger.view(ledger.succeeded("other").key).broken is None
    assert ledger.view(ledger.queued("third")).broken is None


@pytest.mark.parametrize(
    ("reply", "posted", "counted"),
    [(REPLY, 60, 1), (REPLY, 0, 1), (None, 60, 1), (None, 0, 0)],
    ids=["paid", "of a free model", "paid without a reply", "free"],
)
def test_repairs_count_unless_they_surely_cost_nothing(
    ledger: LedgerUnderTest, reply: bytes | None, posted: int, counted: int
) -> None:
    repair = claimed(ledger, a_repair(broken(ledger))).ref
    assert ledger.view(repair.key).repairs == 1

    ledger.record(an_answer(repair, reply=reply, error=UNBILLED.to_json()))
    ledger.settle(a_failure(repair, CallState.WAITING, posted_nano_usd=posted, due_in_s=0.0))

    assert ledger.view(repair.key).repairs == counted


def test_a_repair_whose_worker_was_lost_counts(ledger: LedgerUnderTest) -> None:
    """It may have been answered, and is paid for."""
    repair = claimed(ledger, a_repair(broken(ledger))).ref
    ledger.settle(a_loss(repair))

    view = ledger.view(repair.key)

    assert view.repairs == 1
    assert view.last is not None
    assert view.last.status is AttemptStatus.UNKNOWN


def test_repairs_of_another_generation_do_not_count(ledger: LedgerUnderTest) -> None:
    repair = claimed(ledger, a_repair(broken(ledger))).ref
    ledger.record(an_answer(repair))
    ledger.settle(a_failure(repair, CallState.DEAD, posted_nano_usd=60))
    assert ledger.view(repair.key).repairs == 1

    again = ledger.queued(force=True)

    view = ledger.view(again)
    assert (again.generation, view.repairs, view.broken) == (2, 0, None)


def test_a_repair_that_fits_no_budget_leaves_its_call_dead(ledger: LedgerUnderTest) -> None:
    """What was paid stays posted, and the same submission must not pay again unasked."""
    first = broken(ledger, ledger.running(link=LINK))

    (outcome,) = ledger.reserve(replace(a_repair(first), hold_nano_usd=LIMIT + 1))

    assert isinstance(outcome, Refused)
    assert outcome.refusal is not None
    assert (outcome.refusal.reason, outcome.state) == (RefusalReason.TOO_SMALL, CallState.DEAD)
    view = ledger.view(first.key)
    assert (view.state, view.error, view.end_reason) == (
        CallState.DEAD, BROKEN.to_json(), "invalid_output",
    )  # fmt: skip
    assert ledger.figures() == (0, 60)
    assert [link.link for link in ledger.links()] == [LINK]
    (group,) = ledger.operations.dead_groups(CallFilter())
    assert group.error_fingerprint == BROKEN.fingerprint("openai")
    assert ledger.submit(a_submission())[0].outcome is SubmitOutcome.FAILED


def test_a_repair_that_fits_no_limit_leaves_its_call_dead(ledger: LedgerUnderTest) -> None:
    """The provider allows fewer tokens a minute than the longer request has."""
    first = broken(ledger)
    declare(ledger, a_rule(200, measure=Measure.INPUT_TOKENS))

    (outcome,) = ledger.reserve(a_repair(first))

    assert isinstance(outcome, Refused)
    view = ledger.view(first.key)
    assert (outcome.state, view.state, view.end_reason) == (
        CallState.DEAD, CallState.DEAD, "invalid_output",
    )  # fmt: skip


def test_a_repair_that_is_not_sent_before_its_deadline_leaves_its_call_dead(
    ledger: LedgerUnderTest,
) -> None:
    """What was paid stays posted, and the same submission must not pay again unasked."""
    (submitted,) = ledger.submit(a_submission(start_within_s=60.0, link=LINK))
    first = broken(ledger, claimed(ledger, a_reserve(submitted.key, 100)).ref)
    ledger.age(61)

    (outcome,) = ledger.reserve(a_repair(first))

    assert isinstance(outcome, Refused)
    assert (outcome.state, outcome.code) == (CallState.DEAD, "deadline_passed")
    view = ledger.view(first.key)
    assert (view.state, view.error, view.end_reason) == (
        CallState.DEAD, BROKEN.to_json(), "invalid_output",
    )  # fmt: skip
    assert [link.link for link in ledger.links()] == [LINK]


def test_a_repair_that_has_waited_long_enough_leaves_its_call_dead(ledger: LedgerUnderTest) -> None:
    """It waited for money that others hold, and none came back."""
    first = broken(ledger)
    ledger.running("other", LIMIT - 100)
    assert_waits(ledger, a_repair(first, wait_max_s=60.0))
    ledger.age(61)
    ledger.requeued(first.key)

    (outcome,) = ledger.reserve(a_repair(first, wait_max_s=60.0))

    assert isinstance(outcome, Refused)
    assert outcome.state is CallState.DEAD
    assert ledger.view(first.key).error == BROKEN.to_json()


def assert_waits(ledger: LedgerUnderTest, claim: Reserve) -> None:
    """The claim is refused, and its call waits."""
    (outcome,) = ledger.reserve(claim)
    assert isinstance(outcome, Refused)
    assert outcome.state is CallState.WAITING


def test_a_repair_waits_for_a_budget_that_will_have_room(ledger: LedgerUnderTest) -> None:
    """What others hold may come back."""
    first = broken(ledger)
    ledger.running("other", LIMIT - 100)

    (outcome,) = ledger.reserve(a_repair(first))

    assert isinstance(outcome, Refused)
    assert outcome.state is CallState.WAITING
    assert ledger.view(first.key).wait_reason == "budget_held"


def test_a_refused_attempt_that_is_no_repair_leaves_its_call_rejected(
    ledger: LedgerUnderTest,
) -> None:
    first = broken(ledger)

    (outcome,) = ledger.reserve(a_reserve(first.key, LIMIT + 1))

    assert isinstance(outcome, Refused)
    assert outcome.state is CallState.REJECTED
