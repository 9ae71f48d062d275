"""What a process does about a call that somebody holds: a few tries, then it comes back, and nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from callgate.domain.errors import LedgerUnavailable, RowRefused
from callgate.domain.ledger import (
    AttemptStatus,
    CallKey,
    CallState,
    Locked,
    Reserve,
    Reserved,
    ReserveOutcome,
    Settle,
    SettleOutcome,
)
from callgate.services.ai_call_logger import LOCKED_PAUSES_S as SETTLE_PAUSES_S
from callgate.services.llm_service import LOCKED_PAUSES_S, Busy, Executed
from callgate.services.recovery import DUE_BATCH_MAX
from callgate.services.skipped_rows import ITEMS_MAX, PAUSE_S_MAX, PAUSE_S_MIN, HeldUp
from tests.support.service_world import GRACE_S, LEASE_S, POLICY, REPLY_COST, Stage, StageClock


def hold(stage: Stage, key: CallKey) -> Callable[[], None]:
    """Keep a call locked; returns what frees it."""
    stage.ledger.tables.locked.add(key)
    return lambda: stage.ledger.tables.locked.remove(key)


def free_after(stage: Stage, key: CallKey, seconds: float) -> None:
    """Keep a call locked for a while."""
    free, sleep, ends_at = hold(stage, key), stage.clock.pass_time, stage.clock.elapsed_s + seconds

    def pass_time(step_s: float) -> None:
        was_held = stage.clock.elapsed_s < ends_at
        sleep(step_s)
        if was_held and stage.clock.elapsed_s >= ends_at:
            free()

    stage.clock.pass_time = pass_time  # type: ignore[method-assign]
    stage.logger._sleep = pass_time


def come_back(stage: Stage, seconds: float) -> None:
    """Run the due query for a while."""
    for _ in range(round(seconds)):
        stage.clock.elapsed_s += 1
        stage.due.run()


def test_a_call_that_is_held_for_a_moment_is_claimed_by_the_same_delivery() -> None:
    """A submission that joins costs it some hundredths of a second, and no sweep."""
    stage = Stage()
    key = stage.submit().key
    free_after(stage, key, LOCKED_PAUSES_S[0])

    view = asyncio.run(stage.run(key))

    assert view.state is CallState.SUCCEEDED
    assert stage.clock.elapsed_s < 0.1


def test_a_call_that_stays_held_is_left_after_some_tenths_of_a_second() -> None:
    """Its slot is wanted by others; it stays queued, and nothing was sent or held."""
    stage = Stage()
    key = stage.submit().key
    hold(stage, key)

    executed = asyncio.run(stage.llm.execute(key))

    assert executed is Executed.LOCKED
    assert stage.clock.elapsed_s == pytest.approx(sum(LOCKED_PAUSES_S))
    assert stage.view(key).state is CallState.QUEUED
    assert stage.provider.requests == []
    assert asyncio.run(stage.llm.claims_made(0))


def test_a_call_that_was_held_is_published_when_it_is_free() -> None:
    """By the process that found it locked, without a sweep."""
    stage = Stage()
    key = stage.submit().key
    free = hold(stage, key)
    asyncio.run(stage.llm.execute(key))
    come_back(stage, 3)
    assert stage.queue.calls.count(key) == 0

    free()
    come_back(stage, 5)

    assert stage.queue.calls.count(key) == 1
    assert asyncio.run(stage.run(key)).state is CallState.SUCCEEDED


def test_a_call_that_was_only_held_is_no_suspect() -> None:
    """However often sweeps found it while it was free for a moment: it was looked into each time."""

    async def isolate(key: CallKey, org_id: str, lease_s: float) -> Executed | Busy:
        raise AssertionError("it runs alone")

    stage = Stage(isolate=isolate)
    key = stage.submit().key
    for _ in range(5):
        stage.clock.elapsed_s += 60
        stage.due.sweep(stage.clock.now())
        free = hold(stage, key)
        assert asyncio.run(stage.llm.execute(key)) is Executed.LOCKED
        free()
        come_back(stage, 2)
        assert stage.view(key).sweeps == 0

    assert asyncio.run(stage.run(key)).state is CallState.SUCCEEDED


def test_a_suspect_whose_child_found_it_held_is_come_back_to() -> None:
    """The child has no due query of its own."""

    async def isolate(key: CallKey, org_id: str, lease_s: float) -> Executed | Busy:
        return Executed.LOCKED

    stage = Stage(isolate=isolate)
    key = stage.submit().key
    stage.ledger.tables.calls[key].sweeps = 2

    assert asyncio.run(stage.llm.execute(key)) is Executed.LOCKED
    come_back(stage, 2)

    assert key in stage.queue.calls
    assert not stage.view(key).is_suspect


def test_a_claim_that_may_have_been_made_is_tried_until_it_could_no_longer_be_sent() -> None:
    """Its answer was lost, and now somebody holds the call: given up, it would be posted at its whole hold."""
    stage = Stage()
    key = stage.submit().key
    reserve, is_lost = stage.lane.reserve, [True]

    async def unheard(wanted: Reserve) -> ReserveOutcome:
        outcome = await reserve(wanted)
        if is_lost.pop() if is_lost else False:
            free_after(stage, key, POLICY.deadline_s)
            raise LedgerUnavailable("the answer was lost")
        return outcome

    stage.lane.reserve = unheard  # type: ignore[method-assign]

    view = asyncio.run(stage.run(key))

    assert (view.state, view.attempt, view.posted_nano_usd) == (CallState.SUCCEEDED, 1, REPLY_COST)


def test_a_claim_that_may_have_been_made_is_not_waited_for_without_end() -> None:
    """Past deadline and grace nothing of it could be sent: the slot is given back."""
    stage = Stage()
    key = stage.submit().key
    stage.lane.outages = {"reserve": 1}
    hold(stage, key)

    executed = asyncio.run(stage.llm.execute(key))

    assert executed is Executed.LOCKED
    assert stage.clock.elapsed_s == pytest.approx(POLICY.deadline_s + GRACE_S, abs=1)


# Settling.


def answered(stage: Stage, text: str = "hello") -> Any:
    """An attempt with an answer, and no message to settle it."""
    key = stage.submit(text).key
    asyncio.run(stage.llm.execute(key))
    return stage.queue.logs.pop()


def test_the_neighbours_of_what_is_held_are_settled_and_told_before_it_is_tried_again() -> None:
    """The batch does not wait for one row."""
    stage = Stage()
    held, mate = answered(stage, "held"), answered(stage, "mate")
    hold(stage, held.key)
    seen: list[CallState] = []
    stage.logger._sleep = lambda _: seen.append(stage.view(mate.key).state)

    settled = stage.logger.settle([held, mate])

    assert [s.ref for s in settled] == [mate]
    assert seen == [CallState.SUCCEEDED] * len(SETTLE_PAUSES_S)


def test_an_answer_whose_call_is_held_for_a_moment_is_settled_at_once() -> None:
    """And its submitters are told."""
    stage = Stage()
    ref = answered(stage)
    free_after(stage, ref.key, SETTLE_PAUSES_S[0])

    (settled,) = stage.logger.settle([ref])

    assert settled.state is CallState.SUCCEEDED


def test_an_answer_whose_call_stays_held_is_settled_when_it_is_free() -> None:
    """It stays answered, is posted once, and with the truth."""
    stage = Stage()
    ref = answered(stage)
    free = hold(stage, ref.key)
    assert stage.logger.settle([ref]) == []
    come_back(stage, 3 * (POLICY.deadline_s + GRACE_S))
    last = stage.view(ref.key).last
    assert last is not None
    assert last.status is AttemptStatus.ANSWERED

    free()
    come_back(stage, PAUSE_S_MAX + 1)

    view = stage.view(ref.key)
    assert (view.state, view.attempt, view.posted_nano_usd) == (CallState.SUCCEEDED, 1, REPLY_COST)


def test_an_expired_attempt_that_is_held_is_judged_again() -> None:
    """Whoever takes it next from the due query may have to know better."""
    stage = Stage()
    key = stage.submit().key
    (outcome,) = stage.ledger.reserve([a_claim(key)])
    assert isinstance(outcome, Reserved)
    hold(stage, key)

    assert stage.logger.settle([outcome.ref], are_expired=True) == []

    stage.clock.elapsed_s += 60
    assert stage.unsettled.take(10) == []


def a_claim(key: CallKey) -> Reserve:
    """A claim of a process that is gone."""
    return Reserve(key=key, hold_nano_usd=10, lease_s=40, worker_id="dead/1", price_source="a test")


# The due query.


def test_the_due_query_runs_though_no_lease_can_be_expired(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And goes on to call attempts lost: only its own failure says that the ledger was away."""
    stage = Stage()
    key = stage.submit().key
    stage.ledger.reserve([a_claim(key)])
    stage.ledger.leases.expire = failing(LedgerUnavailable("locked"))  # type: ignore[method-assign]

    come_back(stage, 60)

    last = stage.view(key).last
    assert last is not None
    assert last.status is AttemptStatus.UNKNOWN
    assert stage.due.healthy_since is not None
    assert capsys.readouterr().out.count("due_step_fails") == 1


