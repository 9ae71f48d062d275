"""How many calls of an organisation run at a time: the others wait, hold nothing, and come in turn."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from callgate.domain.call_order import Priority
from callgate.domain.calls import AttemptRef, CallState
from callgate.domain.ledger import Refused, Reserved
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By, CallFilter, EndReason
from tests.contract.concurrency_steps import LIMITED, allow, in_line
from tests.contract.flow_steps import (
    is_limited,
    released,
    sent,
    succeeds,
    tried,
)
from tests.support.ledger_under_test import (
    ORG,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_reserve,
    an_answer,
)

BY = By("ann", "it is slow")
OTHER = "bolt"


@pytest.fixture
def two_orgs(ledger: LedgerUnderTest) -> LedgerUnderTest:
    """A ledger in which two organisations have a budget."""
    ledger.set_budget(1_000, org_id=OTHER)
    return ledger


def fails(ledger: LedgerUnderTest, ref: AttemptRef, *, is_final: bool = True) -> None:
    """Record and settle a failure."""
    ledger.record(an_answer(ref, reply=None, error="{}"))
    ledger.settle(
        a_failure(ref, CallState.DEAD if is_final else CallState.WAITING, due_in_s=3_600.0)
    )


def test_what_is_above_waits_and_holds_nothing(ledger: LedgerUnderTest) -> None:
    """It says why, and counts no attempt."""
    allow(ledger, {"": 2})
    sent(ledger, "a")
    sent(ledger, "b")
    (key,) = in_line(ledger, "c")

    view = ledger.view(key)
    assert (view.wait_reason, view.attempt) == (LIMITED, 0)
    assert json.loads(view.error or "") == {
        "code": "concurrency_limited",
        "message": f"2 calls of {ORG} may run at a time",
    }
    assert ledger.figures() == (2, 0)
    (listed,) = ledger.operations.calls(CallFilter(wait_reason=LIMITED), limit=9)
    assert listed.key == key
    assert released(ledger) == []


def test_a_batch_is_decided_row_by_row(ledger: LedgerUnderTest) -> None:
    allow(ledger, {"": 2})
    keys = [ledger.queued(name) for name in "abcd"]
    outcomes = ledger.reserve(*[a_reserve(key, 1) for key in keys])

    assert [type(outcome) for outcome in outcomes] == [Reserved, Reserved, Refused, Refused]


def test_each_organisation_has_its_own_places(two_orgs: LedgerUnderTest) -> None:
    """One can have another number than the others."""
    allow(two_orgs, {"": 1, OTHER: 2})
    sent(two_orgs, "a")
    in_line(two_orgs, "b")
    sent(two_orgs, "c", org_id=OTHER)
    sent(two_orgs, "d", org_id=OTHER)
    in_line(two_orgs, "e", org_id=OTHER)


def test_each_call_type_has_its_own_places(two_orgs: LedgerUnderTest) -> None:
    """In each organisation; those without a policy have the default's."""
    allow(two_orgs, {}, {"": 1, "free": None, "extraction": 2})
    for n in range(3):
        sent(two_orgs, f"free {n}", call_type="free")
    for n in range(2):
        sent(two_orgs, f"extraction {n}")
    (key,) = in_line(two_orgs, "extraction 3")
    sent(two_orgs, "other", call_type="other")
    in_line(two_orgs, "other 2", call_type="other")
    sent(two_orgs, "other 3", call_type="another")
    sent(two_orgs, "of the other", org_id=OTHER)

    message = json.loads(two_orgs.view(key).error or "")["message"]
    assert message == f"2 extraction calls of {ORG} may run at a time"


@pytest.mark.parametrize("ends", ["succeeds", "dies", "is retried", "is lost", "is rate limited"])
def test_each_end_makes_room(ledger: LedgerUnderTest, ends: str) -> None:
    """In the same statement: those that wait are due at once, as many as find a place."""
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    first, _ = in_line(ledger, "b", "c")
    match ends:
        case "succeeds":
            assert succeeds(ledger, ref).has_freed_waiters
        case "dies":
            fails(ledger, ref)
        case "is retried":
            fails(ledger, ref, is_final=False)
        case "is lost":
            ledger.settle(a_loss(ref, 1, due_in_s=3_600.0))
        case _:
            is_limited(ledger, ref)

    due_at = ledger.view(first).due_at
    assert due_at is not None
    assert due_at <= ledger.now()
    assert released(ledger) == [first]


