"""What operators settle by hand, on both ledgers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from callgate.domain.budgets import NANO_PER_USD, Window
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallState
from callgate.domain.errors import InvalidAmount
from callgate.domain.ledger import DueKind, RecordOutcome, Reserve
from callgate.domain.reports import By, EndReason
from callgate.domain.unknown import (
    BILLED_MAX_USD,
    HandOutcome,
    SettleByHand,
    SettledByHand,
    UnknownFilter,
)
from callgate.services.audit import audit
from tests.contract.unknown_steps import LEFT_OPEN, bill, given_up, listed, odd
from tests.support.ledger_under_test import (
    DAY_S,
    LIMIT,
    ORG,
    USAGE,
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_success,
    an_answer,
)

ANN = By("ann", "invoice 7")


def by_hand(
    ledger: LedgerUnderTest, ref: AttemptRef, billed: int, *, seen: int = 100, **changes: Any
) -> HandOutcome:
    """Settle one attempt by hand; the audit is clean afterwards."""
    settle = SettleByHand(ref.attempt_id, seen, billed, **changes)
    (answer,) = ledger.operations.settle_by_hand([settle], by=ANN)
    assert audit(ledger.operations).is_clean
    assert answer.attempt_id == ref.attempt_id
    return answer.outcome


def actions(ledger: LedgerUnderTest) -> list[tuple[object, ...]]:
    """What operators settled, newest first."""
    return [
        (a.by, a.org_id, a.subject, a.detail)
        for a in ledger.operations.actions(limit=100)
        if a.action == "unknown.settle"
    ]


# What is settled.


@pytest.mark.parametrize("billed", [0, 1, 60, 100])
def test_settling_by_hand_posts_what_was_billed(ledger: LedgerUnderTest, billed: int) -> None:
    """In every budget of the hold; the status stays, and it is no longer listed."""
    for window in Window:
        ledger.set_budget(LIMIT, window=window)
        ledger.set_budget(LIMIT, window=window, scope="call_type:extraction")
    ref = given_up(ledger)
    before = ledger.view(ref).last

    assert by_hand(ledger, ref, billed) is HandOutcome.SETTLED

    for window in Window:
        for scope in ("org", "call_type:extraction"):
            assert ledger.figures(scope, window) == (0, billed)
    after = ledger.view(ref).last
    assert before is not None
    assert after == replace(before, posted_nano_usd=billed)
    assert listed(ledger) == []
    assert bill(ledger, ref).settled_by_hand_at is not None
    assert ledger.view(ref.key).posted_nano_usd == billed


def test_who_settled_what_and_why_is_kept(ledger: LedgerUnderTest) -> None:
    """One row for each that was changed."""
    first, second = given_up(ledger, "one"), given_up(ledger, "two")
    batch = [SettleByHand(first.attempt_id, 100, 60), SettleByHand(second.attempt_id, 100, 0)]

    answers = ledger.operations.settle_by_hand(batch, by=ANN)

    assert answers == [
        SettledByHand(first.attempt_id, HandOutcome.SETTLED, 100, 60),
        SettledByHand(second.attempt_id, HandOutcome.SETTLED, 100, 0),
    ]
    where = {"provider": "openai", "model": "gpt-4o-mini", "from_nano_usd": 100}
    assert actions(ledger) == [
        (ANN, ORG, str(second.attempt_id), {**where, "to_nano_usd": 0}),
        (ANN, ORG, str(first.attempt_id), {**where, "to_nano_usd": 60}),
    ]


def test_the_same_again_changes_nothing(ledger: LedgerUnderTest) -> None:
    """By whatever amount was seen: its first answer may have been lost on the way."""
    ref = given_up(ledger)
    by_hand(ledger, ref, 60)
    at = bill(ledger, ref).settled_by_hand_at

    assert by_hand(ledger, ref, 60) is HandOutcome.UNCHANGED
    assert by_hand(ledger, ref, 60, seen=60) is HandOutcome.UNCHANGED

    assert len(actions(ledger)) == 1
    assert bill(ledger, ref).settled_by_hand_at == at
    assert ledger.figures() == (0, 60)


def test_a_bill_that_is_the_whole_hold_is_settled_too(ledger: LedgerUnderTest) -> None:
    """The money stays; but now somebody knows."""
    ref = given_up(ledger)

    assert by_hand(ledger, ref, 100) is HandOutcome.SETTLED
    assert by_hand(ledger, ref, 100) is HandOutcome.UNCHANGED

    assert listed(ledger) == []
    assert len(actions(ledger)) == 1


def test_what_has_changed_since_it_was_seen_is_left_alone(ledger: LedgerUnderTest) -> None:
    """Of two operators the second hears of the first."""
    ref = given_up(ledger)
    by_hand(ledger, ref, 60)

    assert by_hand(ledger, ref, 30) is HandOutcome.CHANGED
    assert ledger.figures() == (0, 60)

    assert by_hand(ledger, ref, 30, seen=60) is HandOutcome.SETTLED
    assert ledger.figures() == (0, 30)


def test_of_two_in_one_batch_the_first_is_taken(ledger: LedgerUnderTest) -> None:
    """The second was decided by what the first has changed."""
    ref = given_up(ledger)
    twice = [SettleByHand(ref.attempt_id, 100, 60), SettleByHand(ref.attempt_id, 100, 30)]

    answers = ledger.operations.settle_by_hand(twice, by=ANN)

    assert [a.outcome for a in answers] == [HandOutcome.SETTLED, HandOutcome.CHANGED]
    assert answers[1].posted_nano_usd == 60
    assert ledger.figures() == (0, 60)


def test_more_than_the_hold_must_be_meant(ledger: LedgerUnderTest) -> None:
    """It may be more than the budget has left; then it is posted in full."""
    ref = given_up(ledger)

    assert by_hand(ledger, ref, 2_000) is HandOutcome.ABOVE_HOLD
    assert ledger.figures() == (0, 100)

    assert by_hand(ledger, ref, 2_000, may_exceed_hold=True) is HandOutcome.SETTLED
    assert ledger.figures() == (0, 2_000)


@pytest.mark.parametrize(
    "bring",
    [
        lambda ledger: ledger.running(),
        lambda ledger: ledger.answered(),
        lambda ledger: ledger.succeeded(),
        lambda ledger: ledger.dead(),
        lambda ledger: odd(ledger, "usage_contradictory"),
    ],
    ids=["dispatched", "answered", "succeeded", "unbilled", "posted by usage"],
)
def test_a_bill_that_is_known_is_no_operators(
    ledger: LedgerUnderTest, bring: Callable[[LedgerUnderTest], AttemptRef]
) -> None:
    """What the provider said stands; what it has not said yet is waited for."""
    ref = bring(ledger)
    before = ledger.figures(), ledger.view(ref)

    for seen in (0, 60, 100):
        assert by_hand(ledger, ref, 5, seen=seen) is HandOutcome.NOT_UNKNOWN

    assert (ledger.figures(), ledger.view(ref)) == before
    assert actions(ledger) == []


def test_an_attempt_that_nobody_made_is_not_found(ledger: LedgerUnderTest) -> None:
    """Its neighbours are settled."""
    ref, nobodys = given_up(ledger), uuid4()
    batch = [SettleByHand(nobodys, 100, 0), SettleByHand(ref.attempt_id, 100, 0)]

    answers = ledger.operations.settle_by_hand(batch, by=ANN)

    assert [a.outcome for a in answers] == [HandOutcome.NOT_FOUND, HandOutcome.SETTLED]
    assert answers[0].posted_nano_usd is None
    assert ledger.operations.settle_by_hand([], by=ANN) == []


def failed_at_its_hold(ledger: LedgerUnderTest) -> AttemptRef:
    ref = ledger.answered("failed")
    ledger.settle(a_failure(ref, posted_nano_usd=100, price_source=None))
    return ref


def succeeded_at_its_hold(ledger: LedgerUnderTest) -> AttemptRef:
    ref = ledger.answered("tier")
    source = "whole hold: 'on_demand' is not a valid ServiceTier"
    ledger.settle(a_success(ref, 100, price_source=source))
    return ref


@pytest.mark.parametrize("bring", [failed_at_its_hold, succeeded_at_its_hold])
def test_phantoms_of_the_past_can_be_settled(
    ledger: LedgerUnderTest, bring: Callable[[LedgerUnderTest], AttemptRef]
) -> None:
    """Earlier versions posted whole holds without a word for it; they are listed when asked for."""
    ref = bring(ledger)
    assert listed(ledger) == []
    assert listed(ledger, UnknownFilter(with_past=True)) == [ref.attempt_id]
    (day,) = ledger.operations.unknown_days(UnknownFilter(with_past=True))
    assert (day.attempts, day.posted_nano_usd, day.known_attempts) == (1, 100, 0)

    assert by_hand(ledger, ref, 25) is HandOutcome.SETTLED
    assert by_hand(ledger, ref, 30, seen=25) is HandOutcome.SETTLED

    assert ledger.figures() == (0, 30)
    assert listed(ledger, UnknownFilter(with_past=True)) == []


def test_a_dry_run_answers_the_same_and_does_nothing(ledger: LedgerUnderTest) -> None:
    """What would be refused is."""
    one, two = given_up(ledger, "one"), given_up(ledger, "two")
    batch = [SettleByHand(one.attempt_id, 100, 60), SettleByHand(two.attempt_id, 100, 101)]

    told = ledger.operations.settle_by_hand(batch, by=ANN, dry_run=True)

    assert (ledger.figures(), actions(ledger)) == ((0, 200), [])
    assert len(listed(ledger)) == 2
    assert ledger.operations.settle_by_hand(batch, by=ANN) == told
    assert [(a.outcome, a.posted_nano_usd) for a in told] == [
        (HandOutcome.SETTLED, 60), (HandOutcome.ABOVE_HOLD, 100),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "billed", [-1, BILLED_MAX_USD * NANO_PER_USD + 1, 0.5, float("nan"), "1", None, True]
)
def test_what_is_no_amount_is_refused(billed: Any) -> None:
    """Before any ledger hears of it."""
    with pytest.raises(InvalidAmount):
        SettleByHand(uuid4(), 0, billed)


# Late answers.


def test_a_late_answer_is_posted_with_the_truth_all_the_same(ledger: LedgerUnderTest) -> None:
    """The operator's amount gives way, in the budget too; and then it is known."""
    ref = given_up(ledger)
    by_hand(ledger, ref, 0)

    assert ledger.record(an_answer(ref)) == [RecordOutcome.LATE]
    ledger.age(11)
    assert (DueKind.SETTLE, ref.key) in ledger.due_kinds()
    assert ledger.settle(a_success(ref, 60, expected_status=LEFT_OPEN))[0].is_applied

    assert ledger.figures() == (0, 60)
    assert bill(ledger, ref).settled_by_hand_at is None
    assert by_hand(ledger, ref, 0, seen=60) is HandOutcome.NOT_UNKNOWN
    assert not ledger.settle(a_success(ref, 60, expected_status=LEFT_OPEN))[0].is_applied