def test_leases_are_expired_though_the_due_query_fails() -> None:
    """Each alone."""
    stage = Stage()
    stage.due.run()
    stage.clock.elapsed_s += GRACE_S
    stage.ledger.leases.renew("dead", 8)
    stage.clock.elapsed_s += LEASE_S / 4
    stage.lease.renew()
    stage.ledger.due = failing(RowRefused("too large"))  # type: ignore[method-assign]

    stage.due.run()

    assert "dead" not in stage.ledger.tables.leases


def test_what_was_held_is_tried_again_though_the_ledger_was_away() -> None:
    """A failure of one of the three does not end the process's loop."""
    stage = Stage()
    key = stage.submit().key
    hold(stage, key)
    asyncio.run(stage.llm.execute(key))
    reserve = stage.ledger.reserve
    stage.ledger.reserve = failing(LedgerUnavailable("away"))  # type: ignore[method-assign]

    stage.clock.elapsed_s += 1
    assert stage.due.run()[0] is not None
    stage.ledger.reserve = reserve  # type: ignore[method-assign]
    assert stage.due.run()[0] is not None


def failing(error: Exception) -> Callable[..., Any]:
    """A method that raises."""

    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


# What is kept.


def test_pauses_grow_while_it_stays_held() -> None:
    """From half a second to half a minute, and from the beginning for what is new."""
    clock = StageClock()
    held = HeldUp[str](clock, nullcontext())
    held.add("call")
    pauses = []
    for _ in range(9):
        began = clock.elapsed_s
        while not held.take(10):
            clock.elapsed_s += PAUSE_S_MIN / 2
        pauses.append(clock.elapsed_s - began)
        held.add("call")

    assert pauses == [0.5, 1, 2, 4, 8, 16, PAUSE_S_MAX, PAUSE_S_MAX, PAUSE_S_MAX]
    held.take(10)
    held.take(10)
    held.add("call")
    clock.elapsed_s += PAUSE_S_MAX
    assert held.take(10) == ["call"]


def test_no_more_is_kept_than_there_is_room_for() -> None:
    """Who holds more waits for the sweep or the due query; nothing grows without end."""
    clock = StageClock()
    held = HeldUp[int](clock, nullcontext())
    for n in range(2 * ITEMS_MAX):
        held.add(n)
        held.add(n)
    clock.elapsed_s += 1

    taken = [held.take(DUE_BATCH_MAX) for _ in range(2 * ITEMS_MAX // DUE_BATCH_MAX)]

    assert [n for batch in taken for n in batch] == list(range(ITEMS_MAX))


def test_a_locked_row_is_no_unstorable_one() -> None:
    """It is not posted at its hold, and its call does not die of it."""
    stage = Stage()
    ref = answered(stage)
    asked: list[int] = []

    def locked(batch: list[Settle]) -> list[SettleOutcome]:
        asked.append(len(batch))
        return [Locked(s.ref.key) for s in batch]

    stage.ledger.settle = locked  # type: ignore[method-assign, assignment]

    assert stage.logger.settle([ref]) == []
    assert asked == [1] * (1 + len(SETTLE_PAUSES_S))
