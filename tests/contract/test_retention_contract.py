"""Retention: bodies go when they are too old, the accounting stays, and nothing that is still needed is touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.calls import AttemptRef, AttemptStatus, Bodies, CallKey, CallState
from callgate.domain.errors import ResultPurged
from callgate.domain.ledger import RecordOutcome, SubmitOutcome
from callgate.domain.reports import EndReason, UnprocessableMessage
from callgate.domain.retention import BodyAges, Purged
from callgate.services.audit import audit
from callgate.services.results import error_of
from tests.support.ledger_under_test import (
    DAY_S,
    LIMIT,
    LINK,
    ORG,
    USAGE,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_submission,
    a_success,
    an_answer,
)

Bring = Callable[[LedgerUnderTest], CallKey]


def has_bodies(ledger: LedgerUnderTest, key: CallKey) -> bool:
    """True if the request of a call can still be read; a call is purged whole or not at all."""
    view = ledger.view(key, Bodies.BOTH)
    has_request = view.request is not None
    if view.last is not None and view.state is CallState.SUCCEEDED:
        assert (view.last.reply is not None) == has_request
    assert view.is_purged == (not has_request)
    return has_request


def given_up(ledger: LedgerUnderTest, content: str = "invoice") -> AttemptRef:
    """A call that is dead because nobody knows what became of its request."""
    ref = ledger.running(content)
    assert ledger.settle(a_loss(ref, next_state=CallState.DEAD))[0].is_applied
    return ref


# What goes, and what stays.


def test_a_purge_takes_the_bodies_and_leaves_the_accounting(ledger: LedgerUnderTest) -> None:
    """Request and reply are gone; money, tokens, counts and states are what they were."""
    key = ledger.succeeded(posted_nano_usd=60).key
    ledger.submit(a_submission())
    costs, before = ledger.operations.costs(), ledger.view(key)

    assert ledger.purge() == Purged(calls=1)

    assert not has_bodies(ledger, key)
    after = ledger.view(key)
    assert after.last == before.last
    assert (after.state, after.posted_nano_usd, after.attempt) == (CallState.SUCCEEDED, 60, 1)
    assert ledger.operations.costs() == costs
    assert ledger.figures() == (0, 60)
    assert audit(ledger.operations).is_clean


def test_a_purged_success_answers_that_it_was_purged(ledger: LedgerUnderTest) -> None:
    """The holder of a handle hears why there is no text."""
    key = ledger.succeeded().key
    ledger.purge()

    assert isinstance(error_of(ledger.view(key, Bodies.REPLY)), ResultPurged)


def test_old_dead_letters_are_counted(ledger: LedgerUnderTest) -> None:
    """By the age of their organisation; those that are young or not dead are not counted."""
    ledger.operations.set_budget("other", ORG_SCOPE, Window.DAY, 1_000)
    _, _ = ledger.dead("one"), ledger.dead("two", org_id="other")
    ledger.succeeded("three")
    ages = [BodyAges(0.0), BodyAges(0.0, {"other": DAY_S}), BodyAges(None, {"other": 0.0})]

    count = lambda age: ledger.retention.old_dead_letters(age, limit=10)  # noqa: E731

    assert [*map(count, ages), count(BodyAges(DAY_S))] == [2, 1, 1, 0]


def test_a_purged_dead_call_keeps_its_reason(ledger: LedgerUnderTest) -> None:
    """It cannot be redriven, but says why it died; submitted again, it starts again."""
    key = ledger.dead().key
    error = ledger.view(key).error
    ledger.purge()

    assert not has_bodies(ledger, key)
    assert ledger.view(key).error == error
    (answer,) = ledger.submit(a_submission())
    assert (answer.outcome, answer.key.generation) == (SubmitOutcome.CREATED, 2)


def test_purging_twice_finds_nothing(ledger: LedgerUnderTest) -> None:
    """What is gone is not counted again."""
    ledger.succeeded()

    assert [ledger.purge(), ledger.purge()] == [Purged(calls=1), Purged()]


def test_every_generation_is_purged_and_none_deleted(ledger: LedgerUnderTest) -> None:
    """Older generations hold the same text as the newest."""
    first = ledger.succeeded().key
    second = ledger.dead(force=True).key

    assert ledger.purge() == Purged(calls=2)

    assert (second.generation, ledger.count_calls()) == (2, 2)
    assert not has_bodies(ledger, first)
    assert not has_bodies(ledger, second)


def test_an_idempotency_key_outlives_the_body(ledger: LedgerUnderTest) -> None:
    """It still belongs to its request, and still refuses another."""
    ledger.succeeded(idempotency_key="order-7")
    ledger.purge()

    again, other = ledger.submit(
        a_submission(idempotency_key="order-7"), a_submission("other", idempotency_key="order-7")
    )

    assert (again.outcome, again.key.generation) == (SubmitOutcome.CREATED, 2)
    assert other.outcome is SubmitOutcome.IDEMPOTENCY_MISMATCH


def test_a_submission_that_is_sent_again_after_the_purge_answers_as_before(
    ledger: LedgerUnderTest,
) -> None:
    """Its client hears of the call it belongs to; its link is not fired again."""
    new = a_submission(link=LINK)
    ledger.submit(new)
    key = ledger.succeeded().key
    ledger.deliver(new.submission_id)
    ledger.purge()

    (answer,) = ledger.submit(new)

    assert (answer.outcome, answer.key) == (SubmitOutcome.REPLAYED, key)
    assert ledger.due() == ()


# When.


def test_a_call_ages_from_its_end(ledger: LedgerUnderTest) -> None:
    """However long it waited before it ran."""
    key = ledger.queued()
    ledger.age(10 * DAY_S)
    ref = ledger.claim(key)
    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref))

    assert ledger.purge(7 * DAY_S) == Purged()
    ledger.age(6 * DAY_S)
    assert ledger.purge(7 * DAY_S) == Purged()
    ledger.age(1.1 * DAY_S)
    assert ledger.purge(7 * DAY_S) == Purged(calls=1)


def test_a_call_that_never_ran_ages_from_its_submission(ledger: LedgerUnderTest) -> None:
    """A cancelled call has no posting to count from, and no answer anybody could want."""
    key = ledger.queued()
    ledger.age(8 * DAY_S)
    ledger.operations.end([key], code=EndReason.CANCELLED, message="by a test")

    assert ledger.purge(9 * DAY_S) == Purged()
    assert ledger.purge(7 * DAY_S) == Purged(calls=1)


# Whose.


def test_every_organisation_has_an_age_of_its_own(ledger: LedgerUnderTest) -> None:
    """Its own, else the default one."""
    ledger.set_budget(LIMIT, org_id="zeta")
    ours, theirs = ledger.succeeded().key, ledger.succeeded(org_id="zeta").key
    ledger.age(5 * DAY_S)

    strict_with_us = BodyAges(default_s=7 * DAY_S, by_org_s={ORG: 3 * DAY_S})
    assert ledger.retention.purge(strict_with_us, limit=100) == Purged(calls=1)
    assert (has_bodies(ledger, ours), has_bodies(ledger, theirs)) == (False, True)

    lenient_with_us = BodyAges(default_s=3 * DAY_S, by_org_s={ORG: 7 * DAY_S})
    assert ledger.retention.purge(lenient_with_us, limit=100) == Purged(calls=1)
    assert not has_bodies(ledger, theirs)


def test_an_organisation_can_be_erased_alone(ledger: LedgerUnderTest) -> None:
    """Everybody else's bodies stay, whatever the default is."""
    ledger.set_budget(LIMIT, org_id="zeta")
    ours, theirs = ledger.succeeded().key, ledger.succeeded(org_id="zeta").key
    ledger.operations.keep_unprocessable(UnprocessableMessage("callgate.call", "not JSON", b"raw"))

    assert ledger.retention.purge(BodyAges(0.0).only(ORG), limit=100) == Purged(calls=1)

    assert (has_bodies(ledger, ours), has_bodies(ledger, theirs)) == (False, True)


