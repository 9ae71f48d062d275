"""Recording and settling: an answer is kept once and posted once, and moves its call at most once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from uuid import uuid4

import pytest

from callgate.domain.calls import AttemptRef, AttemptStatus, Bodies, CallKey, CallState
from callgate.domain.ledger import RecordOutcome, Settle, Settled
from callgate.domain.provider import Billing, Failure
from callgate.domain.reports import CallFilter
from tests.support.ledger_under_test import (
    RATE_LIMITED,
    REPLY,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_success,
    an_answer,
)

TIMED_OUT = Failure("read_timeout", "no answer within 45 s", True, Billing.UNKNOWN)


def in_s(ledger: LedgerUnderTest, key: CallKey) -> float:
    """How far away the call's `due_at` is."""
    due_at = ledger.view(key).due_at
    assert due_at is not None
    return (due_at - ledger.now()).total_seconds()


# Record.


def test_an_answer_is_kept_before_anything_else(ledger: LedgerUnderTest) -> None:
    """The attempt is answered; money and call are as they were."""
    ref = ledger.running()
    call = ledger.view(ref.key)

    outcomes = ledger.record(an_answer(ref))

    after = ledger.view(ref, Bodies.BOTH)
    assert outcomes == [RecordOutcome.RECORDED]
    assert after.last is not None
    assert (after.last.status, after.last.reply) == (AttemptStatus.ANSWERED, REPLY)
    assert (after.state, after.due_at) == (call.state, call.due_at)
    assert ledger.figures() == (100, 0)


def test_an_error_is_an_answer_too(ledger: LedgerUnderTest) -> None:
    """Every outcome takes the same path."""
    ref = ledger.running()

    outcomes = ledger.record(an_answer(ref, reply=None, error=RATE_LIMITED.to_json()))

    last = ledger.view(ref, Bodies.BOTH).last
    assert outcomes == [RecordOutcome.RECORDED]
    assert last is not None
    assert (last.status, last.reply) == (AttemptStatus.ANSWERED, None)
    assert last.error is not None
    assert Failure.from_json(last.error) == RATE_LIMITED


def test_the_first_answer_stays(ledger: LedgerUnderTest) -> None:
    """Recording again is answered alike and changes nothing."""
    ref = ledger.answered()
    before = ledger.view(ref, Bodies.BOTH)

    outcomes = ledger.record(an_answer(ref, reply=b"{}", error="{}", latency_ms=1))

    assert outcomes == [RecordOutcome.RECORDED]
    assert ledger.view(ref, Bodies.BOTH) == before


def test_a_late_answer_is_kept_once(ledger: LedgerUnderTest) -> None:
    """The attempt stays unknown and posted in full until it is settled with the truth."""
    ref = ledger.lost()

    first = ledger.record(an_answer(ref))
    second = ledger.record(an_answer(ref, reply=b"{}"))

    last = ledger.view(ref, Bodies.BOTH).last
    assert (first, second) == ([RecordOutcome.LATE], [RecordOutcome.CLOSED])
    assert last is not None
    assert (last.status, last.posted_nano_usd) == (AttemptStatus.UNKNOWN, 100)
    assert (last.reply, last.latency_ms) == (REPLY, 40)
    assert ledger.state(ref.key) is CallState.WAITING


@pytest.mark.parametrize(
    "bring",
    [
        lambda ledger: ledger.succeeded(),
        lambda ledger: ledger.dead(),
        lambda ledger: ledger.waiting(),
        lambda ledger: AttemptRef(ledger.queued(), uuid4()),
    ],
)
def test_a_settled_attempt_is_closed(
    ledger: LedgerUnderTest, bring: Callable[[LedgerUnderTest], AttemptRef]
) -> None:
    """What an answer has settled, or what does not exist, keeps nothing more."""
    ref = bring(ledger)
    before = ledger.view(ref, Bodies.BOTH)

    outcomes = ledger.record(an_answer(ref, reply=b"{}"))

    assert outcomes == [RecordOutcome.CLOSED]
    assert ledger.view(ref, Bodies.BOTH) == before


