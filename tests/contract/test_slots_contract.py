"""Organisations share the slots of the workers: which claim gives way, and what is queued."""

from __future__ import annotations

import pytest

from callgate.domain.call_order import CONGESTED_MAX, CONGESTED_MIN, Lane, Priority, congested_at
from callgate.domain.calls import AttemptRef, CallKey, CallState, WaitReason
from callgate.domain.ledger import Refused, Reserved
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.slots import AHEAD_MIN, IN_HAND_S
from tests.contract.concurrency_steps import allow, in_line
from tests.contract.flow_steps import a_rule, declare, prove, released, sent, succeeds, tried, waits
from tests.support.ledger_under_test import DAY_S, ORG, LedgerUnderTest, a_reserve, a_submission

OTHER, THIRD = "bolt", "cora"
SLOTS = 4


@pytest.fixture
def shared(ledger: LedgerUnderTest) -> LedgerUnderTest:
    """A ledger whose one worker has four slots."""
    for org_id in (ORG, OTHER, THIRD):
        ledger.set_budget(1_000_000, org_id=org_id)
    have_slots(ledger, SLOTS)
    return ledger


def have_slots(ledger: LedgerUnderTest, slots: int | None, worker_id: str = "host:1:w") -> None:
    """Let a worker live for a day."""
    ledger.leases.renew(worker_id, DAY_S, slots)


def queue(ledger: LedgerUnderTest, org_id: str, count: int) -> list[CallKey]:
    """New calls that are queued."""
    answers = ledger.submit(
        *(a_submission(f"{org_id} {n} of {count}", org_id=org_id) for n in range(count))
    )
    assert {answer.state for answer in answers} == {CallState.QUEUED}
    return [answer.key for answer in answers]


def run(ledger: LedgerUnderTest, org_id: str, count: int) -> list[AttemptRef]:
    """New calls that run."""
    return [sent(ledger, f"{org_id} runs {n} of {count}", org_id=org_id) for n in range(count)]


def gives_way(ledger: LedgerUnderTest, key: CallKey) -> bool:
    """True if a claim leaves its slot to others; False if it runs."""
    outcome = tried(ledger, key)
    assert isinstance(outcome, AttemptRef) or ledger.view(key).wait_reason is WaitReason.BACKLOG
    return isinstance(outcome, Refused)


def test_another_organisations_call_takes_the_next_slot(shared: LedgerUnderTest) -> None:
    """The one that has all of them gives way. Its call holds nothing, and costs no attempt."""
    held = run(shared, ORG, SLOTS)
    mine, (other,) = queue(shared, ORG, 3), queue(shared, OTHER, 1)
    succeeds(shared, held[0])
    before = shared.figures()

    assert gives_way(shared, mine[0])

    view = shared.view(mine[0])
    assert (view.state, view.attempt, view.last) == (CallState.WAITING, 0, None)
    assert shared.figures() == before
    assert not gives_way(shared, other)
    assert not gives_way(shared, mine[1]), "nobody waits"


def test_a_call_that_gave_way_is_queued_when_there_are_slots(shared: LedgerUnderTest) -> None:
    held = run(shared, ORG, SLOTS)
    (mine,), (other,) = queue(shared, ORG, 1), queue(shared, OTHER, 1)
    succeeds(shared, held[0])
    assert gives_way(shared, mine)
    assert released(shared) == [], "its organisation has its share"
    theirs = tried(shared, other)
    assert isinstance(theirs, AttemptRef)
    succeeds(shared, held[1])

    assert released(shared) == [mine]
    assert not gives_way(shared, mine)


def test_free_slots_are_for_all(shared: LedgerUnderTest) -> None:
    """Two are free, and the others ask for one."""
    run(shared, ORG, SLOTS - 2)
    (mine,), (other,) = queue(shared, ORG, 1), queue(shared, OTHER, 1)

    assert not gives_way(shared, mine)
    assert not gives_way(shared, other)


def test_nobody_gives_way_below_its_share(shared: LedgerUnderTest) -> None:
    """Three organisations have a share of one and a third of four slots."""
    run(shared, THIRD, SLOTS - 1)
    (first, second), _ = queue(shared, ORG, 2), queue(shared, OTHER, 5)
    queue(shared, THIRD, 5)

    assert not gives_way(shared, first)
    assert not gives_way(shared, second), "it has one, and the share is one and a third"