def test_without_an_age_everything_is_kept(ledger: LedgerUnderTest) -> None:
    """Nothing is removed that nobody declared to be too old."""
    key = ledger.succeeded().key
    ledger.age(400 * DAY_S)

    assert ledger.retention.purge(BodyAges(), limit=100) == Purged()
    assert has_bodies(ledger, key)


# What is spared.


def ended_while_an_attempt_runs(ledger: LedgerUnderTest) -> CallKey:
    """A late answer ended the call; a newer attempt of it still holds money."""
    first = ledger.lost()
    ledger.claim(ledger.requeued(first.key))
    assert ledger.record(an_answer(first)) == [RecordOutcome.LATE]
    assert ledger.settle(a_success(first, expected_status=AttemptStatus.UNKNOWN))[0].is_applied
    assert ledger.state(first.key) is CallState.SUCCEEDED
    return first.key


def ended_with_a_late_answer(ledger: LedgerUnderTest) -> CallKey:
    """The answer is kept, its usage not posted yet."""
    ref = given_up(ledger)
    assert ledger.record(an_answer(ref)) == [RecordOutcome.LATE]
    return ref.key


@pytest.mark.parametrize(
    "bring",
    [
        lambda ledger: ledger.queued(),
        lambda ledger: ledger.running().key,
        lambda ledger: ledger.answered().key,
        lambda ledger: ledger.waiting(due_in_s=60).key,
        lambda ledger: ledger.succeeded(link=LINK).key,
        lambda ledger: ledger.dead(link=LINK).key,
        lambda ledger: ledger.rejected(link=LINK),
        ended_while_an_attempt_runs,
        ended_with_a_late_answer,
    ],
    ids=[
        "queued", "running", "answered", "waiting", "succeeded with a link", "dead with a link",
        "rejected with a link", "an attempt unposted", "a late answer unsettled",
    ],
)  # fmt: skip
def test_what_is_still_needed_is_spared(ledger: LedgerUnderTest, bring: Bring) -> None:
    """Open calls, links that nobody published, money that nobody posted, answers that nobody settled."""
    key = bring(ledger)
    bystander = ledger.rejected("bystander")

    assert ledger.purge() == Purged(calls=1)

    assert ledger.view(key, Bodies.REQUEST).request is not None
    assert not has_bodies(ledger, bystander)


