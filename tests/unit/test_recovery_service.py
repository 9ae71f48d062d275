"""The one liveness rule: whatever is due is moved on, and an outage makes nothing unknown."""

from __future__ import annotations

import asyncio

import pytest

from callgate.domain.budgets import Window
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.requests import OnBudget
from callgate.services.recovery import DUE_BATCH_MAX
from tests.support.service_world import GRACE_S, ServiceWorld


def abandoned(world: ServiceWorld) -> None:
    """Have a worker claim a call and vanish."""
    key = world.submit().key
    complete, world.provider.complete = world.provider.complete, None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        asyncio.run(world.llm.execute(key))
    world.provider.complete = complete  # type: ignore[method-assign]
    world.queue.calls = [key]


def test_nobody_is_called_lost_before_ones_own_health_is_proved() -> None:
    """A process that has just reached the ledger cannot know who else could not."""
    world = ServiceWorld()
    abandoned(world)
    world.clock.elapsed_s += 30 + GRACE_S + 1

    world.due.run()
    at_once = world.view(world.queue.calls[0]).last
    world.clock.elapsed_s += GRACE_S
    world.due.run()
    after_a_grace = world.view(world.queue.calls[0]).last

    assert at_once is not None
    assert after_a_grace is not None
    assert at_once.status is AttemptStatus.DISPATCHED
    assert after_a_grace.status is AttemptStatus.UNKNOWN


def test_after_an_outage_the_grace_begins_again() -> None:
    """Nobody could record during it, so the first process to come back must not expire the others' attempts."""
    world = ServiceWorld()
    abandoned(world)
    world.due.run()
    world.clock.elapsed_s += 30 + GRACE_S + 1
    due, world.ledger.take_due = world.ledger.take_due, _away  # type: ignore[assignment, method-assign]
    assert world.due.run() == (None, 0)
    world.ledger.take_due = due  # type: ignore[method-assign]

    world.due.run()

    last = world.view(world.queue.calls[0]).last
    assert last is not None
    assert last.status is AttemptStatus.DISPATCHED


def test_calls_of_a_dead_worker_are_tried_again_before_their_deadline() -> None:
    """Its lease has run out, and this process was there all the time: it takes over."""
    world = ServiceWorld(lease_s=8)
    abandoned(world)
    world.ledger.leases.renew("dead", 8)
    _give_to(world, "dead")
    key = world.queue.calls[0]

    states = []
    for _ in range(11):
        world.clock.elapsed_s += 1
        world.lease.renew()
        world.due.run()
        states.append(world.view(key).state)

    assert states[6] is CallState.RUNNING
    assert states[-1] is not CallState.RUNNING
    last = world.view(key).last
    assert last is not None
    assert last.status is AttemptStatus.UNKNOWN


def test_a_process_without_a_stable_lease_expires_nobody() -> None:
    """It may be the one that was cut off."""
    world = ServiceWorld(lease_s=8)
    abandoned(world)
    world.ledger.leases.renew("dead", 8)
    _give_to(world, "dead")

    for _ in range(25):
        world.clock.elapsed_s += 1
        world.due.run()

    assert world.view(world.queue.calls[0]).state is CallState.RUNNING


def test_after_an_outage_no_lease_is_expired_for_a_grace() -> None:
    """The same proof of health as for deadlines."""
    world = ServiceWorld(lease_s=8)
    world.due.run()
    world.clock.elapsed_s += GRACE_S
    due, world.ledger.take_due = world.ledger.take_due, _away  # type: ignore[assignment, method-assign]
    world.due.run()
    world.ledger.take_due = due  # type: ignore[method-assign]
    expired_at: list[float] = []

    def expire(reaper: str) -> list[str]:
        expired_at.append(world.clock.elapsed_s)
        return []

    world.ledger.leases.expire = expire  # type: ignore[method-assign]
    back_at = world.clock.elapsed_s
    for _ in range(14):
        world.clock.elapsed_s += 1
        world.due.run()

    assert expired_at[0] - back_at > GRACE_S


