"""Pauses: what is paused waits and holds nothing, what is in flight ends, and all else goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from callgate.domain.calls import AttemptRef, CallKey, CallState, WaitReason
from callgate.domain.ledger import Refused
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By, CallFilter
from tests.contract.flow_steps import (
    MODEL,
    a_rule,
    count_sent,
    declare,
    is_limited,
    prove,
    released,
    sent,
    succeeds,
    tried,
    waits,
)
from tests.support.ledger_under_test import DAY_S, ORG, LedgerUnderTest, a_reserve

BY = By("ann", "the provider leaks")
ALL = PauseKey()
OTHER = "bolt"


@pytest.fixture
def two_orgs(ledger: LedgerUnderTest) -> LedgerUnderTest:
    """A ledger in which two organisations have a budget."""
    ledger.set_budget(1_000, org_id=OTHER)
    return ledger


def is_paused(ledger: LedgerUnderTest, key: CallKey) -> bool:
    """Whether a call waits because it is paused."""
    return ledger.view(key).wait_reason is WaitReason.PAUSED


@pytest.mark.parametrize(
    ("key", "others"),
    [
        (PauseKey(provider="openai"), {"provider": "sim"}),
        (PauseKey(model=MODEL), {"model": "gpt-4o"}),
        (PauseKey(call_type="extraction"), {"call_type": "summary"}),
        (PauseKey(org_id=ORG), {"org_id": OTHER}),
        (PauseKey(org_id=ORG, call_type="extraction"), {"call_type": "summary"}),
        (PauseKey(provider="openai", model=MODEL), {"provider": "sim"}),
    ],
)
def test_a_pause_stops_what_it_covers_and_nothing_else(
    two_orgs: LedgerUnderTest, key: PauseKey, others: dict[str, str]
) -> None:
    """The call holds nothing, and says why it waits."""
    two_orgs.operations.pause(key, by=BY)
    held = two_orgs.figures()

    paused = waits(two_orgs, "paused")
    assert isinstance(tried(two_orgs, two_orgs.queued("other", **others)), AttemptRef)

    view = two_orgs.view(paused)
    assert (view.wait_reason, view.attempt) == (WaitReason.PAUSED, 0)
    assert json.loads(view.error or "") == {
        "code": "paused",
        "message": "paused by an operator: the provider leaks",
    }
    assert two_orgs.figures()[0] - held[0] in (0, 1)
    (listed,) = two_orgs.operations.calls(CallFilter(wait_reason=WaitReason.PAUSED), limit=9)
    assert listed.key == paused


def test_everything_can_be_paused(two_orgs: LedgerUnderTest) -> None:
    """Of every organisation, provider, model and call type."""
    two_orgs.operations.pause(ALL, by=BY)

    for n, changes in enumerate(({}, {"org_id": OTHER}, {"provider": "sim", "model": "o9"})):
        assert is_paused(two_orgs, waits(two_orgs, f"call {n}", **changes))
    assert two_orgs.figures() == (0, 0)


def test_what_is_in_flight_ends(ledger: LedgerUnderTest) -> None:
    """Its answer is recorded, settled and paid."""
    ref = sent(ledger, "in flight")
    ledger.operations.pause(ALL, by=BY)

    assert succeeds(ledger, ref).state is CallState.SUCCEEDED
    assert ledger.figures() == (0, 1)


def test_the_end_of_a_pause_wakes_what_waits(ledger: LedgerUnderTest) -> None:
    """Until then nothing is published: a paused call is not tried again and again."""
    ledger.operations.pause(ALL, by=BY)
    keys = []
    for n in range(3):
        keys.append(waits(ledger, f"call {n}"))
        ledger.age(1)
    assert released(ledger) == []

    assert ledger.operations.resume(ALL, by=BY)

    assert sorted(released(ledger)) == sorted(keys)
    assert isinstance(tried(ledger, keys[0]), AttemptRef)


def test_a_call_waits_until_no_pause_covers_it(ledger: LedgerUnderTest) -> None:
    """The oldest one says why."""
    ledger.operations.pause(PauseKey(org_id=ORG), by=BY)
    ledger.age(1)
    ledger.operations.pause(PauseKey(model=MODEL), by=By("ben", "too dear"))
    key = waits(ledger, "call")
    assert "the provider leaks" in (ledger.view(key).error or "")

    ledger.operations.resume(PauseKey(org_id=ORG), by=BY)
    assert released(ledger) == []

    ledger.operations.resume(PauseKey(model=MODEL), by=BY)
    assert released(ledger) == [key]


def test_many_calls_are_woken_in_batches(ledger: LedgerUnderTest) -> None:
    """The due query takes no more at a time than it was asked for, the oldest first, and finds all."""
    ledger.operations.pause(ALL, by=BY)
    keys = []
    for n in range(5):
        keys.append(waits(ledger, f"call {n}"))
        ledger.age(1)
    ledger.operations.resume(ALL, by=BY)

    woken = [[due.key for due in ledger.due(limit=2, expire=False)] for _ in range(4)]

    assert [len(batch) for batch in woken] == [2, 2, 1, 0]
    assert sorted(key for batch in woken for key in batch) == sorted(keys)


def test_a_locked_call_is_woken_later(ledger: LedgerUnderTest) -> None:
    """A client can hold its own calls; the due query finds it when it is free."""
    ledger.operations.pause(ALL, by=BY)
    key = waits(ledger, "call")
    with ledger.holding(key):
        ledger.operations.resume(ALL, by=BY)
        assert released(ledger) == []

    assert released(ledger) == [key]


def test_a_wait_ends_after_its_longest_time(ledger: LedgerUnderTest) -> None:
    """In total, over all pauses; then the call is rejected, and cost nothing."""
    ledger.operations.pause(ALL, by=BY)
    key = ledger.queued("call")
    (outcome,) = ledger.reserve(a_reserve(key, 1, wait_max_s=60.0))
    assert isinstance(outcome, Refused)
    due_at = ledger.view(key).due_at
    assert due_at is not None
    assert due_at - ledger.now() <= timedelta(seconds=60)
    ledger.age(30)
    ledger.operations.resume(ALL, by=BY)
    ledger.operations.pause(ALL, by=BY)
    ledger.requeued(key)
    ledger.reserve(a_reserve(key, 1, wait_max_s=60.0))
    assert is_paused(ledger, key)
    ledger.age(31)
    ledger.requeued(key)

    ledger.reserve(a_reserve(key, 1, wait_max_s=60.0))

    view = ledger.view(key)
    assert (view.state, view.end_reason) == (CallState.REJECTED, "paused")
    assert ledger.figures() == (0, 0)


def test_a_retry_waits_too(ledger: LedgerUnderTest) -> None:
    """An attempt was made before; the next one waits for the end of the pause."""
    key = ledger.waiting("call").key
    ledger.operations.pause(ALL, by=BY)
    ledger.requeued(key)

    assert isinstance(tried(ledger, key), Refused)
    assert is_paused(ledger, key)


def test_paused_calls_do_not_block_the_queue_of_a_limit(two_orgs: LedgerUnderTest) -> None:
    """They keep their place, and others pass."""
    declare(two_orgs, a_rule(6))
    count_sent(two_orgs, "burst", 3)
    first = waits(two_orgs, "first")
    two_orgs.age(1)
    second = waits(two_orgs, "second", org_id=OTHER)
    two_orgs.operations.pause(PauseKey(org_id=ORG), by=BY)
    two_orgs.age(DAY_S / 4 + 10)
    prove(two_orgs)

    assert released(two_orgs) == [second]
    assert isinstance(tried(two_orgs, second), AttemptRef)
    assert two_orgs.view(first).wait_reason is WaitReason.RATE_LIMITED

    two_orgs.operations.resume(PauseKey(org_id=ORG), by=BY)
    two_orgs.age(DAY_S / 4 + 10)
    prove(two_orgs)
    assert released(two_orgs) == [first]


@pytest.mark.parametrize("key", [PauseKey(org_id=ORG), PauseKey(call_type="extraction")])
def test_a_new_call_passes_those_that_are_paused(two_orgs: LedgerUnderTest, key: PauseKey) -> None:
    """It need not wait behind them."""
    declare(two_orgs, a_rule(6))
    count_sent(two_orgs, "burst", 3)
    waits(two_orgs, "before")
    two_orgs.operations.pause(key, by=BY)
    two_orgs.age(DAY_S / 4 + 10)
    prove(two_orgs)

    new = two_orgs.queued("new", org_id=OTHER, call_type="summary")
    assert isinstance(tried(two_orgs, new), AttemptRef)


def test_calls_of_a_paused_type_do_not_block_others_of_their_organisation(
    ledger: LedgerUnderTest,
) -> None:
    """Within one organisation."""
    declare(ledger, a_rule(6))
    count_sent(ledger, "burst", 3)
    waits(ledger, "first")
    ledger.age(1)
    second = waits(ledger, "second", call_type="summary")
    ledger.operations.pause(PauseKey(call_type="extraction"), by=BY)
    ledger.age(DAY_S / 4 + 10)
    prove(ledger)

    assert released(ledger) == [second]


@pytest.mark.parametrize("key", [PauseKey(org_id=ORG), PauseKey(call_type="extraction")])
def test_a_call_that_waits_for_a_blocked_key_stays_there(
    two_orgs: LedgerUnderTest, key: PauseKey
) -> None:
    """It is not released while it is paused, and another organisation sends the probe although it had its turn."""
    refs = [sent(two_orgs, "mine"), sent(two_orgs, "theirs", org_id=OTHER, call_type="summary")]
    for ref in refs:
        is_limited(two_orgs, ref)
    two_orgs.operations.pause(key, by=BY)
    mine, theirs = (ref.key for ref in refs)
    for _ in range(2):
        two_orgs.age(300)
        assert released(two_orgs) == [theirs]
        probe = tried(two_orgs, theirs)
        assert isinstance(probe, AttemptRef)
        is_limited(two_orgs, probe)
    assert two_orgs.view(mine).wait_reason is WaitReason.RATE_LIMITED

    two_orgs.age(300)
    prove(two_orgs)
    assert released(two_orgs) == [theirs]
    probe = tried(two_orgs, theirs)
    assert isinstance(probe, AttemptRef)
    succeeds(two_orgs, probe)
    two_orgs.age(300)
    prove(two_orgs)
    assert released(two_orgs) == []

    two_orgs.operations.resume(key, by=BY)
    assert released(two_orgs) == [mine]


def test_a_released_call_that_is_paused_meanwhile_leaves_the_queue_of_its_key(
    two_orgs: LedgerUnderTest,
) -> None:
    """It counts as waiting for the pause, no longer for the provider."""
    ref = sent(two_orgs, "mine")
    is_limited(two_orgs, ref)
    two_orgs.age(300)
    assert released(two_orgs) == [ref.key]
    two_orgs.operations.pause(PauseKey(org_id=ORG), by=BY)

    assert isinstance(tried(two_orgs, ref.key), Refused)

    assert is_paused(two_orgs, ref.key)
    assert [b.waiting for b in two_orgs.operations.breakers() if b.model == MODEL] == [0]


def test_pauses_are_listed_with_what_waits(ledger: LedgerUnderTest) -> None:
    """Oldest first; the same pause again replaces who and why."""
    key = PauseKey(provider="openai")
    made = ledger.operations.pause(key, by=BY)
    ledger.age(1)
    ledger.operations.pause(PauseKey(org_id=OTHER), by=BY)
    waits(ledger, "call")

    (first, second) = ledger.operations.pauses()
    assert first == replace(made, at=first.at, waiting=1)
    assert (first.key, first.by, second.waiting) == (key, BY, 0)

    ledger.age(1)
    ben = By("ben", "still")
    again = ledger.operations.pause(key, by=ben)
    assert (again.by, again.waiting) == (ben, 1)
    assert [pause.key for pause in ledger.operations.pauses()] == [second.key, key]


def test_each_change_is_in_the_action_log(ledger: LedgerUnderTest) -> None:
    """A resume of what is not paused changes nothing, and is not logged."""
    some = PauseKey("openai", "m", "extraction", ORG)
    ledger.operations.pause(ALL, by=BY)
    ledger.operations.pause(some, by=BY)
    assert ledger.operations.resume(some, by=By("ben", "again"))
    assert not ledger.operations.resume(some, by=BY)

    done = [(a.action, a.org_id, a.subject, a.by) for a in ledger.operations.actions(limit=3)]
    subject = f"provider openai, model m, call type extraction, organisation {ORG}"
    assert done == [
        ("resume", ORG, subject, By("ben", "again")),
        ("pause", ORG, subject, BY),
        ("pause", None, "everything", BY),
    ]