def test_a_call_is_purged_once_everybody_was_told(ledger: LedgerUnderTest) -> None:
    """Its links are delivered: their arguments are not needed any more."""
    new = a_submission(link=LINK)
    ledger.submit(new)
    ledger.succeeded()
    assert ledger.purge() == Purged()

    ledger.deliver(new.submission_id)

    assert ledger.purge() == Purged(calls=1)


def test_what_a_purge_left_is_counted(ledger: LedgerUnderTest) -> None:
    """Also of calls that have ended and wait for something: an operator who must erase has to know."""
    ledger.succeeded("told")
    ledger.succeeded("untold", link=LINK)
    ledger.queued("open")
    ledger.queued("of others", org_id="other")

    def left() -> tuple[int, int]:
        store = ledger.retention
        return store.calls_with_bodies(ORG), store.old_calls_with_bodies(ORG, DAY_S)

    before = left()
    ledger.age(2 * DAY_S)
    ledger.succeeded("young", link=LINK)
    aged = left()
    ledger.purge(DAY_S)

    assert (before, aged, left()) == ((3, 0), (4, 2), (3, 1))


def test_the_link_of_a_replay_holds_up_the_purge(ledger: LedgerUnderTest) -> None:
    """A task that is told of a result can still read it."""
    key = ledger.succeeded().key
    ledger.age(10 * DAY_S)
    ledger.submit(a_submission(link=LINK))

    assert ledger.purge(7 * DAY_S) == Purged()
    assert has_bodies(ledger, key)