def test_an_answer_that_came_before_stays_to_be_settled(ledger: LedgerUnderTest) -> None:
    """Settling by hand in between does not make it look settled."""
    ref = given_up(ledger)
    assert ledger.record(an_answer(ref)) == [RecordOutcome.LATE]

    assert by_hand(ledger, ref, 0) is HandOutcome.SETTLED

    ledger.age(11)
    assert ledger.due_kinds() == [(DueKind.SETTLE, ref.key)]
    assert ledger.settle(a_success(ref, 60, expected_status=LEFT_OPEN))[0].is_applied
    assert ledger.figures() == (0, 60)
    last = ledger.view(ref).last
    assert last is not None
    assert (last.status, last.usage) == (AttemptStatus.SUCCEEDED, USAGE)
    assert audit(ledger.operations).is_clean


def test_a_late_answer_ends_a_call_that_is_still_open(ledger: LedgerUnderTest) -> None:
    """Whatever an operator said of its bill."""
    ref = ledger.lost()
    by_hand(ledger, ref, 0)
    ledger.record(an_answer(ref))

    assert (
        ledger.settle(a_success(ref, 60, expected_status=LEFT_OPEN))[0].state is CallState.SUCCEEDED
    )
    assert ledger.figures() == (0, 60)


def still_unknown(ref: AttemptRef) -> Any:
    return a_failure(ref, status=LEFT_OPEN, posted_nano_usd=100, expected_status=LEFT_OPEN)


