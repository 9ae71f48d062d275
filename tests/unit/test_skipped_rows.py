"""What a process does about a call that somebody holds: a few tries, then it comes back, and nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from callgate.domain.calls import AttemptStatus, CallKey, CallState
from callgate.domain.errors import LedgerUnavailable, RowRefused
from callgate.domain.ledger import Locked, Reserve, Reserved, ReserveOutcome, Settle, SettleOutcome
from callgate.services.ai_call_logger import LOCKED_PAUSES_S as SETTLE_PAUSES_S
from callgate.services.delivery_result import Deferred, DeliveryResult
from callgate.services.recovery import DUE_BATCH_MAX
from callgate.services.retrying_ledger import LOCKED_PAUSES_S
from callgate.services.skipped_rows import ITEMS_MAX, PAUSE_MAX_S, PAUSE_MIN_S, SkippedRows
from tests.support.service_world import (
    GRACE_S,
    LEASE_S,
    POLICY,
    REPLY_COST,
    ManualClock,
    ServiceWorld,
)


def hold(world: ServiceWorld, key: CallKey) -> Callable[[], None]:
    """Keep a call locked; returns what frees it."""
    world.ledger.tables.locked.add(key)
    return lambda: world.ledger.tables.locked.remove(key)


def free_after(world: ServiceWorld, key: CallKey, seconds: float) -> None:
    """Keep a call locked for a while."""
    free, sleep, ends_at = hold(world, key), world.clock.pass_time, world.clock.elapsed_s + seconds

    def pass_time(step_s: float) -> None:
        was_held = world.clock.elapsed_s < ends_at
        sleep(step_s)
        if was_held and world.clock.elapsed_s >= ends_at:
            free()

    world.clock.pass_time = pass_time  # type: ignore[assignment, method-assign]
    world.ai_call_logger._sleep = pass_time


def pass_time_and_recover(world: ServiceWorld, seconds: float) -> None:
    """Run the due query for a while."""
    for _ in range(round(seconds)):
        world.clock.elapsed_s += 1
        world.due.run()


def test_a_call_that_is_held_for_a_moment_is_claimed_by_the_same_delivery() -> None:
    """A submission that joins costs it some hundredths of a second, and no sweep."""
    world = ServiceWorld()
    key = world.submit().key
    free_after(world, key, LOCKED_PAUSES_S[0])

    view = asyncio.run(world.run(key))

    assert view.state is CallState.SUCCEEDED
    assert world.clock.elapsed_s < 0.1


def test_a_call_that_stays_held_is_left_after_some_tenths_of_a_second() -> None:
    """Its slot is wanted by others; it stays queued, and nothing was sent or held."""
    world = ServiceWorld()
    key = world.submit().key
    hold(world, key)

    executed = asyncio.run(world.llm.execute(key))

    assert executed is DeliveryResult.LOCKED
    assert world.clock.elapsed_s == pytest.approx(sum(LOCKED_PAUSES_S))
    assert world.view(key).state is CallState.QUEUED
    assert world.provider.requests == []
    assert asyncio.run(world.llm.wait_for_inflight_claims(0))


def test_a_call_that_was_held_is_published_when_it_is_free() -> None:
    """By the process that found it locked, without a sweep."""
    world = ServiceWorld()
    key = world.submit().key
    free = hold(world, key)
    asyncio.run(world.llm.execute(key))
    pass_time_and_recover(world, 3)
    assert world.queue.calls.count(key) == 0

    free()
    pass_time_and_recover(world, 5)

    assert world.queue.calls.count(key) == 1
    assert asyncio.run(world.run(key)).state is CallState.SUCCEEDED


def test_a_call_that_was_only_locked_is_not_quarantined() -> None:
    """However often sweeps found it while it was free for a moment: it was looked into each time."""

    async def isolate(key: CallKey, org_id: str, expires_in_s: float) -> DeliveryResult | Deferred:
        raise AssertionError("it runs alone")

    world = ServiceWorld(run_quarantined=isolate)
    key = world.submit().key
    for _ in range(5):
        world.clock.elapsed_s += 60
        world.due.sweep(world.clock.now())
        free = hold(world, key)
        assert asyncio.run(world.llm.execute(key)) is DeliveryResult.LOCKED
        free()
        pass_time_and_recover(world, 2)
        assert world.view(key).sweeps == 0

    assert asyncio.run(world.run(key)).state is CallState.SUCCEEDED


def test_a_quarantined_call_that_its_child_found_locked_is_tried_again() -> None:
    """The child has no due query of its own."""

    async def isolate(key: CallKey, org_id: str, expires_in_s: float) -> DeliveryResult | Deferred:
        return DeliveryResult.LOCKED

    world = ServiceWorld(run_quarantined=isolate)
    key = world.submit().key
    world.ledger.tables.calls[key].sweeps = 2

    assert asyncio.run(world.llm.execute(key)) is DeliveryResult.LOCKED
    pass_time_and_recover(world, 2)

    assert key in world.queue.calls
    assert not world.view(key).is_quarantined


def test_a_claim_that_may_have_been_made_is_tried_until_it_could_no_longer_be_sent() -> None:
    """Its answer was lost, and now somebody holds the call: given up, it would be posted at its whole hold."""
    world = ServiceWorld()
    key = world.submit().key
    reserve, is_lost = world.call_ledger.reserve, [True]

    async def unheard(claim: Reserve) -> ReserveOutcome:
        outcome = await reserve(claim)
        if is_lost.pop() if is_lost else False:
            free_after(world, key, POLICY.deadline_s)
            raise LedgerUnavailable("the answer was lost")
        return outcome

    world.call_ledger.reserve = unheard  # type: ignore[assignment, method-assign]

    view = asyncio.run(world.run(key))

    assert (view.state, view.attempt, view.posted_nano_usd) == (CallState.SUCCEEDED, 1, REPLY_COST)


def test_a_claim_that_may_have_been_made_is_not_waited_for_without_end() -> None:
    """Past deadline and grace nothing of it could be sent: the slot is given back."""
    world = ServiceWorld()
    key = world.submit().key
    world.call_ledger.outages = {"reserve": 1}
    hold(world, key)

    executed = asyncio.run(world.llm.execute(key))

    assert executed is DeliveryResult.LOCKED
    assert world.clock.elapsed_s == pytest.approx(POLICY.deadline_s + GRACE_S, abs=1)


# Settling.


def answered(world: ServiceWorld, text: str = "hello") -> Any:
    """An attempt with an answer, and no message to settle it."""
    key = world.submit(text).key
    asyncio.run(world.llm.execute(key))
    return world.queue.settle_tasks.pop()


def test_the_neighbours_of_what_is_held_are_settled_and_told_before_it_is_tried_again() -> None:
    """The batch does not wait for one row."""
    world = ServiceWorld()
    held, mate = answered(world, "held"), answered(world, "mate")
    hold(world, held.key)
    seen: list[CallState] = []
    world.ai_call_logger._sleep = lambda _: seen.append(world.view(mate.key).state)

    settled = world.ai_call_logger.settle([held, mate])

    assert [s.ref for s in settled] == [mate]
    assert seen == [CallState.SUCCEEDED] * len(SETTLE_PAUSES_S)


def test_an_answer_whose_call_is_held_for_a_moment_is_settled_at_once() -> None:
    """And its submitters are told."""
    world = ServiceWorld()
    ref = answered(world)
    free_after(world, ref.key, SETTLE_PAUSES_S[0])

    (settled,) = world.ai_call_logger.settle([ref])

    assert settled.state is CallState.SUCCEEDED


def test_an_answer_whose_call_stays_held_is_settled_when_it_is_free() -> None:
    """It stays answered, is posted once, and with the truth."""
    world = ServiceWorld()
    ref = answered(world)
    free = hold(world, ref.key)
    assert world.ai_call_logger.settle([ref]) == []
    pass_time_and_recover(world, 3 * (POLICY.deadline_s + GRACE_S))
    last = world.view(ref.key).last
    assert last is not None
    assert last.status is AttemptStatus.ANSWERED

    free()
    pass_time_and_recover(world, PAUSE_MAX_S + 1)

    view = world.view(ref.key)
    assert (view.state, view.attempt, view.posted_nano_usd) == (CallState.SUCCEEDED, 1, REPLY_COST)


def test_an_expired_attempt_that_is_locked_is_read_again() -> None:
    """The next due query takes it and reads it again."""
    world = ServiceWorld()
    key = world.submit().key
    (outcome,) = world.ledger.reserve([a_claim(key)])
    assert isinstance(outcome, Reserved)
    hold(world, key)

    assert world.ai_call_logger.settle([outcome.ref], are_expired=True) == []

    world.clock.elapsed_s += 60
    assert world.unsettled.take(10) == []


def a_claim(key: CallKey) -> Reserve:
    """A claim of a process that is gone."""
    return Reserve(
        key=key, hold_nano_usd=10, expires_in_s=40, worker_id="dead/1", price_source="a test"
    )


# The due query.


def test_the_due_query_runs_though_no_lease_can_be_expired(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on to call attempts lost: only its own failure says that the ledger was away."""
    # Another test of this process may have configured it; then lines go to its output.
    monkeypatch.setattr("structlog.is_configured", lambda: False)
    world = ServiceWorld()
    key = world.submit().key
    world.ledger.reserve([a_claim(key)])
    world.ledger.leases.expire = failing(LedgerUnavailable("locked"))  # type: ignore[method-assign]

    pass_time_and_recover(world, 60)

    last = world.view(key).last
    assert last is not None
    assert last.status is AttemptStatus.UNKNOWN
    assert world.due.healthy_since is not None
    assert caplog.text.count("recovery.step_failed") == 1