# Late answers.


def test_a_late_answer_of_a_purged_call_leaves_no_text(ledger: LedgerUnderTest) -> None:
    """It is posted with the truth, and its text goes as the others did."""
    ref = given_up(ledger)
    assert ledger.purge() == Purged(calls=1)

    assert ledger.record(an_answer(ref)) == [RecordOutcome.LATE]
    assert ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))[0].is_applied

    last = ledger.view(ref, Bodies.BOTH).last
    assert last is not None
    assert (last.reply, last.usage, last.posted_nano_usd) == (None, USAGE, 60)
    assert ledger.figures() == (0, 60)


def test_after_a_week_a_late_answer_is_too_late(ledger: LedgerUnderTest) -> None:
    """What was posted by then stays posted: old rows never change again, and can be archived."""
    early, late = given_up(ledger, "early"), given_up(ledger, "late")
    ledger.age(6 * DAY_S)
    assert ledger.record(an_answer(early)) == [RecordOutcome.LATE]

    ledger.age(1.1 * DAY_S)

    assert ledger.record(an_answer(late)) == [RecordOutcome.CLOSED]
    assert ledger.view(late).posted_nano_usd == 100


# How much at once.


def test_a_purge_is_bounded(ledger: LedgerUnderTest) -> None:
    """No more than the limit; what is left is found the next time."""
    for page in range(5):
        ledger.succeeded(f"page {page}")

    assert [ledger.purge(limit=2) for _ in range(4)] == [
        Purged(2), Purged(2), Purged(1), Purged(0),
    ]  # fmt: skip


def test_a_dry_run_only_counts(ledger: LedgerUnderTest) -> None:
    """As much as a purge would remove, and nothing is removed."""
    key = ledger.succeeded().key
    ledger.dead("other")
    ledger.queued("open")
    ledger.operations.keep_unprocessable(UnprocessableMessage("callgate.call", "not JSON", b"raw"))

    counted = ledger.retention.purge(BodyAges(0.0), limit=100, dry_run=True)

    assert counted == Purged(calls=2, unprocessable_messages=1)
    assert has_bodies(ledger, key)
    assert len(ledger.operations.unprocessable_messages(limit=10)) == 1
    assert ledger.purge() == counted


def test_old_unprocessable_messages_are_deleted(ledger: LedgerUnderTest) -> None:
    """They may hold anything, and belong to nobody: the default age is theirs."""
    young = UnprocessableMessage("callgate.call", "not JSON", b"young")
    ledger.operations.keep_unprocessable(UnprocessableMessage("callgate.call", "not JSON", b"old"))
    ledger.age(8 * DAY_S)
    ledger.operations.keep_unprocessable(young)

    assert ledger.purge(7 * DAY_S) == Purged(unprocessable_messages=1)

    assert [message for _, message in ledger.operations.unprocessable_messages(limit=10)] == [young]
    assert ledger.operations.snapshot().dead_letters == 1


def test_partitions_can_be_asked_for_again_and_again(ledger: LedgerUnderTest) -> None:
    """What is there is not made again, and a new ledger has no row without a partition."""
    ledger.succeeded()
    ledger.retention.make_partitions(months=3)

    again = ledger.retention.make_partitions(months=3)

    assert (again.made, again.rows_in_default) == (0, 0)
    assert ledger.retention.archive_month(1) is None


def test_a_failure_of_a_purged_call_leaves_no_text_either(ledger: LedgerUnderTest) -> None:
    """An answer may come with an error; its text goes all the same."""
    ref = given_up(ledger)
    ledger.purge()
    ledger.record(an_answer(ref))

    assert ledger.settle(a_failure(ref, expected_status=AttemptStatus.UNKNOWN))[0].is_applied

    last = ledger.view(ref, Bodies.BOTH).last
    assert last is not None
    assert last.reply is None
