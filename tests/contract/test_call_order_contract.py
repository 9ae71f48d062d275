"""Classes, deadlines and the backlog: who comes first, and what is not in the broker."""

from __future__ import annotations

import pytest

from callgate.domain.call_order import Lane, Priority
from callgate.domain.calls import AttemptRef, CallKey, CallState, WaitReason
from callgate.domain.ledger import Refused, Reserve, Reserved
from callgate.domain.limits import DAY_S
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By, CallFilter
from callgate.domain.slots import AHEAD_MAX
from tests.contract.flow_steps import (
    a_rule,
    count_sent,
    declare,
    prove,
    released,
    sent,
    succeeds,
    tried,
    waits,
)
from tests.support.ledger_under_test import LedgerUnderTest, a_reserve, a_submission

QUEUED = CallFilter(org_id="bolt", state=CallState.QUEUED)
BULK, NORMAL, INTERACTIVE = Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE
AT_ONCE = AHEAD_MAX // 4
"""So many places are free before the backlog is released."""


def order_of(ledger: LedgerUnderTest, *, hours: int) -> list[CallKey]:
    """In which order the calls that wait are sent, hour by hour."""
    order: list[CallKey] = []
    for _ in range(hours):
        ledger.age(3_600)
        prove(ledger)
        order += [key for key in released(ledger) if isinstance(tried(ledger, key), AttemptRef)]
    return order


def test_a_higher_class_comes_first(ledger: LedgerUnderTest) -> None:
    """Although it came last."""
    declare(ledger, a_rule(24))
    count_sent(ledger, "burst", 12)
    keys = []
    for priority in (BULK, NORMAL, INTERACTIVE):
        keys.append(waits(ledger, priority.name, priority=priority))
        ledger.age(1)

    assert order_of(ledger, hours=9) == keys[::-1]


def test_a_class_ages(ledger: LedgerUnderTest) -> None:
    """A bulk call that is six hours older comes before a normal one.

    A request comes back after twelve hours and half a second. After 18 hours the second one would, half a second later:
    a busy machine takes so long.
    """
    declare(ledger, a_rule(2))
    sent(ledger, "first")
    bulk = waits(ledger, "bulk", priority=BULK)
    ledger.age(6 * 3_600 + 1)
    waits(ledger, "normal")

    assert order_of(ledger, hours=17) == [bulk]


def test_joining_raises_a_call_that_waits(ledger: LedgerUnderTest) -> None:
    """To the higher class; a lower one changes nothing."""
    declare(ledger, a_rule(2))
    sent(ledger, "first")
    raised = waits(ledger, "raised", priority=BULK)
    waits(ledger, "normal")
    for priority in (INTERACTIVE, BULK):
        (joined,) = ledger.submit(a_submission("raised", priority=priority))
        assert joined.key == raised
    assert ledger.view(raised).priority is INTERACTIVE

    assert order_of(ledger, hours=25)[:1] == [raised]


def test_joining_takes_the_latest_deadline(ledger: LedgerUnderTest) -> None:
    """None is later than any."""
    key = ledger.queued("joined", start_within_s=100.0)
    first = ledger.view(key).start_before
    ledger.submit(a_submission("joined", start_within_s=50.0))
    assert first is not None
    assert ledger.view(key).start_before == first
    ledger.submit(a_submission("joined", start_within_s=500.0))
    later = ledger.view(key).start_before
    assert later is not None
    assert later > first
    ledger.submit(a_submission("joined"))
    assert ledger.view(key).start_before is None


def test_a_call_is_not_sent_after_its_deadline(ledger: LedgerUnderTest) -> None:
    """It is rejected with nothing held."""
    key = ledger.queued("late", start_within_s=10.0)
    ledger.age(11)
    before = ledger.figures()
    refused = tried(ledger, key)

    assert isinstance(refused, Refused)
    view = ledger.view(key)
    assert (view.state, view.end_reason) == (CallState.REJECTED, "deadline_passed")
    assert ledger.figures() == before


@pytest.mark.parametrize("waits_for", ["a limit", "a retry"])
def test_a_call_that_waits_ends_at_its_deadline(ledger: LedgerUnderTest, waits_for: str) -> None:
    """What earlier attempts cost stays posted."""
    if waits_for == "a limit":
        declare(ledger, a_rule(2))
        sent(ledger, "first")
        key = waits(ledger, "late", start_within_s=60.0)
    else:
        key = ledger.waiting("late", due_in_s=3_600.0, start_within_s=60.0).key
    ledger.age(61)

    assert released(ledger) == [key]
    assert isinstance(tried(ledger, key), Refused)
    assert ledger.view(key).end_reason == "deadline_passed"