def test_those_that_wait_come_in_turn(ledger: LedgerUnderTest) -> None:
    """By class, then by age; one for each place, however often somebody looks."""
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    low, high = in_line(ledger, "b", "c")
    (urgent,) = in_line(ledger, "d", priority=Priority.INTERACTIVE)

    for key in (urgent, low, high):
        succeeds(ledger, ref)
        assert released(ledger) == [key]
        assert released(ledger) == []
        claimed = tried(ledger, key)
        assert isinstance(claimed, AttemptRef)
        ref = claimed


def test_a_woken_call_keeps_its_place(ledger: LedgerUnderTest) -> None:
    """A new call does not overtake those that wait, before they are woken and after."""
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    (first,) = in_line(ledger, "b")
    succeeds(ledger, ref)
    in_line(ledger, "new")
    assert released(ledger) == [first]
    in_line(ledger, "newer")

    assert isinstance(tried(ledger, first), AttemptRef)


def test_a_new_call_takes_a_place_that_nobody_waits_for(ledger: LedgerUnderTest) -> None:
    """Although somebody waits: two places are free."""
    allow(ledger, {"": 2})
    refs = [sent(ledger, name) for name in "ab"]
    in_line(ledger, "c")
    for ref in refs:
        succeeds(ledger, ref)

    assert isinstance(tried(ledger, ledger.queued("new")), AttemptRef)
    in_line(ledger, "newer")


def test_a_call_type_that_is_full_does_not_stop_another(ledger: LedgerUnderTest) -> None:
    """Those that wait for their type take no place of the organisation."""
    allow(ledger, {"": 2}, {"slow": 1})
    ref = sent(ledger, "a", call_type="slow")
    slow = in_line(ledger, *"bcd", call_type="slow")
    other = sent(ledger, "e")
    (waiting,) = in_line(ledger, "f")

    succeeds(ledger, other)
    assert released(ledger) == [waiting]
    assert isinstance(tried(ledger, waiting), AttemptRef)
    succeeds(ledger, ref)
    assert released(ledger) == [slow[0]]


def test_places_of_the_organisation_go_by_turn(ledger: LedgerUnderTest) -> None:
    """A new call of another type does not overtake those that wait either."""
    allow(ledger, {"": 1})
    ref = sent(ledger, "a", call_type="slow")
    (first,) = in_line(ledger, "b", call_type="slow")
    succeeds(ledger, ref)
    in_line(ledger, "c")

    assert released(ledger) == [first]


def test_a_call_that_waits_does_not_take_a_probe(ledger: LedgerUnderTest) -> None:
    """The provider is not asked for it: another organisation's call is the probe."""
    ledger.set_budget(1_000, org_id=OTHER)
    blocked = sent(ledger, "blocks the key", org_id=OTHER)
    allow(ledger, {ORG: 1})
    sent(ledger, "a", model="gpt-4o")
    is_limited(ledger, blocked)
    ledger.age(300)
    in_line(ledger, "b")

    assert isinstance(tried(ledger, blocked.key) if released(ledger) else None, AttemptRef)


def test_a_probe_needs_a_place_too(ledger: LedgerUnderTest) -> None:
    """It leaves the line of its provider, and another one can be the probe."""
    ledger.set_budget(1_000, org_id=OTHER)
    refs = [sent(ledger, "mine"), sent(ledger, "theirs", org_id=OTHER)]
    for ref in refs:
        is_limited(ledger, ref)
    sent(ledger, "other model", model="gpt-4o")
    allow(ledger, {ORG: 1})
    ledger.age(300)
    seen = set()
    for _ in range(2):
        for key in released(ledger):
            seen.add(key)
            tried(ledger, key)
    mine, theirs = (ledger.view(ref.key) for ref in refs)

    assert seen == {ref.key for ref in refs}
    assert mine.wait_reason is LIMITED
    assert theirs.state is CallState.RUNNING


