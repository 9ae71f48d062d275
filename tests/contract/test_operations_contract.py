"""Budgets, lists of calls, dead letters and cancelled calls, on both ledgers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from callgate.domain.budgets import Window
from callgate.domain.calls import CallKey, CallState
from callgate.domain.delivery import Delivery
from callgate.domain.ledger import NotClaimed
from callgate.domain.reports import CallFilter, EndReason, UnprocessableMessage
from tests.support.ledger_under_test import (
    DAY_S,
    LIMIT,
    LINK,
    ORG,
    RATE_LIMITED,
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)

EVERYTHING = CallFilter()

# Budgets.


def test_a_budget_is_set_for_the_period_of_now(ledger: LedgerUnderTest) -> None:
    """From local midnight to local midnight, unused."""
    set_ = ledger.operations.set_budget("zeta", "org", Window.DAY, 500, "Europe/Berlin")

    assert (set_.org_id, set_.scope, set_.window) == ("zeta", "org", Window.DAY)
    assert (set_.limit_nano_usd, set_.timezone) == (500, "Europe/Berlin")
    assert (set_.reserved_nano_usd, set_.spent_nano_usd) == (0, 0)
    assert set_.starts_at <= ledger.now() < set_.ends_at
    assert ledger.operations.budgets("zeta") == [set_]


def test_a_limit_is_changed_in_place(ledger: LedgerUnderTest) -> None:
    """The current period keeps what is spent and held in it."""
    ledger.succeeded("spent", posted_nano_usd=60)
    ledger.running("held", 100)
    (before,) = ledger.operations.budgets(ORG)

    after = ledger.set_budget(7)

    assert after.budget_id == before.budget_id
    assert (after.starts_at, after.ends_at) == (before.starts_at, before.ends_at)
    assert (after.limit_nano_usd, after.reserved_nano_usd, after.spent_nano_usd) == (7, 100, 60)
    assert ledger.operations.budgets(ORG) == [after]


def test_a_limit_set_after_the_period_begins_a_new_one(ledger: LedgerUnderTest) -> None:
    """A period that has ended is closed; nobody rewrites yesterday."""
    ledger.succeeded("spent", posted_nano_usd=60)
    ledger.age(2 * DAY_S)

    after = ledger.set_budget(7)

    old, new = ledger.operations.snapshot().budgets
    assert (old.spent_nano_usd, new.spent_nano_usd) == (60, 0)
    assert (after.budget_id, after.limit_nano_usd) == (new.budget_id, 7)
    assert ledger.operations.budgets(ORG) == [after]


def test_budgets_are_listed_in_order(ledger: LedgerUnderTest) -> None:
    """By organisation, scope and window; one line each, whatever periods there were."""
    ledger.set_budget(1, org_id="zeta")
    ledger.set_budget(LIMIT, window=Window.MONTH)
    ledger.set_budget(1, scope="call_type:triage")
    ledger.age(2 * DAY_S)
    ledger.running()

    listed = ledger.operations.budgets()

    assert [(b.org_id, b.scope, b.window) for b in listed] == [
        (ORG, "call_type:triage", Window.DAY),
        (ORG, "org", Window.DAY),
        (ORG, "org", Window.MONTH),
        ("zeta", "org", Window.DAY),
    ]
    assert [b.org_id for b in ledger.operations.budgets("zeta")] == ["zeta"]
    assert ledger.operations.budgets("nobody") == []


# Calls.


def test_calls_are_listed_newest_first(ledger: LedgerUnderTest) -> None:
    """Every generation, without bodies, up to the limit."""
    first = ledger.dead("first").key
    ledger.age(1)
    second = ledger.queued("second")
    ledger.age(1)
    third = ledger.queued("first", force=True)

    listed = ledger.operations.calls(EVERYTHING, limit=10)

    assert [view.key for view in listed] == [third, second, first]
    assert [view.request for view in listed] == [None] * 3
    assert listed == [ledger.view(key) for key in (third, second, first)]
    assert [v.key for v in ledger.operations.calls(EVERYTHING, limit=1)] == [third]


@pytest.mark.parametrize(
    "call_filter",
    [
        CallFilter(org_id="zeta"),
        CallFilter(state=CallState.DEAD),
        CallFilter(call_type="triage"),
        CallFilter(provider="azure"),
        CallFilter(model="o9"),
        CallFilter(error_fingerprint=RATE_LIMITED.fingerprint("openai")),
        CallFilter(org_id="zeta", state=CallState.DEAD, call_type="triage", model="o9"),
    ],
    ids=lambda call_filter: ",".join(k for k in call_filter.__slots__ if getattr(call_filter, k)),
)
def test_every_filter_narrows(ledger: LedgerUnderTest, call_filter: CallFilter) -> None:
    """What is set must fit; all of it together."""
    ledger.set_budget(LIMIT, org_id="zeta")
    ledger.queued("other")
    ref = ledger.dead("odd", org_id="zeta", call_type="triage", provider="azure", model="o9")

    assert [v.key for v in ledger.operations.calls(call_filter, limit=10)] == [ref.key]


def test_filters_are_joined_by_and(ledger: LedgerUnderTest) -> None:
    """One field that does not fit is enough to leave a call out."""
    ledger.dead()

    call_filter = CallFilter(org_id=ORG, state=CallState.QUEUED)

    assert ledger.operations.calls(call_filter, limit=10) == []


def test_calls_can_be_named(ledger: LedgerUnderTest) -> None:
    """By id, all generations of them."""
    one, _ = ledger.rejected("one"), ledger.queued("two")
    again = ledger.queued("one")

    listed = ledger.operations.calls(CallFilter(call_ids=(one.call_id,)), limit=10)

    assert {view.key for view in listed} == {one, again}


# Dead letters and unprocessable_messages.


def test_dead_letters_are_grouped_by_what_failed(ledger: LedgerUnderTest) -> None:
    """Largest group first, with a failure to look at and when it began and went on."""
    for page in range(2):
        ledger.dead(f"limited {page}")
        ledger.age(60)
    odd = ledger.answered("odd")
    ledger.settle(a_failure(odd, error='{"code": "odd"}', error_fingerprint="feed"))
    ledger.succeeded("fine")

    large, small = ledger.operations.dead_groups(EVERYTHING)

    assert large.error_fingerprint == RATE_LIMITED.fingerprint("openai")
    assert (large.provider, large.model, large.count) == ("openai", "gpt-4o-mini", 2)
    assert large.sample_error == RATE_LIMITED.to_json()
    assert 59 < (large.last_at - large.first_at).total_seconds() < 62
    assert (small.error_fingerprint, small.count) == ("feed", 1)
    assert small.first_at == small.last_at


def test_dead_groups_can_be_filtered(ledger: LedgerUnderTest) -> None:
    """As calls can."""
    ledger.set_budget(LIMIT, org_id="zeta")
    ledger.dead()
    ledger.dead("theirs", org_id="zeta")

    (group,) = ledger.operations.dead_groups(CallFilter(org_id="zeta"))

    assert group.count == 1
    assert ledger.operations.dead_groups(CallFilter(error_fingerprint="feed")) == []


def test_unprocessable_messages_are_kept(ledger: LedgerUnderTest) -> None:
    """A message that names no call is a dead letter too; its bytes stay as they came."""
    first = UnprocessableMessage("callgate.call", "not JSON", b"\x00\xff raw")
    second = UnprocessableMessage("callgate.log", "no such task", b"{}")
    ledger.operations.keep_unprocessable(first)
    ledger.age(1)
    ledger.operations.keep_unprocessable(second)

    kept = ledger.operations.unprocessable_messages(limit=10)

    assert [message for _, message in kept] == [second, first]
    assert kept[0][0] > kept[1][0]
    assert [message for _, message in ledger.operations.unprocessable_messages(limit=1)] == [second]


# Cancelling and discarding.


@pytest.mark.parametrize(
    "bring",
    [
        lambda ledger: ledger.queued(link=LINK),
        lambda ledger: ledger.waiting(due_in_s=60, link=LINK).key,
        lambda ledger: ledger.dead(link=LINK).key,
    ],
    ids=["queued", "waiting", "dead"],
)
def test_what_is_not_running_can_be_ended(
    ledger: LedgerUnderTest, bring: Callable[[LedgerUnderTest], CallKey]
) -> None:
    """It is rejected, says why, and its links fall due at once."""
    key = bring(ledger)
    is_dead = ledger.state(key) is CallState.DEAD
    code = EndReason.DISCARDED if is_dead else EndReason.CANCELLED

    ended = ledger.operations.end([key], code=code, message="ann: wrong prompt")

    view = ledger.view(key)
    assert ended == [key]
    assert (view.state, view.error is not None) == (CallState.REJECTED, True)
    error = json.loads(view.error or "")
    assert (error["code"], error["message"]) == (code, "ann: wrong prompt")
    (link,) = ledger.links()
    assert (link.key, link.state, link.link) == (key, CallState.REJECTED, LINK)


@pytest.mark.parametrize(
    "bring",
    [
        lambda ledger: ledger.running().key,
        lambda ledger: ledger.answered().key,
        lambda ledger: ledger.succeeded().key,
        lambda ledger: ledger.rejected(),
    ],
    ids=["dispatched", "answered", "succeeded", "rejected"],
)
def test_what_is_running_or_has_ended_is_left_alone(
    ledger: LedgerUnderTest, bring: Callable[[LedgerUnderTest], CallKey]
) -> None:
    """A request under way cannot be called back, and an end is an end."""
    key = bring(ledger)
    before = ledger.view(key)

    assert ledger.operations.end([key], code=EndReason.CANCELLED, message="too late") == []

    assert ledger.view(key) == before


def test_ending_tells_which(ledger: LedgerUnderTest) -> None:
    """Of many keys, those that were ended; unknown ones are no error. What died meanwhile is not cancelled."""
    queued, dead, running = ledger.queued("a"), ledger.dead("b").key, ledger.running("c").key
    missing = CallKey(queued.call_id, 9)

    keys = [running, dead, missing, queued]

    assert ledger.operations.end(keys, code=EndReason.CANCELLED, message="y") == [queued]
    assert ledger.operations.end(keys, code=EndReason.DISCARDED, message="y") == [dead]
    assert ledger.operations.end([], code=EndReason.CANCELLED, message="y") == []


def test_an_ended_call_without_links_rests(ledger: LedgerUnderTest) -> None:
    """Nobody to tell."""
    assert ledger.view(ledger.rejected()).due_at is None


def test_a_link_that_was_delivered_is_not_fired_again_by_discarding(
    ledger: LedgerUnderTest,
) -> None:
    """Its submitter heard of the death; throwing the letter away is no news."""
    new = a_submission(link=LINK)
    ledger.submit(new)
    key = ledger.dead().key
    ledger.deliver(new.submission_id)

    ledger.operations.end([key], code=EndReason.DISCARDED, message="ann: known")

    assert ledger.view(key).due_at is None


def test_a_cancelled_call_cannot_be_claimed(ledger: LedgerUnderTest) -> None:
    """Its message is still in the queue, and finds nothing to do."""
    key = ledger.rejected()

    assert ledger.reserve(a_reserve(key)) == [NotClaimed(key, CallState.REJECTED)]


def test_a_submission_after_a_cancellation_starts_the_next_generation(
    ledger: LedgerUnderTest,
) -> None:
    """Its link hears of the new generation; the cancelled one is not revived."""
    rejected = ledger.rejected()
    new = a_submission(link=LINK)
    ref = ledger.claim(ledger.submit(new)[0].key)
    ledger.record(an_answer(ref))

    (settled,) = ledger.settle(a_success(ref))

    assert settled.has_links
    key = CallKey(rejected.call_id, 2)
    assert ledger.links(keys=[key]) == [
        Delivery(new.submission_id, key, CallState.SUCCEEDED, LINK, ORG)
    ]


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (CallFilter(kind="retry"), ["again"]),
        (CallFilter(outcome="failed"), ["again", "dead"]),
        (CallFilter(outcome="succeeded"), ["again", "good"]),
        (CallFilter(kind="first", outcome="succeeded"), ["good"]),
        (CallFilter(tier="none"), []),
    ],
)
def test_calls_are_found_by_their_attempts(
    ledger: LedgerUnderTest, which: CallFilter, found: list[str]
) -> None:
    """One attempt must be all that is asked for."""
    names = {
        ledger.succeeded("good").key: "good",
        ledger.dead("dead").key: "dead",
        (ref := ledger.waiting("again")).key: "again",
    }
    again = ledger.claim(ledger.requeued(ref.key))
    ledger.record(an_answer(again))
    ledger.settle(a_success(again))

    listed = ledger.operations.calls(which, limit=10)

    assert sorted(names[view.key] for view in listed) == found


def test_calls_are_found_by_when_they_were_created(ledger: LedgerUnderTest) -> None:
    """From the first time on, before the second."""
    old = ledger.queued("old")
    ledger.age(3_600)
    new = ledger.queued("new")
    between = ledger.now() - timedelta(seconds=1_800)

    def listed(which: CallFilter) -> list[CallKey]:
        return [view.key for view in ledger.operations.calls(which, limit=10)]

    assert listed(CallFilter(since=between)) == [new]
    assert listed(CallFilter(until=between)) == [old]
    assert listed(CallFilter(since=between, until=between)) == []