def test_records_are_answered_in_their_order(ledger: LedgerUnderTest) -> None:
    """One batch may hold anything."""
    late, fresh, done = ledger.lost("late"), ledger.running("fresh"), ledger.succeeded("done")

    outcomes = ledger.record(an_answer(done), an_answer(fresh), an_answer(late), an_answer(fresh))

    assert outcomes == [
        RecordOutcome.CLOSED,
        RecordOutcome.RECORDED,
        RecordOutcome.LATE,
        RecordOutcome.RECORDED,
    ]
    assert ledger.record() == []


# Settle: ends and retries.


def test_a_success_ends_its_call(ledger: LedgerUnderTest) -> None:
    """Nothing waits any more: no error, and without a link no `due_at`."""
    ref = ledger.answered()

    (settled,) = ledger.settle(a_success(ref))

    view = ledger.view(ref.key)
    assert settled == Settled(ref, True, CallState.SUCCEEDED, has_ended=True)
    assert (view.state, view.due_at, view.error) == (CallState.SUCCEEDED, None, None)


@pytest.mark.parametrize("anomalies", [(), ("usage_zero",), ("tier_unasked", "price_unknown")])
def test_what_is_odd_about_a_bill_is_kept(
    ledger: LedgerUnderTest, anomalies: tuple[str, ...]
) -> None:
    """In the order it was found; usage that nobody told is unknown, not 0."""
    ref = ledger.answered()

    ledger.settle(a_success(ref, usage=None, anomalies=anomalies))

    last = ledger.view(ref).last
    assert last is not None
    assert (last.usage, last.anomalies) == (None, anomalies)


def test_a_failure_can_be_tried_again(ledger: LedgerUnderTest) -> None:
    """The call waits as long as it was told, with its last failure."""
    ref = ledger.answered()

    (settled,) = ledger.settle(a_failure(ref, CallState.WAITING, due_in_s=20))

    view = ledger.view(ref.key)
    assert settled == Settled(ref, True, CallState.WAITING)
    assert (view.state, view.error) == (CallState.WAITING, RATE_LIMITED.to_json())
    assert abs(in_s(ledger, ref.key) - 20) < 2
    assert view.last is not None
    assert (view.last.status, view.last.posted_nano_usd) == (AttemptStatus.FAILED, 0)


def test_a_failure_can_end_its_call(ledger: LedgerUnderTest) -> None:
    """A dead letter keeps its failure, and the fingerprint it is grouped by."""
    ref = ledger.answered()

    (settled,) = ledger.settle(a_failure(ref, CallState.DEAD))

    view = ledger.view(ref.key)
    assert settled == Settled(ref, True, CallState.DEAD, has_ended=True)
    assert (view.state, view.due_at) == (CallState.DEAD, None)
    assert view.error == RATE_LIMITED.to_json()
    (group,) = ledger.operations.dead_groups(CallFilter())
    assert group.error_fingerprint == RATE_LIMITED.fingerprint("openai")


def test_a_retry_begins_without_the_old_error(ledger: LedgerUnderTest) -> None:
    """An error says why a call waits, was rejected or died; a running call does none of it."""
    key = ledger.requeued(ledger.waiting().key)

    ledger.claim(key)

    assert ledger.view(key).error is None


@pytest.mark.parametrize("next_state", [CallState.WAITING, CallState.DEAD])
def test_an_attempt_that_ran_out_becomes_unknown(
    ledger: LedgerUnderTest, next_state: Literal[CallState.WAITING, CallState.DEAD]
) -> None:
    """Dispatched, and never heard of: posted in full, tried again or given up."""
    ref = ledger.running()

    (settled,) = ledger.settle(a_loss(ref, next_state=next_state))

    view = ledger.view(ref.key)
    assert (settled.is_applied, settled.state, view.state) == (True, next_state, next_state)
    assert view.last is not None
    assert (view.last.status, view.last.posted_nano_usd) == (AttemptStatus.UNKNOWN, 100)
    assert view.worker_losses == 1


