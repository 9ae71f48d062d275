"""Claims through outages, under leases and deadlines."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from callgate.domain.calls import AttemptRef, AttemptStatus, CallState
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import (
    NotClaimed,
    Reserve,
    Reserved,
    ReserveOutcome,
)
from callgate.services.delivery_result import DeliveryResult
from callgate.services.retrying_ledger import OutagePolicy
from tests.support.service_world import (
    GRACE_S,
    LEASE_S,
    WORKER_ID,
    ServiceWorld,
)


def test_an_outage_before_the_claim_is_waited_out() -> None:
    """A task keeps its slot while Postgres is away, then goes on."""
    world = ServiceWorld()
    key = world.submit().key
    world.call_ledger.outages = {"read": 3, "reserve": 3}

    view = asyncio.run(world.run(key))

    assert view.state is CallState.SUCCEEDED
    assert len(world.provider.requests) == 1


def test_a_long_outage_before_the_claim_leaves_the_call_to_the_sweep() -> None:
    """Nothing was claimed, so giving up loses nothing."""
    world = ServiceWorld()
    key = world.submit().key
    world.call_ledger.outages = {"read": 10**9}

    executed = asyncio.run(world.llm.execute(key))

    assert executed is DeliveryResult.LEDGER_UNAVAILABLE
    assert world.view(key).state is CallState.QUEUED


def test_a_claim_that_was_tried_is_never_given_up() -> None:
    """It may have been made although its answer was lost; an outage alone must not make an attempt unknown."""
    world = ServiceWorld()
    key = world.submit().key
    reserve, tries = world.call_ledger.reserve, itertools.count(1)

    async def unheard(claim: Reserve) -> ReserveOutcome:
        outcome = await reserve(claim)
        if next(tries) < 2_000:
            raise LedgerUnavailable("the answer was lost")
        return outcome

    world.call_ledger.reserve = unheard  # type: ignore[assignment, method-assign]

    view = asyncio.run(world.run(key))

    assert world.clock.elapsed_s > OutagePolicy(grace_s=GRACE_S).give_up_after_s
    assert (view.state, view.attempt) == (CallState.SUCCEEDED, 1)


def test_a_claim_that_a_late_answer_overtook_is_ended_unsent() -> None:
    """It was made, and nobody heard; then the call had ended. Its hold is given back, not posted as unknown."""
    world = ServiceWorld()
    key = world.submit().key
    reserve = world.call_ledger.reserve

    async def overtaken(claim: Reserve) -> ReserveOutcome:
        made = await reserve(claim)
        assert isinstance(made, Reserved)
        return NotClaimed(key, CallState.SUCCEEDED, made.ref)

    world.call_ledger.reserve = overtaken  # type: ignore[assignment, method-assign]

    last = asyncio.run(world.run(key)).last

    assert last is not None
    assert (last.status, last.posted_nano_usd) == (AttemptStatus.FAILED, 0)
    assert world.provider.requests == []


def test_a_deadline_counts_from_before_the_hold() -> None:
    """Time that the hold took is time the request no longer has."""
    world = ServiceWorld()
    key = world.submit().key
    _hold_takes(world, 12)

    asyncio.run(world.llm.execute(key))

    ((_, _, timeout_s),) = world.provider.requests
    assert timeout_s == 18


def test_a_hold_that_took_too_long_is_given_back_unsent() -> None:
    """Past its deadline an attempt may not send; it costs nothing and is tried again."""
    world = ServiceWorld()
    key = world.submit().key
    _hold_takes(world, 31)

    view = asyncio.run(world.run(key))

    assert world.provider.requests == []
    assert view.state is CallState.WAITING
    assert view.posted_nano_usd == 0


def test_nothing_is_claimed_without_a_lease() -> None:
    """A process that others may have called dead waits until it has renewed."""
    world = ServiceWorld()
    key = world.submit().key
    world.clock.elapsed_s += LEASE_S / 2
    slept: list[CallState] = []
    sleep = world.clock.sleep

    async def sleep_and_renew_at_last(seconds: float) -> None:
        await sleep(seconds)
        slept.append(world.view(key).state)
        if len(slept) == 3:
            world.lease.renew()

    world.clock.sleep = sleep_and_renew_at_last  # type: ignore[method-assign]
    asyncio.run(world.llm.execute(key))

    assert slept[:3] == [CallState.QUEUED] * 3
    assert len(world.provider.requests) == 1


def test_a_process_that_never_renews_leaves_its_calls_to_the_sweep() -> None:
    """Its deadline is bounded."""
    world = ServiceWorld()
    key = world.submit().key
    world.clock.elapsed_s += LEASE_S / 2

    executed = asyncio.run(world.llm.execute(key))

    assert executed is DeliveryResult.LEDGER_UNAVAILABLE
    assert world.view(key).state is CallState.QUEUED


def test_nothing_is_sent_once_the_lease_may_have_run_out() -> None:
    """The process stood still between claim and request: the attempt costs nothing and is tried again."""
    world = ServiceWorld(lease_s=10)
    key = world.submit().key
    _after_the_claim(world, lambda: _pass_time(world, 5))

    view = asyncio.run(world.run(key))

    assert world.provider.requests == []
    assert (view.state, view.posted_nano_usd) == (CallState.WAITING, 0)
    assert "lease_before_send" in (view.error or "")


def test_nothing_is_sent_under_a_lease_that_was_given_away() -> None:
    """The lease was expired and renewed since. Claims made before no longer belong to this process."""
    world = ServiceWorld()
    key = world.submit().key

    def replace_lease() -> None:
        world.ledger.leases.release(WORKER_ID)
        _renew_later(world)

    _after_the_claim(world, replace_lease)

    view = asyncio.run(world.run(key))

    assert world.lease.epoch() is not None
    assert world.provider.requests == []
    assert (view.state, view.posted_nano_usd) == (CallState.WAITING, 0)


def test_a_zombie_that_had_not_sent_posts_nothing_in_the_end() -> None:
    """Called lost, its attempt was posted in full; the truth is that no request ever left."""
    world = ServiceWorld()
    key = world.submit().key

    def expire_lease() -> None:
        last = world.view(key).last
        assert last is not None
        ref = AttemptRef(key, last.attempt_id)
        world.ledger.leases.release(WORKER_ID)
        world.ai_call_logger.settle([ref], are_expired=True)
        assert world.view(key).posted_nano_usd > 0
        _renew_later(world)

    _after_the_claim(world, expire_lease)

    view = asyncio.run(world.run(key))

    assert world.provider.requests == []
    assert (view.state, view.posted_nano_usd) == (CallState.WAITING, 0)


def test_a_claim_whose_answer_was_lost_belongs_to_the_lease_of_its_first_try() -> None:
    """The second try brings the same attempt back, though it may have been given away in between."""
    world = ServiceWorld()
    key = world.submit().key
    reserve, tries = world.call_ledger.reserve, 0

    async def reserve_without_an_answer(command):  # type: ignore[no-untyped-def]
        nonlocal tries
        tries += 1
        outcome = await reserve(command)
        if tries == 1:
            world.ledger.leases.release(WORKER_ID)
            _renew_later(world)
            raise LedgerUnavailable("the answer was lost")
        return outcome

    world.call_ledger.reserve = reserve_without_an_answer  # type: ignore[method-assign]

    asyncio.run(world.llm.execute(key))

    assert tries == 2
    assert world.provider.requests == []


def _after_the_claim(world: ServiceWorld, happens: Callable[[], object]) -> None:
    reserve = world.call_ledger.reserve

    async def reserve_then(command):  # type: ignore[no-untyped-def]
        outcome = await reserve(command)
        happens()
        return outcome

    world.call_ledger.reserve = reserve_then  # type: ignore[method-assign]


def _pass_time(world: ServiceWorld, seconds: float) -> None:
    world.clock.elapsed_s += seconds


def _renew_later(world: ServiceWorld) -> None:
    _pass_time(world, 1)
    world.lease.renew()


def _hold_takes(world: ServiceWorld, seconds: float) -> None:
    """Let the ledger answer a claim late."""
    reserve = world.call_ledger.reserve

    async def slow_reserve(command):  # type: ignore[no-untyped-def]
        await world.clock.sleep(seconds)
        return await reserve(command)

    world.call_ledger.reserve = slow_reserve  # type: ignore[method-assign]