def not_believed(ref: AttemptRef) -> Any:
    return a_success(ref, 100, expected_status=LEFT_OPEN, anomalies=("usage_missing",))


@pytest.mark.parametrize("late", [still_unknown, not_believed])
@pytest.mark.parametrize("comes_first", [True, False])
def test_a_late_answer_that_knows_no_more_leaves_the_operators_amount(
    ledger: LedgerUnderTest, late: Callable[[AttemptRef], Any], comes_first: bool
) -> None:
    """A guess does not take the place of a bill; the answer is settled once, and the amount can still be corrected."""
    ref = given_up(ledger)
    steps = [lambda: ledger.record(an_answer(ref)), lambda: by_hand(ledger, ref, 30)]
    for step in steps if comes_first else steps[::-1]:
        step()

    assert ledger.settle(late(ref))[0].is_applied
    assert not ledger.settle(late(ref))[0].is_applied

    assert ledger.figures() == (0, 30)
    assert listed(ledger) == []
    assert by_hand(ledger, ref, 40, seen=30) is HandOutcome.SETTLED
    assert ledger.due() == ()


def test_a_text_does_not_become_younger(ledger: LedgerUnderTest) -> None:
    """A call ages from its end, not from the day its bill was learned."""
    ref = given_up(ledger)
    ledger.age(8 * DAY_S)
    by_hand(ledger, ref, 0)

    assert ledger.purge(7 * DAY_S).calls == 1