def test_an_answer_can_leave_the_bill_unknown(ledger: LedgerUnderTest) -> None:
    """A read timeout is heard of, but not its bill: unknown, though no worker was lost."""
    ref = ledger.running()
    ledger.record(an_answer(ref, reply=None, error=TIMED_OUT.to_json()))

    ledger.settle(
        a_loss(ref, 100, expected_status=AttemptStatus.ANSWERED, error=TIMED_OUT.to_json())
    )

    view = ledger.view(ref.key)
    assert view.last is not None
    assert view.last.status is AttemptStatus.UNKNOWN
    assert (view.posted_nano_usd, view.worker_losses) == (100, 0)
    assert ledger.record(an_answer(ref)) == [RecordOutcome.CLOSED]


# Settle: what is left alone.


@pytest.mark.parametrize(
    ("bring", "settle"),
    [
        (lambda ledger: ledger.running(), lambda ref: a_success(ref)),
        (lambda ledger: ledger.running(), lambda ref: a_failure(ref)),
        (
            lambda ledger: ledger.running(),
            lambda ref: a_success(ref, expected_status=AttemptStatus.DISPATCHED),
        ),
        (
            lambda ledger: ledger.running(),
            lambda ref: a_failure(ref, expected_status=AttemptStatus.DISPATCHED),
        ),
        (lambda ledger: ledger.answered(), lambda ref: a_loss(ref)),
        (lambda ledger: ledger.lost(), lambda ref: a_loss(ref)),
        (lambda ledger: ledger.lost(), lambda ref: a_success(ref)),
        (
            lambda ledger: ledger.lost(),
            lambda ref: a_success(ref, expected_status=AttemptStatus.UNKNOWN),
        ),
        (lambda ledger: ledger.succeeded(), lambda ref: a_success(ref, 70)),
        (lambda ledger: ledger.succeeded(), lambda ref: a_failure(ref)),
        (lambda ledger: ledger.dead(), lambda ref: a_success(ref)),
        (
            lambda ledger: ledger.dead(),
            lambda ref: a_failure(ref, expected_status=AttemptStatus.FAILED),
        ),
        (
            lambda ledger: AttemptRef(ledger.running().key, uuid4()),
            lambda ref: a_loss(ref),
        ),
    ],
    ids=[
        "success of an unanswered attempt",
        "failure of an unanswered attempt",
        "success of a dispatched attempt",
        "failure of a dispatched attempt",
        "loss of an answered attempt",
        "second loss",
        "late success decided before the loss",
        "late success without an answer",
        "second success",
        "failure after success",
        "success after failure",
        "second failure",
        "attempt that does not exist",
    ],
)
def test_what_changed_meanwhile_is_left_alone(
    ledger: LedgerUnderTest,
    bring: Callable[[LedgerUnderTest], AttemptRef],
    settle: Callable[[AttemptRef], Settle],
) -> None:
    """A decision holds for the attempt as it was seen; otherwise nothing is posted and nothing moves."""
    ref = bring(ledger)
    before, figures = ledger.view(ref, Bodies.BOTH), ledger.figures()

    (settled,) = ledger.settle(settle(ref))

    assert settled == Settled(ref, False, before.state)
    assert ledger.view(ref, Bodies.BOTH) == before
    assert ledger.figures() == figures


def test_settles_are_answered_in_their_order(ledger: LedgerUnderTest) -> None:
    """One batch may hold anything; each row is decided after those before it."""
    good, bad, gone = ledger.answered("good"), ledger.answered("bad"), ledger.running("gone")

    settled = ledger.settle(a_loss(gone), a_success(good), a_failure(bad), a_success(good))

    assert [(s.ref, s.is_applied, s.state) for s in settled] == [
        (gone, True, CallState.WAITING),
        (good, True, CallState.SUCCEEDED),
        (bad, True, CallState.DEAD),
        (good, False, CallState.SUCCEEDED),
    ]
    assert ledger.settle() == []
