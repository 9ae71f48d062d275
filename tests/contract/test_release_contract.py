"""Freed headroom releases the calls that wait for it: oldest first, only as many as fit, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from callgate.domain.budgets import RefusalReason, Window
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallState, WaitReason
from callgate.domain.ledger import Defer, DueKind, Refused, Reject, Reserved
from callgate.domain.reports import EndReason
from callgate.domain.requests import OnBudget
from tests.support.ledger_under_test import (
    LIMIT,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)

OTHER = "globex"
TYPE_SCOPE = "call_type:extraction"


def held_up(ledger: LedgerUnderTest, *holds: int, youngest: str = "extraction") -> list[CallKey]:
    """Calls that wait for others to free their room, the oldest first; their timers run for a quarter of a minute."""
    keys = []
    for number in range(1, len(holds) + 1):
        call_type = youngest if number == len(holds) else "extraction"
        keys.append(ledger.queued(f"waiting {number}", call_type=call_type))
        ledger.age(60)
    outcomes = ledger.reserve(*map(a_reserve, keys, holds))
    refusals = [o.refusal for o in outcomes if isinstance(o, Refused)]
    assert [r and r.reason for r in refusals] == [RefusalReason.HELD] * len(holds)
    return keys


def answered(ledger: LedgerUnderTest, hold: int, content: str = "busy") -> AttemptRef:
    """An attempt that has its answer, and holds money until it is settled."""
    return ledger.answered(content, hold_nano_usd=hold)


def answered_chat(ledger: LedgerUnderTest, hold: int) -> AttemptRef:
    """The same of the other call type."""
    ref = ledger.running("chatting", hold, call_type="chat")
    ledger.record(an_answer(ref))
    return ref


def released(ledger: LedgerUnderTest) -> list[CallKey]:
    """The calls that are due for another try."""
    return [key for kind, key in ledger.due_kinds() if kind is DueKind.PUBLISH]


def frees(ledger: LedgerUnderTest, ref: AttemptRef, posted: int = 0) -> bool:
    """Settle an answer; say whether that released any call."""
    (settled,) = ledger.settle(a_success(ref, posted))
    return settled.has_freed_waiters


def test_of_two_that_wait_the_older_is_released(ledger: LedgerUnderTest) -> None:
    """There is room for one: it need not wait for its timer, the other goes on waiting."""
    busy = answered(ledger, LIMIT)
    older, younger = held_up(ledger, 600, 600)

    assert released(ledger) == []
    assert frees(ledger, busy)
    assert released(ledger) == [older]
    assert ledger.state(younger) is CallState.WAITING


def test_as_many_as_fit_are_released(ledger: LedgerUnderTest) -> None:
    """And each of them is then admitted."""
    busy = answered(ledger, LIMIT)
    keys = held_up(ledger, 300, 300, 300, 300)

    assert frees(ledger, busy, 50)
    assert sorted(released(ledger), key=str) == sorted(keys[:3], key=str)
    outcomes = ledger.reserve(*(a_reserve(key, 300) for key in keys[:3]))
    assert all(isinstance(outcome, Reserved) for outcome in outcomes)


@pytest.mark.parametrize(("posted", "is_released"), [(400, True), (401, False)])
def test_an_exact_fit_is_released_and_one_nano_more_is_not(
    ledger: LedgerUnderTest, posted: int, is_released: bool
) -> None:
    """The rule of admission, no other."""
    busy = answered(ledger, LIMIT)
    (key,) = held_up(ledger, 600)

    assert frees(ledger, busy, posted) is is_released
    assert released(ledger) == ([key] if is_released else [])


def test_a_released_call_keeps_its_headroom_until_it_claims(ledger: LedgerUnderTest) -> None:
    """It is on its way: the next posting must not give the same room to another."""
    first, second = answered(ledger, 700, "first"), answered(ledger, 200, "second")
    older, younger = held_up(ledger, 600, 600)

    assert frees(ledger, first)
    assert released(ledger) == [older]
    assert not frees(ledger, second)
    assert released(ledger) == []
    ledger.claim(older, 600)
    assert ledger.view(younger).state is CallState.WAITING


def test_a_call_that_does_not_fit_holds_up_nobody(ledger: LedgerUnderTest) -> None:
    """It is passed over, and is the first to be asked again when more room is there."""
    first, second = answered(ledger, 300, "first"), answered(ledger, 700, "second")
    large, small = held_up(ledger, 900, 300)

    assert frees(ledger, first)
    assert released(ledger) == [small]
    ledger.settle(a_success(_answered(ledger, small, 300), 0))
    assert frees(ledger, second)
    assert released(ledger) == [large]


def held_up_with_many(ledger: LedgerUnderTest, *calls: tuple[int, int, str]) -> list[CallKey]:
    """As `held_up`: so many calls that want so much, by call type; returns the first of each, the oldest first."""
    keys: list[list[CallKey]] = []
    for count, _, call_type in calls:
        batch = [a_submission(f"{n} of {len(keys)}", call_type=call_type) for n in range(count)]
        keys.append([answer.key for answer in ledger.submit(*batch)])
        ledger.age(1)
    ledger.age(60)
    for (_, hold, _), some in zip(calls, keys, strict=True):
        ledger.reserve(*(a_reserve(key, hold) for key in some))
    return [some[0] for some in keys]


MANY = 250
"""More than are looked at by their age alone."""


def test_many_that_are_too_large_hide_nobody(ledger: LedgerUnderTest) -> None:
    """However many older ones are passed over, the young one that fits is found."""
    busy = answered(ledger, LIMIT)
    _, small = held_up_with_many(ledger, (MANY, LIMIT, "extraction"), (1, 100, "extraction"))

    assert frees(ledger, busy, LIMIT - 100)
    assert released(ledger) == [small]


def test_many_whose_call_type_is_full_hide_nobody(ledger: LedgerUnderTest) -> None:
    """They fit into the organisation, and want less."""
    ledger.set_budget(100, scope=TYPE_SCOPE)
    ledger.running("extracting", 100)
    busy = answered_chat(ledger, LIMIT - 100)
    _, chat = held_up_with_many(ledger, (MANY, 100, "extraction"), (1, 200, "chat"))

    assert frees(ledger, busy)
    assert released(ledger) == [chat]


def test_many_that_want_less_do_not_go_before_the_oldest(ledger: LedgerUnderTest) -> None:
    """There is room for one of them."""
    busy = answered(ledger, LIMIT)
    oldest, _ = held_up_with_many(ledger, (1, 600, "extraction"), (MANY, 500, "extraction"))

    assert frees(ledger, busy)
    assert released(ledger) == [oldest]


def _answered(ledger: LedgerUnderTest, key: CallKey, hold: int) -> AttemptRef:
    ref = ledger.claim(key, hold)
    ledger.record(an_answer(ref))
    return ref


def test_another_organisation_is_not_touched(ledger: LedgerUnderTest) -> None:
    """Room is freed in one budget; who waits for another goes on waiting."""
    ledger.set_budget(100, org_id=OTHER)
    ledger.running("others", org_id=OTHER)
    theirs = ledger.queued("theirs", org_id=OTHER)
    busy = answered(ledger, LIMIT)
    ledger.age(60)
    ledger.reserve(a_reserve(theirs))

    assert not frees(ledger, busy)
    assert released(ledger) == []
    assert ledger.state(theirs) is CallState.WAITING


def test_every_scope_of_a_call_must_have_room(ledger: LedgerUnderTest) -> None:
    """The organisation has; the call type of the older one has not."""
    ledger.set_budget(300, scope=TYPE_SCOPE)
    extracting = answered(ledger, 300, "extracting")
    ref = answered_chat(ledger, LIMIT - 300)
    older, younger = held_up(ledger, 200, 200, youngest="chat")

    assert frees(ledger, ref)
    assert released(ledger) == [younger]
    assert frees(ledger, extracting)
    assert released(ledger) == [older]


def test_a_call_type_is_filled_only_once(ledger: LedgerUnderTest) -> None:
    """The running total counts in every scope: two fit into the organisation, one into the call type."""
    ledger.set_budget(300, scope=TYPE_SCOPE)
    busy = answered(ledger, 300)
    older, younger = held_up(ledger, 200, 200)

    assert frees(ledger, busy)
    assert released(ledger) == [older]
    assert ledger.state(younger) is CallState.WAITING


def test_every_window_of_a_scope_must_have_room(ledger: LedgerUnderTest) -> None:
    """The day has; the month is full."""
    ledger.set_budget(LIMIT + 200, window=Window.MONTH)
    busy = answered(ledger, LIMIT)
    held_up(ledger, 600)

    assert not frees(ledger, busy, 700)
    assert released(ledger) == []


def test_a_posting_that_frees_nothing_releases_nobody(ledger: LedgerUnderTest) -> None:
    """A lost attempt costs its whole hold."""
    ref = ledger.running("busy", LIMIT)
    held_up(ledger, 600)

    (settled,) = ledger.settle(a_loss(ref, LIMIT))

    assert not settled.has_freed_waiters


def test_the_truth_about_a_lost_attempt_frees_what_it_did_not_cost(
    ledger: LedgerUnderTest,
) -> None:
    """A late answer lowers what was spent; that is headroom like any other."""
    lost, busy = ledger.running("lost", 400), ledger.running("busy", 500)
    ledger.settle(a_loss(lost, 400, next_state=CallState.DEAD))
    (key,) = held_up(ledger, 450)
    ledger.record(an_answer(lost))

    (settled,) = ledger.settle(a_success(lost, 50, expected_status=AttemptStatus.UNKNOWN))

    assert settled.has_freed_waiters
    assert released(ledger) == [key]
    assert ledger.view(busy).state is CallState.RUNNING


def test_a_failed_attempt_frees_its_hold(ledger: LedgerUnderTest) -> None:
    """Its own retry waits for its time, not for headroom."""
    busy = answered(ledger, LIMIT)
    (key,) = held_up(ledger, 600)

    (settled,) = ledger.settle(a_failure(busy, CallState.WAITING, due_in_s=30))

    assert settled.has_freed_waiters
    assert released(ledger) == [key]


def test_a_raised_limit_releases_calls_that_fit_now(ledger: LedgerUnderTest) -> None:
    """Nobody need wait for a timer when an operator makes room."""
    ledger.running("busy", LIMIT)
    older, younger = held_up(ledger, 600, 600)

    ledger.set_budget(LIMIT + 700)

    assert released(ledger) == [older]
    assert ledger.state(younger) is CallState.WAITING


def test_a_raised_limit_releases_calls_that_wait_for_the_next_period(
    ledger: LedgerUnderTest,
) -> None:
    """With more to spend today it need not wait for tomorrow."""
    ledger.succeeded("spent", posted_nano_usd=LIMIT - 100)
    key = ledger.queued("patient")
    ledger.reserve(a_reserve(key, 200, on_budget=OnBudget.WAIT))

    ledger.set_budget(LIMIT + 99)
    too_little = released(ledger)
    ledger.set_budget(LIMIT + 100)

    assert too_little == []
    assert released(ledger) == [key]


def test_a_lowered_limit_releases_nobody(ledger: LedgerUnderTest) -> None:
    """There is less room than before."""
    ledger.running("busy", LIMIT)
    held_up(ledger, 600)

    ledger.set_budget(LIMIT - 100)

    assert released(ledger) == []


def test_a_call_that_waits_for_its_retry_is_not_released(ledger: LedgerUnderTest) -> None:
    """It wants no headroom, it wants its time."""
    ledger.waiting("rate limited", due_in_s=300)
    busy = answered(ledger, LIMIT)

    assert not frees(ledger, busy)
    assert released(ledger) == []


def test_who_was_cancelled_takes_no_room(ledger: LedgerUnderTest) -> None:
    """The next in line gets it."""
    busy = answered(ledger, LIMIT)
    older, younger = held_up(ledger, 600, 600)
    ledger.operations.end([older], code=EndReason.CANCELLED, message="by a test")

    assert frees(ledger, busy)
    assert released(ledger) == [younger]


def test_an_admitted_call_wants_nothing_more(ledger: LedgerUnderTest) -> None:
    """Its retry must not look like a call that waits for headroom."""
    first = answered(ledger, LIMIT, "first")
    (key,) = held_up(ledger, 600)
    frees(ledger, first)
    assert released(ledger) == [key]
    busy = ledger.claim(key, 600)
    ledger.record(an_answer(busy))
    ledger.settle(a_failure(busy, CallState.WAITING, due_in_s=300))
    second = answered(ledger, 100, "second")

    assert not frees(ledger, second)
    assert released(ledger) == []


def test_a_deferred_call_is_not_released_by_freed_headroom(ledger: LedgerUnderTest) -> None:
    """It waits for a process. Otherwise freed money would bring back every quarantined call at once."""
    busy = answered(ledger, LIMIT)
    key = ledger.queued("quarantined")
    ledger.reserve(Defer(key, '{"code": "quarantined"}', 20, WaitReason.QUARANTINE))

    assert not frees(ledger, busy)
    assert released(ledger) == []


def cancelled(ledger: LedgerUnderTest, key: CallKey) -> None:
    """An operator ends the call."""
    ledger.operations.end([key], code=EndReason.CANCELLED, message="by a test")


def turned_away(ledger: LedgerUnderTest, key: CallKey) -> None:
    """A worker cannot run it."""
    ledger.reserve(Reject(key, '{"code": "unpriced_model"}'))


def grown(ledger: LedgerUnderTest, key: CallKey) -> None:
    """Its price has risen meanwhile."""
    ledger.reserve(a_reserve(key, LIMIT + 1))


def shrunk(ledger: LedgerUnderTest, key: CallKey) -> None:
    """Its price has fallen meanwhile."""
    ledger.claim(key, 100)


@pytest.mark.parametrize("leaves", [cancelled, turned_away, grown, shrunk])
def test_room_that_was_not_taken_goes_to_the_next(
    ledger: LedgerUnderTest, leaves: Callable[[LedgerUnderTest, CallKey], None]
) -> None:
    """It was kept for the one that was released first; a sweep finds who may have it, long before the period ends."""
    ledger.succeeded("spent", LIMIT)
    older, younger = (ledger.queued(f"patient {n}") for n in (1, 2))
    ledger.reserve(*(a_reserve(key, 600, on_budget=OnBudget.WAIT) for key in (older, younger)))
    ledger.set_budget(LIMIT + 700)
    first = released(ledger)
    leaves(ledger, first[0])

    assert len(first) == 1
    assert released(ledger) == []
    ledger.ledger.take_lost_messages(limit=100, queued_before=ledger.now() - timedelta(hours=1))
    (second,) = released(ledger)
    assert {*first, second} == {older, younger}


def test_without_anybody_who_waits_a_posting_says_so(ledger: LedgerUnderTest) -> None:
    """The usual case."""
    assert not frees(ledger, answered(ledger, 100))
