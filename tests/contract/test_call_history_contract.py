"""What is kept of one call: its attempts, who asked, what operators did; on both ledgers."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from callgate.domain.call_history import Step, saved_nano_usd, timeline
from callgate.domain.calls import AttemptStatus, CallKey, CallState
from callgate.domain.delivery import LinkOutcome
from callgate.domain.reports import By
from callgate.domain.short_ids import read_short_id
from callgate.domain.unknown import SettleByHand
from tests.support.ledger_under_test import (
    LINK,
    REPLY,
    LedgerUnderTest,
    a_submission,
    a_success,
    an_answer,
)

ANN = By("ann", "ticket 7")


def test_a_call_that_was_tried_twice_has_both_attempts(ledger: LedgerUnderTest) -> None:
    first = ledger.lost()
    second = ledger.claim(ledger.requeued(first.key))
    ledger.record(an_answer(second))
    ledger.settle(a_success(second, 60))

    history = ledger.operations.call_history(first.key)

    assert [a.view.attempt_id for a in history.attempts] == [first.attempt_id, second.attempt_id]
    lost, won = history.attempts
    assert (lost.view.status, lost.view.posted_nano_usd) == (AttemptStatus.UNKNOWN, 100)
    assert (lost.reply_bytes, won.reply_bytes) == (None, len(REPLY))
    assert won.view.reply is None
    assert lost.posted_at is not None
    assert won.settled_by_hand_at is None
    assert won.view == ledger.view(first.key).last


def test_who_joined_is_counted_with_what_that_saved(ledger: LedgerUnderTest) -> None:
    ledger.submit(a_submission(idempotency_key="mine"))
    key = ledger.queued()
    ref = ledger.claim(key)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, 60))
    ledger.submit(a_submission())

    submissions = ledger.operations.call_history(key).submissions

    assert [line.outcome for line in submissions.lines] == ["created", "joined", "replayed"]
    assert submissions.lines[0].idempotency_key == "mine"
    assert (submissions.total, submissions.collapsed, submissions.saving) == (3, 2, 2)
    assert saved_nano_usd(ledger.view(key), submissions) == 120


def test_a_call_that_failed_saved_nothing(ledger: LedgerUnderTest) -> None:
    key = ledger.dead().key
    ledger.submit(a_submission())

    submissions = ledger.operations.call_history(key).submissions

    assert (submissions.collapsed, submissions.saving) == (1, 0)
    assert saved_nano_usd(ledger.view(key), submissions) == 0


def test_links_are_told_tried_again_or_given_up(ledger: LedgerUnderTest) -> None:
    batch = [a_submission(link=LINK) for _ in range(3)]
    key = ledger.submit(*batch, a_submission())[0].key
    ref = ledger.claim(key)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref))
    told, again, lost = (submission.submission_id for submission in batch)
    ledger.ledger.keep_link_outcomes(
        [LinkOutcome(told), LinkOutcome(again, "no queue", 60.0), LinkOutcome(lost, "too large")]
    )

    submissions = ledger.operations.call_history(key).submissions

    lines = {line.submission_id: line for line in submissions.lines}
    assert (submissions.links, submissions.told, submissions.given_up) == (3, 1, 1)
    assert lines[told].delivered_at is not None
    assert (lines[again].failure, lines[again].tries) == ("no queue", 1)
    assert lines[again].try_at is not None
    assert (lines[lost].try_at, lines[lost].given_up_at is not None) == (None, True)
    assert [line.has_link for line in submissions.lines].count(False) == 1


def test_all_generations_are_named(ledger: LedgerUnderTest) -> None:
    first = ledger.dead("again").key
    second = ledger.queued("again", force=True)

    for key in (first, second):
        generations = ledger.operations.call_history(key).generations
        assert [(g.key, g.state) for g in generations] == [
            (second, CallState.QUEUED),
            (first, CallState.DEAD),
        ]


def test_what_operators_did_stands_beside_it(ledger: LedgerUnderTest) -> None:
    """To the call, or to one of its attempts; not to another call."""
    ref = ledger.lost("one")
    other = ledger.queued("other")
    ledger.operations.settle_by_hand([SettleByHand(ref.attempt_id, 100, 40)], by=ANN)
    ledger.operations.cancel(other, by=ANN)
    ledger.operations.cancel(ref.key, by=By("bea", "no longer needed"))

    history = ledger.operations.call_history(ref.key)

    assert [(a.action, a.by.operator) for a in history.actions] == [
        ("call.cancel", "bea"),
        ("unknown.settle", "ann"),
    ]
    assert history.attempts[0].settled_by_hand_at is not None


@pytest.mark.parametrize("state", ["queued", "waiting"])
def test_cancelling_is_logged(ledger: LedgerUnderTest, state: str) -> None:
    made = getattr(ledger, state)()
    key = made if isinstance(made, CallKey) else made.key

    assert ledger.operations.cancel(key, by=ANN)

    view = ledger.view(key)
    assert (view.state, view.end_reason) == (CallState.REJECTED, "cancelled")
    (action,) = ledger.operations.actions(limit=1)
    assert (action.by, action.action, action.org_id, action.subject) == (
        ANN,
        "call.cancel",
        "acme",
        key.task_id,
    )


@pytest.mark.parametrize("state", ["running", "succeeded", "dead"])
def test_what_is_paid_or_has_ended_is_not_cancelled(ledger: LedgerUnderTest, state: str) -> None:
    """And nothing is logged."""
    key = getattr(ledger, state)().key
    logged = ledger.operations.actions(limit=10)

    assert not ledger.operations.cancel(key, by=ANN)
    assert not ledger.operations.cancel(CallKey(uuid4(), 1), by=ANN)

    assert ledger.state(key) == state
    assert ledger.operations.actions(limit=10) == logged


def test_showing_a_body_is_logged(ledger: LedgerUnderTest) -> None:
    ref = ledger.succeeded("invoice")

    request = ledger.operations.show_body(ref.key, None, by=ANN)
    reply = ledger.operations.show_body(ref.key, ref.attempt_id, by=ANN)

    assert request is not None
    assert reply is not None
    assert request.data == b'{"messages": ["invoice"]}'
    assert (reply.data, reply.size_bytes) == (REPLY, len(REPLY))
    logged = ledger.operations.actions(limit=2)
    assert [(a.by, a.action, a.subject, a.detail) for a in logged] == [
        (
            ANN,
            "body.show",
            ref.key.task_id,
            {"body": "reply", "attempt_id": str(ref.attempt_id)},
        ),
        (ANN, "body.show", ref.key.task_id, {"body": "request", "attempt_id": None}),
    ]


def test_a_body_that_is_gone_is_none_and_that_is_logged_too(ledger: LedgerUnderTest) -> None:
    """Somebody wanted to read it."""
    ref = ledger.succeeded()
    ledger.age(20)
    ledger.due()
    ledger.age(3_600)
    assert ledger.purge().calls == 1
    (attempt,) = ledger.operations.call_history(ref.key).attempts

    for attempt_id in (None, attempt.view.attempt_id):
        body = ledger.operations.show_body(ref.key, attempt_id, by=ANN)
        assert body is not None
        assert (body.data, body.size_bytes) == (None, 0)
    assert [a.action for a in ledger.operations.actions(limit=2)] == ["body.show"] * 2


def test_no_body_is_shown_of_what_does_not_exist(ledger: LedgerUnderTest) -> None:
    """Nor the reply of another call's attempt under this call's name."""
    ref, other = ledger.succeeded("one"), ledger.succeeded("two")
    logged = ledger.operations.actions(limit=10)

    shows = [
        ledger.operations.show_body(CallKey(uuid4(), 1), None, by=ANN),
        ledger.operations.show_body(ref.key, uuid4(), by=ANN),
        ledger.operations.show_body(ref.key, other.attempt_id, by=ANN),
    ]

    assert shows == [None] * 3
    assert ledger.operations.actions(limit=10) == logged


def test_of_a_long_body_the_beginning_is_shown(ledger: LedgerUnderTest) -> None:
    request = b'{"messages": ["' + b"x" * 300_000 + b'"]}'
    key = ledger.queued(request=request)

    body = ledger.operations.show_body(key, None, by=ANN)

    assert body is not None
    assert (body.data, body.size_bytes) == (request[: 256 * 1024], len(request))


def test_a_timeline_tells_a_call_from_submission_to_its_links(ledger: LedgerUnderTest) -> None:
    """In the order in which it happened."""
    submission = a_submission(link=LINK)
    key = ledger.submit(submission)[0].key
    ledger.age(5)
    ref = ledger.claim(key)
    ledger.age(5)
    ledger.record(an_answer(ref))
    ledger.age(5)
    ledger.settle(a_success(ref))
    ledger.age(5)
    ledger.deliver(submission.submission_id)

    events = timeline(ledger.view(key), ledger.operations.call_history(key))

    assert [event.step for event in events] == [
        Step.SUBMITTED,
        Step.QUEUED,
        Step.RESERVED,
        Step.ANSWERED,
        Step.SETTLED,
        Step.TOLD,
    ]


def test_there_is_no_history_of_an_unknown_call(ledger: LedgerUnderTest) -> None:
    history = ledger.operations.call_history(CallKey(uuid4(), 1))

    assert (history.attempts, history.submissions.total) == ((), 0)
    assert (history.generations, history.actions) == ((), ())


def test_a_call_is_found_by_its_first_digits(ledger: LedgerUnderTest) -> None:
    """The range of eight digits has just that call; a wider one is not looked through."""
    named, _ = ledger.queued("invoice").call_id, ledger.queued("other")
    short = read_short_id(named.hex[:8])
    ask = ledger.operations.call_ids

    assert ask(short.first, short.last, limit=10) == [named]
    assert ask(named, named, limit=10) == [named]
    assert ask(short.first, short.last, limit=0) == []
    assert ask(UUID(int=0), UUID(int=2**128 - 1), limit=10) == []