def a_claim(key: CallKey) -> Reserve:
    """A claim that holds little."""
    return a_reserve(key, 1)


def flooded(ledger: LedgerUnderTest, count: int) -> list[CallKey]:
    """Calls of bolt that are queued, or wait in the backlog."""
    batch = [a_submission(f"flood {n}", org_id="bolt") for n in range(count)]
    answers = [
        answer
        for start in range(0, count, 1_000)
        for answer in ledger.submit(*batch[start : start + 1_000])
    ]
    return [answer.key for answer in answers if answer.state is CallState.WAITING]


def test_what_cannot_run_soon_waits_in_the_ledger(ledger: LedgerUnderTest) -> None:
    """Another organisation's single call is queued, and takes the lane that workers take from first."""
    backlog = flooded(ledger, AHEAD_MAX + 5)
    assert len(backlog) == 5
    view = ledger.view(backlog[0])
    assert (view.wait_reason, view.attempt) == (WaitReason.BACKLOG, 0)

    (single,) = ledger.submit(a_submission("single"))
    assert (single.state, single.lane) == (CallState.QUEUED, Lane.EXPRESS)
    (interactive,) = ledger.submit(a_submission("now", org_id="bolt", priority=INTERACTIVE))
    assert (interactive.state, interactive.lane) == (CallState.QUEUED, Lane.EXPRESS)


def test_the_backlog_is_released_when_there_is_room(ledger: LedgerUnderTest) -> None:
    """The due query counts rows: calls that were claimed, or lost with the broker, are not in the way."""
    ledger.set_budget(10_000, org_id="bolt")
    backlog = flooded(ledger, AHEAD_MAX + 5)
    assert released(ledger) == []
    queued = [call.key for call in ledger.operations.calls(QUEUED, limit=AT_ONCE)]
    ledger.reserve(*[a_claim(key) for key in queued])

    assert set(released(ledger)) == set(backlog)


def test_settling_releases_the_backlog(ledger: LedgerUnderTest) -> None:
    """So that a flood does not wait for the next look."""
    ledger.set_budget(10_000, org_id="bolt")
    flooded(ledger, AHEAD_MAX + 5)
    queued = [call.key for call in ledger.operations.calls(QUEUED, limit=AT_ONCE)]
    outcomes = ledger.reserve(*[a_claim(key) for key in queued])
    first = outcomes[0]
    assert isinstance(first, Reserved)

    assert succeeds(ledger, first.ref).has_freed_waiters


def test_an_organisation_that_took_little_comes_first(ledger: LedgerUnderTest) -> None:
    """Its single call takes the next place at a limit, behind none of the many of another one."""
    ledger.set_budget(1_000, org_id="bolt")
    declare(ledger, a_rule(20))
    count_sent(ledger, "burst", 10)
    for n in range(5):
        waits(ledger, f"flood {n}")
        ledger.age(1)
    single = waits(ledger, "single", org_id="bolt")

    assert order_of(ledger, hours=3)[:1] == [single]


def test_organisations_share_a_limit(ledger: LedgerUnderTest) -> None:
    """In turn, although one of them came first with all of its calls."""
    for org_id in ("bolt", "cora"):
        ledger.set_budget(1_000, org_id=org_id)
    declare(ledger, a_rule(24))
    count_sent(ledger, "burst", 12, org_id="cora")
    mine = {waits(ledger, f"acme {n}") for n in range(6)}
    ledger.age(1)
    theirs = {waits(ledger, f"bolt {n}", org_id="bolt") for n in range(6)}
    first = order_of(ledger, hours=14)[:6]

    assert len(mine.intersection(first)) == len(theirs.intersection(first)) == 3


def test_an_unknown_wait_ends(ledger: LedgerUnderTest) -> None:
    """A call of the backlog is published after a day, even if others were released before it."""
    backlog = flooded(ledger, AHEAD_MAX + 1)
    ledger.age(DAY_S + 1)

    assert backlog[0] in released(ledger)


@pytest.mark.parametrize("key", [PauseKey(), PauseKey(org_id="bolt")])
def test_a_paused_organisation_keeps_its_backlog(ledger: LedgerUnderTest, key: PauseKey) -> None:
    """Otherwise each call would be published once, only to be refused."""
    by = By("ann", "they leak")
    backlog = flooded(ledger, AHEAD_MAX + 5)
    ledger.operations.pause(key, by=by)
    queued = [call.key for call in ledger.operations.calls(QUEUED, limit=AT_ONCE)]
    ledger.reserve(*[a_claim(key) for key in queued])
    assert released(ledger) == []

    ledger.operations.resume(key, by=by)

    assert {due.key for due in ledger.due(limit=1_000)} == {*backlog, *queued}