def test_a_batch_is_decided_row_by_row(shared: LedgerUnderTest) -> None:
    """What its rows take counts for those that come after them."""
    mine, others = queue(shared, ORG, 6), queue(shared, OTHER, 3)
    outcomes = shared.reserve(*(a_reserve(key, 1) for key in [*mine, *others]))

    runs = [isinstance(outcome, Reserved) for outcome in outcomes]
    assert runs == [True] * 2 + [False] * 4 + [True] * 2 + [True]


def test_a_call_whose_message_was_lost_keeps_no_slot_free(shared: LedgerUnderTest) -> None:
    """Its place in the queue has been passed."""
    run(shared, ORG, SLOTS)
    queue(shared, OTHER, 1)
    shared.age(IN_HAND_S + 1)
    (mine,) = queue(shared, ORG, 1)

    assert not gives_way(shared, mine)


def test_a_call_in_the_express_lane_keeps_its_slot_for_a_minute(shared: LedgerUnderTest) -> None:
    """It is not before the claim in the queue. Later its message counts as lost."""
    run(shared, ORG, SLOTS)
    queue(shared, ORG, CONGESTED_MIN)
    (other,) = shared.submit(a_submission("single", org_id=OTHER))
    assert other.lane is Lane.EXPRESS
    shared.age(IN_HAND_S + 1)
    first, second = (
        shared.queued(name, priority=Priority.INTERACTIVE) for name in ("first", "second")
    )
    assert gives_way(shared, first)
    shared.age(61 - IN_HAND_S)

    assert not gives_way(shared, second)


def test_a_call_that_waits_for_money_asks_for_no_slot(shared: LedgerUnderTest) -> None:
    """It only looks again whether there is money."""
    shared.set_budget(5, org_id=OTHER)
    run(shared, OTHER, 1)
    key = shared.queued("poor", org_id=OTHER)
    (refused,) = shared.reserve(a_reserve(key, 5))
    assert isinstance(refused, Refused)
    run(shared, ORG, SLOTS)
    shared.age(60)
    assert released(shared) == [key]
    (mine,) = queue(shared, ORG, 1)

    assert not gives_way(shared, mine)


@pytest.mark.parametrize("waits_for", ["place", "limit", "end of a pause"])
def test_calls_that_would_only_be_refused_ask_for_no_slot(
    shared: LedgerUnderTest, waits_for: str
) -> None:
    """However many there are: while they are refused one by one, the others would have half of the slots."""
    if waits_for == "place":
        allow(shared, {OTHER: 1})
        run(shared, OTHER, 1)
    elif waits_for == "limit":
        declare(shared, a_rule(2, model="gpt-4o"))
        sent(shared, "first", org_id=OTHER, model="gpt-4o")
    else:
        shared.operations.pause(
            PauseKey(org_id=OTHER, call_type="extraction"), by=By("ann", "they leak")
        )
    model = "gpt-4o" if waits_for == "limit" else "gpt-4o-mini"
    waits(shared, "waits", org_id=OTHER, model=model)
    run(shared, ORG, SLOTS - 1)
    shared.submit(*(a_submission(f"new {n}", org_id=OTHER, model=model) for n in range(20)))
    (mine,) = queue(shared, ORG, 1)

    assert not gives_way(shared, mine)


def test_a_call_of_another_kind_still_asks(shared: LedgerUnderTest) -> None:
    """Those of one model wait; one of another model does not."""
    declare(shared, a_rule(2, model="gpt-4o"))
    sent(shared, "first", org_id=OTHER, model="gpt-4o")
    waits(shared, "waits", org_id=OTHER, model="gpt-4o")
    run(shared, ORG, SLOTS - 1)
    (mine,) = queue(shared, ORG, 1)
    queue(shared, OTHER, 1)

    assert gives_way(shared, mine)


def test_calls_released_for_a_place_do_not_give_way(shared: LedgerUnderTest) -> None:
    """They would lose their place, and the line would not move."""
    allow(shared, {ORG: SLOTS})
    held = run(shared, ORG, SLOTS)
    (mine,) = in_line(shared, "in line")
    queue(shared, OTHER, 1)
    succeeds(shared, held[0])
    have_slots(shared, SLOTS - 1)
    assert released(shared) == [mine]

    assert isinstance(tried(shared, mine), AttemptRef)


