"""Recording and settling: answers are kept once, posted once, and move the call that they may move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal
from uuid import uuid4

import pytest

from callgate.domain.calls import AttemptRef, AttemptStatus, Bodies, CallKey, CallState
from callgate.domain.delivery import Delivery
from callgate.domain.ledger import DueKind, NotClaimed, RecordOutcome, Reserved, Settle, Settled
from callgate.domain.provider import Billing, Failure
from callgate.domain.reports import CallFilter
from tests.support.ledger_under_test import (
    LINK,
    ORG,
    RATE_LIMITED,
    REPLY,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
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
    assert settled == Settled(ref, True, CallState.SUCCEEDED)
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
    assert settled == Settled(ref, True, CallState.DEAD)
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


# Deliveries.


@pytest.mark.parametrize("state", [CallState.SUCCEEDED, CallState.DEAD])
def test_a_call_that_ends_brings_its_links_along(ledger: LedgerUnderTest, state: CallState) -> None:
    """Of everybody who gave one; the settler delivers them, and has ten seconds for it."""
    linked = [a_submission(link=LINK), a_submission(link=LINK.replace("7", "8"))]
    answers = ledger.submit(linked[0], a_submission(), linked[1])
    ref = ledger.claim(answers[0].key)
    ledger.record(an_answer(ref))
    settle = a_success(ref) if state is CallState.SUCCEEDED else a_failure(ref)

    (settled,) = ledger.settle(settle)

    assert settled.has_links
    assert ledger.view(ref.key).due_at is None
    assert ledger.links() == []
    found = ledger.links(keys=[ref.key])
    assert set(found) == {
        Delivery(new.submission_id, ref.key, state, str(new.link), ORG) for new in linked
    }
    assert len(found) == 2


def test_a_retry_brings_no_links(ledger: LedgerUnderTest) -> None:
    """Nobody is told before the end."""
    ref = ledger.answered(link=LINK)

    (settled,) = ledger.settle(a_failure(ref, CallState.WAITING, due_in_s=0))

    assert not settled.has_links
    assert ledger.links(keys=[ref.key]) == []


def test_a_delivered_call_rests(ledger: LedgerUnderTest) -> None:
    """It is told of with its last link, and not before."""
    first, second = a_submission(link=LINK), a_submission(link=LINK)
    key = ledger.submit(first, second)[0].key
    ref = ledger.claim(key)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref))

    ledger.deliver(first.submission_id)
    (left,) = ledger.links(keys=[key])
    ledger.deliver(second.submission_id, first.submission_id, uuid4())

    assert left.submission_id == second.submission_id
    assert ledger.links(keys=[key]) == []
    assert ledger.view(key).due_at is None
    ledger.deliver()


def test_a_link_on_a_replayed_call_falls_due_at_once(ledger: LedgerUnderTest) -> None:
    """Its submitter is told as if the call had just ended; those who were told before are not."""
    told = a_submission(link=LINK)
    ledger.submit(told)
    key = ledger.succeeded().key
    ledger.deliver(told.submission_id)
    late = a_submission(link=LINK)

    ledger.submit(late, a_submission())

    assert ledger.due() == ()
    assert ledger.links() == [Delivery(late.submission_id, key, CallState.SUCCEEDED, LINK, ORG)]


def test_a_link_on_a_dead_call_falls_due_at_once(ledger: LedgerUnderTest) -> None:
    """Bad news travels the same way."""
    key = ledger.dead().key
    late = a_submission(link=LINK)

    ledger.submit(late)

    assert ledger.links() == [Delivery(late.submission_id, key, CallState.DEAD, LINK, ORG)]


# Redrive.


def test_a_redrive_inherits_the_links_of_the_dead(ledger: LedgerUnderTest) -> None:
    """Everybody who waited for the dead generation hears of the next one, delivered before or not."""
    links = [LINK, LINK.replace("7", "8")]
    told, waiting = (a_submission(link=link) for link in links)
    key = ledger.submit(told, waiting, a_submission())[0].key
    ledger.dead()
    ledger.deliver(told.submission_id)

    (redriven,) = ledger.submit(a_submission(force=True, inherit_links=True))
    ref = ledger.claim(redriven.key)
    ledger.record(an_answer(ref))
    (settled,) = ledger.settle(a_success(ref))

    assert redriven.key == CallKey(key.call_id, 2)
    assert settled.has_links
    found = ledger.links(keys=[ref.key])
    assert sorted(d.link for d in found) == links
    ids = {d.submission_id for d in found}
    assert ids.isdisjoint({told.submission_id, waiting.submission_id})
    assert {(d.key, d.state) for d in found} == {(ref.key, CallState.SUCCEEDED)}


def test_a_redrive_still_tells_of_the_death(ledger: LedgerUnderTest) -> None:
    """An undelivered link of the dead generation is delivered as such; links fire per generation."""
    new = a_submission(link=LINK)
    ledger.submit(new)
    dead = ledger.dead()
    ledger.submit(a_submission(force=True, inherit_links=True))
    ledger.age(11)

    assert ledger.links() == [Delivery(new.submission_id, dead.key, CallState.DEAD, LINK, ORG)]


def test_links_are_inherited_again(ledger: LedgerUnderTest) -> None:
    """A redrive that dies too can be redriven, and still everybody hears of it once."""
    ledger.dead(link=LINK)
    for _ in range(2):
        (redriven,) = ledger.submit(a_submission(force=True, inherit_links=True))
        ref = ledger.claim(redriven.key)
        ledger.record(an_answer(ref))
        (settled,) = ledger.settle(a_failure(ref))

        assert [d.link for d in ledger.links(keys=[settled.ref.key])] == [LINK]


def test_a_forced_run_inherits_nothing_unasked(ledger: LedgerUnderTest) -> None:
    """Only a redrive speaks for those who asked before."""
    ledger.dead(link=LINK)

    ref = ledger.running(force=True)
    ledger.record(an_answer(ref))

    assert not ledger.settle(a_success(ref))[0].has_links


def test_a_second_redrive_joins_the_first(ledger: LedgerUnderTest) -> None:
    """Two operators at once: one next generation, one inheritance."""
    ledger.dead(link=LINK)

    first, second = ledger.submit(*[a_submission(force=True, inherit_links=True) for _ in range(2)])

    ref = ledger.claim(first.key)
    ledger.record(an_answer(ref))
    assert second.key == first.key
    assert ledger.settle(a_success(ref))[0].has_links
    assert [d.link for d in ledger.links(keys=[ref.key])] == [LINK]
