"""Late answers and superseded attempts, on both ledgers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callgate.domain.calls import AttemptStatus, Bodies, CallKey, CallState
from callgate.domain.ledger import DueKind, NotClaimed, Reserved, Settled
from callgate.domain.provider import Billing, Failure
from tests.support.ledger_under_test import (
    LINK,
    RATE_LIMITED,
    REPLY,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_success,
    an_answer,
)

TIMED_OUT = Failure("read_timeout", "no answer within 45 s", True, Billing.UNKNOWN)

# Late answers and zombies.


@pytest.mark.parametrize(
    "reach",
    [
        lambda ledger, key: None,
        lambda ledger, key: ledger.requeued(key),
        lambda ledger, key: ledger.claim(ledger.requeued(key)),
    ],
    ids=["waiting", "queued", "running"],
)
def test_a_late_success_ends_a_call_that_is_still_open(
    ledger: LedgerUnderTest, reach: Callable[[LedgerUnderTest, CallKey], object]
) -> None:
    """Waiting, queued or running again: the answer is there, so nobody needs another."""
    ref = ledger.lost(link=LINK)
    reach(ledger, ref.key)
    ledger.record(an_answer(ref))

    (settled,) = ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))

    view = ledger.view(ref.key, Bodies.REPLY)
    assert (settled.is_applied, settled.state) == (True, CallState.SUCCEEDED)
    assert settled.has_links
    assert [link.link for link in ledger.links(keys=[ref.key])] == [LINK]
    assert (view.state, view.error) == (CallState.SUCCEEDED, None)
    assert view.last is not None
    assert (view.last.attempt_id, view.last.reply) == (ref.attempt_id, REPLY)
    assert view.last.status is AttemptStatus.SUCCEEDED


def test_a_call_that_a_late_success_ended_cannot_be_claimed(ledger: LedgerUnderTest) -> None:
    """The message of its retry is on the way; it finds nothing to do."""
    ref = ledger.lost()
    ledger.requeued(ref.key)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, expected_status=AttemptStatus.UNKNOWN))

    outcomes = ledger.reserve(a_reserve(ref.key))

    assert outcomes == [NotClaimed(ref.key, CallState.SUCCEEDED)]


def test_a_claim_that_a_late_success_overtook_learns_of_its_attempt(
    ledger: LedgerUnderTest,
) -> None:
    """It was made, its answer was lost, and the call ended: only the claimant knows that nothing was sent."""
    ref = ledger.lost()
    claim = a_reserve(ledger.requeued(ref.key))
    (made,) = ledger.reserve(claim)
    assert isinstance(made, Reserved)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))

    (again,) = ledger.reserve(claim)
    (others,) = ledger.reserve(a_reserve(ref.key))

    assert again == NotClaimed(ref.key, CallState.SUCCEEDED, made.ref)
    assert others == NotClaimed(ref.key, CallState.SUCCEEDED)


def test_the_attempt_that_was_overtaken_is_still_paid(ledger: LedgerUnderTest) -> None:
    """It was sent, so it is posted; the winner stays the winner."""
    first = ledger.lost()
    second = ledger.claim(ledger.requeued(first.key))
    ledger.record(an_answer(first), an_answer(second))
    ledger.settle(a_success(first, 60, expected_status=AttemptStatus.UNKNOWN))

    (settled,) = ledger.settle(a_success(second, 70))

    view = ledger.view(first.key)
    assert settled == Settled(second, True, CallState.SUCCEEDED)
    assert view.last is not None
    assert (view.last.attempt_id, view.posted_nano_usd) == (first.attempt_id, 130)
    assert ledger.figures() == (0, 130)


def test_a_failure_of_the_overtaken_attempt_moves_nothing(ledger: LedgerUnderTest) -> None:
    """The call has ended well; what comes after it is only money."""
    first = ledger.lost()
    second = ledger.claim(ledger.requeued(first.key))
    ledger.record(an_answer(first), an_answer(second))

    settled = ledger.settle(
        a_success(first, 60, expected_status=AttemptStatus.UNKNOWN),
        a_failure(second, posted_nano_usd=5),
    )

    assert [s.state for s in settled] == [CallState.SUCCEEDED] * 2
    assert ledger.view(first.key).error is None
    assert ledger.figures() == (0, 65)


def test_a_late_failure_only_moves_money(ledger: LedgerUnderTest) -> None:
    """The call is at its next attempt already, and stays there."""
    first = ledger.lost()
    second = ledger.claim(ledger.requeued(first.key))
    call = ledger.view(first.key)
    ledger.record(an_answer(first, reply=None, error=RATE_LIMITED.to_json()))

    (settled,) = ledger.settle(a_failure(first, expected_status=AttemptStatus.UNKNOWN))

    after = ledger.view(first.key)
    assert settled == Settled(first, True, CallState.RUNNING)
    assert (after.state, after.due_at, after.error) == (call.state, call.due_at, call.error)
    assert after.last is not None
    assert after.last.attempt_id == second.attempt_id
    assert ledger.figures() == (100, 0)


def test_a_late_answer_never_moves_an_ended_call(ledger: LedgerUnderTest) -> None:
    """Dead is dead, its submitters were told so; only the money is put right."""
    ref = ledger.running()
    ledger.settle(a_loss(ref, next_state=CallState.DEAD))
    dead = ledger.view(ref.key)
    ledger.record(an_answer(ref))

    (settled,) = ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))

    after = ledger.view(ref.key)
    assert settled == Settled(ref, True, CallState.DEAD)
    assert (after.state, after.due_at, after.error) == (CallState.DEAD, None, dead.error)
    assert ledger.figures() == (0, 60)


def test_a_late_answer_can_leave_the_attempt_unknown(ledger: LedgerUnderTest) -> None:
    """It said nothing about the bill: the hold stays posted, and that was the last word."""
    ref = ledger.lost()
    ledger.record(an_answer(ref, reply=None, error=TIMED_OUT.to_json()))
    late = a_loss(ref, 100, expected_status=AttemptStatus.UNKNOWN, error=TIMED_OUT.to_json())

    first, second = ledger.settle(late, late)

    assert (first.is_applied, second.is_applied) == (True, False)
    assert ledger.figures() == (0, 100)
    ledger.age(60)
    assert [kind for kind, _ in ledger.due_kinds()] == [DueKind.PUBLISH]


def test_a_late_answer_may_cost_more_than_the_hold(ledger: LedgerUnderTest) -> None:
    """The truth is posted, whichever way it differs."""
    ref = ledger.lost()
    ledger.record(an_answer(ref))

    ledger.settle(a_success(ref, 130, expected_status=AttemptStatus.UNKNOWN))

    assert ledger.figures() == (0, 130)