def test_calls_released_for_a_limit_do_not_give_way(shared: LedgerUnderTest) -> None:
    """The limit has room for them, and for nobody else."""
    declare(shared, a_rule(24))
    run(shared, ORG, 12)
    mine = waits(shared, "limited")
    queue(shared, OTHER, 1)
    shared.age(2 * 3_600)
    prove(shared)
    shared.queued("another", org_id=OTHER)

    assert released(shared) == [mine]
    assert isinstance(tried(shared, mine), AttemptRef)


@pytest.mark.parametrize("slots", [None, 0])
def test_slots_that_nobody_knows_are_not_shared(ledger: LedgerUnderTest, slots: int | None) -> None:
    """A worker of 0.1.0 does not say how many it has."""
    ledger.set_budget(1_000, org_id=OTHER)
    if slots is None:
        have_slots(ledger, SLOTS, "host:2:w")
    have_slots(ledger, slots)
    run(ledger, ORG, SLOTS)
    (mine,) = queue(ledger, ORG, 1)
    queue(ledger, OTHER, 1)

    assert not gives_way(ledger, mine)


def test_slots_of_the_dead_do_not_count(shared: LedgerUnderTest) -> None:
    """Only leases that have not expired."""
    shared.leases.renew("host:3:dead", 1, 100)
    shared.age(2)
    have_slots(shared, SLOTS)
    run(shared, ORG, SLOTS)
    (mine,) = queue(shared, ORG, 1)
    queue(shared, OTHER, 1)

    assert gives_way(shared, mine)


@pytest.mark.parametrize(("slots", "ahead"), [(SLOTS, AHEAD_MIN), (150, 150)])
def test_about_as_many_calls_are_queued_as_there_are_slots(
    shared: LedgerUnderTest, slots: int, ahead: int
) -> None:
    """The others wait in the ledger, and follow when a quarter of that is free."""
    have_slots(shared, slots)
    batch = [a_submission(f"{n}", org_id=OTHER) for n in range(ahead + 60)]
    answers = shared.submit(*batch)
    queued = [answer.key for answer in answers if answer.state is CallState.QUEUED]
    assert len(queued) == ahead
    few = -(-ahead // 4)
    shared.reserve(*(a_reserve(key, 1) for key in queued[: few - 1]))
    assert released(shared) == []

    shared.reserve(a_reserve(queued[few - 1], 1))

    assert len(released(shared)) == few


def test_a_new_call_does_not_pass_the_backlog(shared: LedgerUnderTest) -> None:
    """Except interactive ones."""
    answers = shared.submit(*(a_submission(f"{n}") for n in range(AHEAD_MIN + 1)))
    queued = [answer.key for answer in answers if answer.lane]
    shared.reserve(*(a_reserve(key, 1) for key in queued[:10]))

    (late,) = shared.submit(a_submission("late"))
    assert (late.state, late.lane) == (CallState.WAITING, None)
    (now,) = shared.submit(a_submission("now", priority=Priority.INTERACTIVE))
    assert now.state is CallState.QUEUED


def test_an_interactive_call_does_not_wait_behind_a_backlog(shared: LedgerUnderTest) -> None:
    """Also while a part of its organisation's queue is free, because the backlog is released in parts."""
    answers = shared.submit(*(a_submission(f"{n}") for n in range(AHEAD_MIN + 60)))
    queued = [answer.key for answer in answers if answer.lane]
    shared.reserve(*(a_reserve(key, 1) for key in queued[: AHEAD_MIN // 4 - 1]))
    assert released(shared) == []

    (now,) = shared.submit(a_submission("now", priority=Priority.INTERACTIVE))

    assert now.lane is Lane.EXPRESS


def test_the_express_lane_is_used_when_half_as_many_calls_are_queued_as_slots(
    shared: LedgerUnderTest,
) -> None:
    """At least 40, and at most 64: a lost call of this lane is found a minute later, so it is not for short queues."""
    assert [congested_at(slots) for slots in (None, 1, 100, 1_000)] == [
        CONGESTED_MAX,
        CONGESTED_MIN,
        50,
        CONGESTED_MAX,
    ]
    have_slots(shared, 100)
    queue(shared, OTHER, 49)
    (before,) = shared.submit(a_submission("before"))
    (after,) = shared.submit(a_submission("after"))

    assert (before.lane, after.lane) == (Lane.CALL, Lane.EXPRESS)