def test_a_wait_ends_after_its_longest_time(ledger: LedgerUnderTest) -> None:
    """Then the call is rejected, and cost nothing."""
    allow(ledger, {"": 1})
    sent(ledger, "a")
    key = ledger.queued("b")
    ledger.reserve(a_reserve(key, 1, wait_max_s=60.0))
    due_at = ledger.view(key).due_at
    assert due_at is not None
    assert due_at - ledger.now() <= timedelta(seconds=60)
    ledger.age(61)
    ledger.requeued(key)
    ledger.reserve(a_reserve(key, 1, wait_max_s=60.0))

    view = ledger.view(key)
    assert (view.state, view.end_reason) == (CallState.REJECTED, "concurrency_limited")
    assert ledger.figures() == (1, 0)


def test_a_call_whose_wait_is_over_is_sent_if_there_is_a_place(ledger: LedgerUnderTest) -> None:
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    key = ledger.queued("b")
    ledger.reserve(a_reserve(key, 1, wait_max_s=60.0))
    ledger.age(61)
    succeeds(ledger, ref)
    assert released(ledger) == [key]

    assert isinstance(tried(ledger, key), AttemptRef)


def test_a_retry_waits_too(ledger: LedgerUnderTest) -> None:
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    fails(ledger, ref, is_final=False)
    sent(ledger, "b")
    ledger.age(3_601)
    ledger.requeued(ref.key)

    assert isinstance(tried(ledger, ref.key), Refused)
    assert ledger.view(ref.key).wait_reason is LIMITED


def test_a_paused_call_is_passed_over(ledger: LedgerUnderTest) -> None:
    """It keeps its turn until the pause ends."""
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    (paused,) = in_line(ledger, "b")
    (other,) = in_line(ledger, "c", call_type="summary")
    ledger.operations.pause(PauseKey(call_type="extraction"), by=BY)
    succeeds(ledger, ref)
    assert released(ledger) == [other]
    ledger.operations.resume(PauseKey(call_type="extraction"), by=BY)
    running = tried(ledger, other)
    assert isinstance(running, AttemptRef)
    assert released(ledger) == []
    succeeds(ledger, running)

    assert released(ledger) == [paused]


def test_a_woken_call_that_is_refused_for_another_reason_leaves_the_line(
    ledger: LedgerUnderTest,
) -> None:
    """Its place is for the next one."""
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    first, second = in_line(ledger, "b", "c")
    succeeds(ledger, ref)
    assert released(ledger) == [first]
    ledger.reserve(a_reserve(first, 10_000))

    assert released(ledger) == [second]


def test_a_cancelled_call_leaves_the_line(ledger: LedgerUnderTest) -> None:
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    first, second = in_line(ledger, "b", "c")
    ledger.operations.end([first], code=EndReason.CANCELLED, message="by a test")
    succeeds(ledger, ref)

    assert released(ledger) == [second]


def test_a_locked_call_is_passed_over(ledger: LedgerUnderTest) -> None:
    """A client can hold its own calls."""
    allow(ledger, {"": 1})
    ref = sent(ledger, "a")
    first, second = in_line(ledger, "b", "c")
    with ledger.holding(first):
        succeeds(ledger, ref)
        assert released(ledger) == [second]


def test_a_higher_number_wakes_those_that_wait(ledger: LedgerUnderTest) -> None:
    """The newest declaration counts; without any, all of them."""
    allow(ledger, {"": 1})
    sent(ledger, "a")
    keys = in_line(ledger, *"bcde")
    allow(ledger, {"": 3})
    assert sorted(released(ledger)) == sorted(keys[:2])
    allow(ledger)

    assert sorted(released(ledger)) == sorted(keys[2:])
    assert all(isinstance(tried(ledger, key), AttemptRef) for key in keys)


def test_a_lower_number_stops_nothing_that_runs(ledger: LedgerUnderTest) -> None:
    refs = [sent(ledger, name) for name in "abc"]
    allow(ledger, {"": 1})
    (key,) = in_line(ledger, "d")
    for ref in refs[:2]:
        succeeds(ledger, ref)
        assert released(ledger) == []
    succeeds(ledger, refs[2])

    assert released(ledger) == [key]


def test_a_repeated_claim_has_its_place(ledger: LedgerUnderTest) -> None:
    """Its first answer was lost."""
    allow(ledger, {"": 1})
    key = ledger.queued("a")
    claim = a_reserve(key, 1)
    (first,), (again,) = ledger.reserve(claim), ledger.reserve(claim)

    assert isinstance(first, Reserved)
    assert isinstance(again, Reserved)
    assert first.ref == again.ref