# Whom it releases.


def waits(ledger: LedgerUnderTest, content: str, hold: int, **changes: Any) -> CallKey:
    """A call that waits for headroom."""
    key = ledger.queued(content, **changes)
    claim: Reserve = a_reserve(key, hold)
    ledger.reserve(claim)
    assert ledger.state(key) is CallState.WAITING
    return key


def test_money_that_comes_back_wakes_who_waits(ledger: LedgerUnderTest) -> None:
    """At once, not when its timer runs out."""
    ref = given_up(ledger)
    ledger.set_budget(1_100)
    ledger.running("large", 950)
    key = waits(ledger, "waits", 150)

    by_hand(ledger, ref, 0)

    assert ledger.due_kinds() == [(DueKind.PUBLISH, key)]


def test_money_of_a_period_that_has_ended_wakes_nobody(ledger: LedgerUnderTest) -> None:
    """It goes back to that period, where nobody can spend it; who waits for another is left to its timer."""
    ref = given_up(ledger)
    ledger.age(2 * DAY_S)
    ledger.running("large", 900)
    small = ledger.running("small", 100)
    first, second = waits(ledger, "first", 100), waits(ledger, "second", 100)
    ledger.record(an_answer(small))
    ledger.settle(a_failure(small))
    # The first was released for the headroom there is; now it is there, and the second waits.
    ledger.operations.end([first], code=EndReason.CANCELLED, message="by a test")
    due_at = ledger.view(second).due_at

    assert by_hand(ledger, ref, 0) is HandOutcome.SETTLED

    old, new = ledger.operations.snapshot().budgets
    assert (old.spent_nano_usd, new.spent_nano_usd, new.reserved_nano_usd) == (0, 0, 900)
    assert ledger.view(second).due_at == due_at