def test_leases_are_expired_though_the_due_query_fails() -> None:
    """Each alone."""
    world = ServiceWorld()
    world.due.run()
    world.clock.elapsed_s += GRACE_S
    world.ledger.leases.renew("dead", 8)
    world.clock.elapsed_s += LEASE_S / 4
    world.lease.renew()
    world.ledger.take_due = failing(RowRefused("too large"))  # type: ignore[method-assign]

    world.due.run()

    assert "dead" not in world.ledger.tables.leases


def test_what_was_held_is_tried_again_though_the_ledger_was_away() -> None:
    """A failure of one of the three does not end the process's loop."""
    world = ServiceWorld()
    key = world.submit().key
    hold(world, key)
    asyncio.run(world.llm.execute(key))
    reserve = world.ledger.reserve
    world.ledger.reserve = failing(LedgerUnavailable("away"))  # type: ignore[method-assign]

    world.clock.elapsed_s += 1
    assert world.due.run()[0] is not None
    world.ledger.reserve = reserve  # type: ignore[method-assign]
    assert world.due.run()[0] is not None


def failing(error: Exception) -> Callable[..., Any]:
    """A method that raises."""

    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


# What is kept.


def test_pauses_grow_while_it_stays_held() -> None:
    """From half a second to half a minute, and from the beginning for what is new."""
    clock = ManualClock()
    held = SkippedRows[str](clock, nullcontext())
    held.add("call")
    pauses = []
    for _ in range(9):
        began = clock.elapsed_s
        while not held.take(10):
            clock.elapsed_s += PAUSE_MIN_S / 2
        pauses.append(clock.elapsed_s - began)
        held.add("call")

    assert pauses == [0.5, 1, 2, 4, 8, 16, PAUSE_MAX_S, PAUSE_MAX_S, PAUSE_MAX_S]
    held.take(10)
    held.take(10)
    held.add("call")
    clock.elapsed_s += PAUSE_MAX_S
    assert held.take(10) == ["call"]


def test_no_more_is_kept_than_there_is_room_for() -> None:
    """Who holds more waits for the sweep or the due query; nothing grows without end."""
    clock = ManualClock()
    held = SkippedRows[int](clock, nullcontext())
    for n in range(2 * ITEMS_MAX):
        held.add(n)
        held.add(n)
    clock.elapsed_s += 1

    taken = [held.take(DUE_BATCH_MAX) for _ in range(2 * ITEMS_MAX // DUE_BATCH_MAX)]

    assert [n for batch in taken for n in batch] == list(range(ITEMS_MAX))


def test_a_locked_row_is_no_unstorable_one() -> None:
    """It is not posted at its hold, and its call does not die of it."""
    world = ServiceWorld()
    ref = answered(world)
    asked: list[int] = []

    def locked(batch: list[Settle]) -> list[SettleOutcome]:
        asked.append(len(batch))
        return [Locked(s.ref.key) for s in batch]

    world.ledger.settle = locked  # type: ignore[method-assign, assignment]

    assert world.ai_call_logger.settle([ref]) == []
    assert asked == [1] * (1 + len(SETTLE_PAUSES_S))