def _give_to(world: ServiceWorld, process: str) -> None:
    """Have every attempt be one that another process made."""
    for attempt in world.ledger.tables.attempts.values():
        attempt.worker_id = f"{process}/1"


def _away(**_: object) -> None:
    raise LedgerUnavailable("away")


def test_an_answer_nobody_settled_is_settled() -> None:
    """The log message was lost; the answer was not."""
    world = ServiceWorld()
    key = world.submit().key
    asyncio.run(world.llm.execute(key))
    world.queue.settle_tasks.clear()
    world.clock.elapsed_s += 30 + GRACE_S + 1

    world.due.run()

    assert world.view(key).state is CallState.SUCCEEDED
    assert len(world.provider.requests) == 1


def test_a_call_waits_for_the_next_period_if_it_was_told_to() -> None:
    """`on_budget="wait"`: exhausted today, admitted after midnight."""
    world = ServiceWorld()
    first = asyncio.run(world.run(world.submit("first!").key))
    assert first.last is not None
    world.ledger.set_budget("acme", "org", Window.DAY, first.last.hold_nano_usd)
    waiting = world.submit("second", on_budget=OnBudget.WAIT)
    refused = asyncio.run(world.run(waiting.key))
    world.clock.elapsed_s += 13 * 3_600

    world.due.run()

    view = asyncio.run(world.run(world.queue.calls[-1]))
    assert refused.state is CallState.WAITING
    assert view.state is CallState.SUCCEEDED


def test_a_sweep_finds_what_was_lost_and_nothing_else() -> None:
    """Queued long before the sweep: lost. Queued just before it: still on its way."""
    world = ServiceWorld()
    lost = world.submit("lost").key
    world.clock.elapsed_s += 5
    world.submit("fresh")

    count = world.due.sweep(world.clock.now())

    assert count == 1
    assert world.queue.calls == [lost]


def test_sweeps_come_ahead_of_what_was_lost() -> None:
    """So that a stranger at the queue does not get the same place in turn each time; none if nothing was lost."""
    world = ServiceWorld()
    world.due._sweeps_between = lambda: 2
    world.due.sweep(world.clock.now())
    assert world.queue.sweeps == []
    world.submit()
    world.clock.elapsed_s += 5

    world.due.sweep(world.clock.now())

    assert len(world.queue.sweeps) == 2


def test_one_sweep_brings_a_whole_queue_back() -> None:
    """After a wipe thousands of calls have lost their messages, not one batch of them."""
    world = ServiceWorld()
    for number in range(2 * DUE_BATCH_MAX + 1):
        world.submit(str(number))
    world.queue.calls.clear()
    world.clock.elapsed_s += 60

    assert world.due.sweep(world.clock.now()) == 2 * DUE_BATCH_MAX + 1
    assert len(set(world.queue.calls)) == 2 * DUE_BATCH_MAX + 1


def test_without_a_broker_what_is_due_stays_queued_for_a_sweep() -> None:
    """A retry whose publish fails is not lost."""
    world = ServiceWorld()
    key = world.submit().key
    world.queue.is_away = True

    world.due.run()
    world.queue.is_away = False
    world.clock.elapsed_s += 5
    world.due.sweep(world.clock.now())

    assert world.queue.calls == [key]


def test_a_settlement_that_frees_headroom_asks_for_the_due_query() -> None:
    """The released call need not wait for the next interval."""
    world = ServiceWorld()
    first = asyncio.run(world.run(world.submit("first").key))
    assert first.last is not None
    world.ledger.set_budget("acme", "org", Window.DAY, first.last.hold_nano_usd * 3 // 2)
    busy, held_up = world.submit("second").key, world.submit("third!").key
    asyncio.run(world.llm.execute(busy))
    asyncio.run(world.llm.execute(held_up))
    before = list(world.headroom_freed_at_s)

    world.ai_call_logger.settle(world.queue.settle_tasks)
    world.due.run()

    assert (before, len(world.headroom_freed_at_s)) == ([], 1)
    assert world.queue.calls == [held_up]
