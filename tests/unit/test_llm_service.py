"""Executing one call: what is sent, what is kept, and what an outage may and may not do."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from callgate.domain.calls import LIGHT_BYTES_MAX, AttemptRef, AttemptStatus, CallKey, CallState
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import (
    NotClaimed,
    RecordOutcome,
    Reserve,
    Reserved,
    ReserveOutcome,
    Unstorable,
)
from callgate.domain.provider import Billing, Failure
from callgate.services.delivery_result import Deferred, DeliveryResult
from callgate.services.large_requests import LARGE_WAIT_MAX_S
from callgate.services.retrying_ledger import OutagePolicy
from tests.support.ledger_under_test import a_loss, a_reserve
from tests.support.service_world import (
    GRACE_S,
    LEASE_S,
    POLICY,
    REPLY,
    REPLY_COST,
    WORKER_ID,
    ServiceWorld,
    a_request,
)
from worker.request_room import RequestRoom

RATE_LIMITED = Failure("rate_limited", "slow down", True, Billing.UNBILLED, status=429)


def test_a_call_is_made_once_and_logged() -> None:
    """One delivery sends one request under one attempt, and its log task settles it."""
    world = ServiceWorld()
    submitted = world.submit()

    view = asyncio.run(world.run(submitted.key))

    assert view.state is CallState.SUCCEEDED
    assert view.last is not None
    assert view.last.posted_nano_usd == REPLY_COST
    assert [attempt_id for _, attempt_id, _ in world.provider.requests] == [view.last.attempt_id]


def test_a_redelivered_message_sends_nothing() -> None:
    """The second delivery finds nothing to claim."""
    world = ServiceWorld()
    key = world.submit().key
    asyncio.run(world.llm.execute(key))

    again = asyncio.run(world.llm.execute(key))

    assert again is DeliveryResult.NOT_CLAIMED
    assert len(world.provider.requests) == 1


def test_what_is_held_is_what_is_sent() -> None:
    """The call type's default bound is resolved at submit and goes on the wire."""
    world = ServiceWorld()
    key = world.submit().key

    asyncio.run(world.llm.execute(key))

    ((request, _, timeout_s),) = world.provider.requests
    assert request.max_output_tokens == 100
    assert timeout_s == 30


def test_a_refused_call_is_never_sent() -> None:
    """No hold, no request."""
    world = ServiceWorld(limit_nano_usd=1)
    key = world.submit().key

    executed = asyncio.run(world.llm.execute(key))

    assert executed is DeliveryResult.REFUSED
    assert world.view(key).state is CallState.REJECTED
    assert world.provider.requests == []


def test_a_call_whose_provider_is_gone_is_rejected() -> None:
    """The queue must not carry it for ever."""
    world = ServiceWorld()
    key = world.submit().key
    world.providers.clear()

    asyncio.run(world.llm.execute(key))

    view = world.view(key)
    assert view.state is CallState.REJECTED
    assert "unknown_provider" in (view.error or "")


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

    async def unheard(wanted: Reserve) -> ReserveOutcome:
        outcome = await reserve(wanted)
        if next(tries) < 2_000:
            raise LedgerUnavailable("the answer was lost")
        return outcome

    world.call_ledger.reserve = unheard  # type: ignore[method-assign]

    view = asyncio.run(world.run(key))

    assert world.clock.elapsed_s > OutagePolicy(grace_s=GRACE_S).give_up_after_s
    assert (view.state, view.attempt) == (CallState.SUCCEEDED, 1)


def test_a_claim_that_a_late_answer_overtook_is_ended_unsent() -> None:
    """It was made, and nobody heard; then the call had ended. Its hold is given back, not posted as unknown."""
    world = ServiceWorld()
    key = world.submit().key
    reserve = world.call_ledger.reserve

    async def overtaken(wanted: Reserve) -> ReserveOutcome:
        made = await reserve(wanted)
        assert isinstance(made, Reserved)
        return NotClaimed(key, CallState.SUCCEEDED, made.ref)

    world.call_ledger.reserve = overtaken  # type: ignore[method-assign]

    last = asyncio.run(world.run(key)).last

    assert last is not None
    assert (last.status, last.posted_nano_usd) == (AttemptStatus.FAILED, 0)
    assert world.provider.requests == []


def test_a_paid_answer_outlives_an_outage() -> None:
    """It is kept and recorded when the ledger is back; it is not asked for again."""
    world = ServiceWorld()
    key = world.submit().key
    world.call_ledger.outages = {"record": 5}

    view = asyncio.run(world.run(key))

    assert view.state is CallState.SUCCEEDED
    assert view.last is not None
    assert view.last.status is AttemptStatus.SUCCEEDED
    assert len(world.provider.requests) == 1


def test_a_deadline_counts_from_before_the_hold() -> None:
    """Time that the hold took is time the request no longer has."""
    world = ServiceWorld()
    key = world.submit().key
    reserve = world.call_ledger.reserve

    async def slow_reserve(wanted):  # type: ignore[no-untyped-def]
        await world.clock.sleep(12)
        return await reserve(wanted)

    world.call_ledger.reserve = slow_reserve  # type: ignore[method-assign]

    asyncio.run(world.llm.execute(key))

    ((_, _, timeout_s),) = world.provider.requests
    assert timeout_s == 18


def test_a_hold_that_took_too_long_is_given_back_unsent() -> None:
    """Past its deadline an attempt may not send; it costs nothing and is tried again."""
    world = ServiceWorld()
    key = world.submit().key
    reserve = world.call_ledger.reserve

    async def slow_reserve(wanted):  # type: ignore[no-untyped-def]
        await world.clock.sleep(31)
        return await reserve(wanted)

    world.call_ledger.reserve = slow_reserve  # type: ignore[method-assign]

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
    """Its patience has a bound."""
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
    """It was judged and has been renewed since: it holds again, but what was claimed before is another's now."""
    world = ServiceWorld()
    key = world.submit().key
    _after_the_claim(world, lambda: (world.ledger.leases.release(WORKER_ID), _renew_later(world)))

    view = asyncio.run(world.run(key))

    assert world.lease.epoch() is not None
    assert world.provider.requests == []
    assert (view.state, view.posted_nano_usd) == (CallState.WAITING, 0)


def test_a_zombie_that_had_not_sent_posts_nothing_in_the_end() -> None:
    """Called lost, its attempt was posted in full; the truth is that no request ever left."""
    world = ServiceWorld()
    key = world.submit().key

    def be_judged() -> None:
        last = world.view(key).last
        assert last is not None
        ref = AttemptRef(key, last.attempt_id)
        world.ledger.leases.release(WORKER_ID)
        world.ai_call_logger.settle([ref], are_expired=True)
        assert world.view(key).posted_nano_usd > 0
        _renew_later(world)

    _after_the_claim(world, be_judged)

    view = asyncio.run(world.run(key))

    assert world.provider.requests == []
    assert (view.state, view.posted_nano_usd) == (CallState.WAITING, 0)


def test_a_claim_whose_answer_was_lost_belongs_to_the_lease_of_its_first_try() -> None:
    """The second try brings the same attempt back, though it may have been given away in between."""
    world = ServiceWorld()
    key = world.submit().key
    reserve, tries = world.call_ledger.reserve, 0

    async def reserve_without_an_answer(wanted):  # type: ignore[no-untyped-def]
        nonlocal tries
        tries += 1
        outcome = await reserve(wanted)
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

    async def reserve_then(wanted):  # type: ignore[no-untyped-def]
        outcome = await reserve(wanted)
        happens()
        return outcome

    world.call_ledger.reserve = reserve_then  # type: ignore[method-assign]


def _pass_time(world: ServiceWorld, seconds: float) -> None:
    world.clock.elapsed_s += seconds


def _renew_later(world: ServiceWorld) -> None:
    _pass_time(world, 1)
    world.lease.renew()


def test_without_a_broker_the_answer_is_settled_in_place() -> None:
    """A log task that cannot be published is no reason to wait."""
    world = ServiceWorld()
    key = world.submit().key
    world.queue.is_away = True

    asyncio.run(world.llm.execute(key))

    assert world.view(key).state is CallState.SUCCEEDED


def test_a_reply_that_cannot_be_stored_still_settles_its_money() -> None:
    """The text is given up, the usage is not; the call is dead with its reason."""
    world = ServiceWorld()
    key = world.submit().key
    world.provider.script = [replace(REPLY, texts=("poison",))]
    record = world.call_ledger.record

    async def picky_record(wanted):  # type: ignore[no-untyped-def]
        if wanted.reply is not None and b"poison" in wanted.reply:
            return RecordOutcome.UNSTORABLE
        return await record(wanted)

    world.call_ledger.record = picky_record  # type: ignore[method-assign]

    view = asyncio.run(world.run(key))

    assert view.state is CallState.DEAD
    assert "unstorable_reply" in (view.error or "")
    assert view.posted_nano_usd == REPLY_COST


def test_a_failed_attempt_is_tried_again_under_a_new_hold() -> None:
    """A retry is a new attempt, after the wait the provider asked for."""
    world = ServiceWorld()
    key = world.submit().key
    world.provider.script = [replace(RATE_LIMITED, retry_after_s=7.0)]
    waiting = asyncio.run(world.run(key))
    world.clock.elapsed_s += 6.9
    early = world.due.run()
    world.clock.elapsed_s += 0.2
    world.due.run()

    view = asyncio.run(world.run(world.queue.calls[-1]))

    assert waiting.state is CallState.WAITING
    assert early[1] == 0
    assert (view.state, view.attempt) == (CallState.SUCCEEDED, 2)
    assert len({attempt_id for _, attempt_id, _ in world.provider.requests}) == 2


@pytest.mark.parametrize("stored", [b"", b"{", b"[" * 100_000, b"null"])
def test_a_request_that_cannot_be_read_is_rejected(stored: bytes) -> None:
    """In the queue every sweep would find it again, for ever."""
    world = ServiceWorld()
    key = world.submit().key
    world.ledger.tables.calls[key].request = stored

    assert asyncio.run(world.llm.execute(key)) is DeliveryResult.REFUSED

    assert world.view(key).state is CallState.REJECTED
    assert "unreadable_request" in (world.view(key).error or "")


def test_a_request_without_an_output_bound_is_rejected() -> None:
    """Submit never stores one; whoever did, it can have no hold."""
    world = ServiceWorld()
    key = world.submit().key
    world.ledger.tables.calls[key].request = a_request().model_dump_json().encode()

    asyncio.run(world.llm.execute(key))

    assert world.view(key).state is CallState.REJECTED


def test_a_claim_that_cannot_be_stored_is_rejected() -> None:
    """The ledger refuses the attempt's row each time; a rejection holds nothing of the call's own."""
    world = ServiceWorld()
    key = world.submit().key
    reserve = world.call_ledger.reserve

    async def picky_reserve(command):  # type: ignore[no-untyped-def]
        if isinstance(command, Reserve):
            return Unstorable("out of range")
        return await reserve(command)

    world.call_ledger.reserve = picky_reserve  # type: ignore[method-assign]

    assert asyncio.run(world.llm.execute(key)) is DeliveryResult.REFUSED

    assert world.view(key).state is CallState.REJECTED
    assert "unstorable_claim" in (world.view(key).error or "")


def a_suspect(world: ServiceWorld) -> CallKey:
    """A call that was lost once and is queued again."""
    key = world.submit().key
    (reserved,) = world.ledger.reserve([a_reserve(key)])
    assert isinstance(reserved, Reserved)
    world.ledger.settle([a_loss(reserved.ref)])
    world.due.run()
    assert (world.view(key).state, world.view(key).worker_losses) == (CallState.QUEUED, 1)
    return key


class Alone:
    """An `RunQuarantined` that says what it is told to, and remembers what it was given."""

    def __init__(self, answer: DeliveryResult | Deferred) -> None:
        self.answer = answer
        self.given: list[tuple[CallKey, float]] = []

    async def __call__(
        self, key: CallKey, org_id: str, expires_in_s: float
    ) -> DeliveryResult | Deferred:
        self.given.append((key, expires_in_s))
        return self.answer


def test_a_suspect_is_not_run_among_its_neighbours() -> None:
    """A call that was lost once goes where it can take nobody along; what came of it there is what came of it."""
    alone = Alone(DeliveryResult.ANSWERED)
    world = ServiceWorld(run_quarantined=alone)
    innocent, suspect = world.submit("innocent").key, a_suspect(world)

    asyncio.run(world.llm.execute(innocent))
    executed = asyncio.run(world.llm.execute(suspect))

    assert executed is DeliveryResult.ANSWERED
    assert alone.given == [(suspect, POLICY.deadline_s + GRACE_S)]
    assert [request.messages[0].content for request, _, _ in world.provider.requests] == [
        "innocent"
    ]


def test_in_a_process_of_its_own_a_suspect_simply_runs() -> None:
    """There it is an ordinary call, and its success an ordinary success."""
    world = ServiceWorld()
    key = a_suspect(world)

    view = asyncio.run(world.run(key))

    assert (view.state, view.attempt, view.worker_losses) == (CallState.SUCCEEDED, 2, 1)


def test_a_suspect_without_a_process_waits_in_the_ledger() -> None:
    """Without a hold, without a slot, out of reach of sweeps; when its turn may have come it is published again."""
    world = ServiceWorld(run_quarantined=Alone(Deferred(20.0)))
    key = a_suspect(world)
    published = len(world.queue.calls)

    executed = asyncio.run(world.llm.execute(key))

    view = world.view(key)
    assert (executed, view.state, view.attempt) == (DeliveryResult.DEFERRED, CallState.WAITING, 1)
    assert json.loads(view.error or "")["code"] == "quarantined"
    assert world.ledger.budgets("acme")[0].reserved_nano_usd == 0
    world.clock.elapsed_s += 19
    assert world.due.sweep(world.clock.now()) == 0
    world.due.run()
    assert len(world.queue.calls) == published
    world.clock.elapsed_s += 2
    world.due.run()
    assert world.queue.calls[published:] == [key]


def test_a_large_request_without_room_waits_in_the_ledger() -> None:
    """Without a hold and without a slot; its room is free again when its call is over."""
    room = RequestRoom(4 * LIGHT_BYTES_MAX)
    world = ServiceWorld(
        room=room.taken, policy=POLICY.model_copy(update={"input_tokens_max": 10**6})
    )
    key = world.submit("x" * (LIGHT_BYTES_MAX + 1)).key

    with room.taken("acme", LIGHT_BYTES_MAX):
        executed = asyncio.run(world.llm.execute(key))

    view = world.view(key)
    assert (executed, view.state, view.attempt) == (DeliveryResult.DEFERRED, CallState.WAITING, 0)
    assert (view.wait_reason, json.loads(view.error or "")["code"]) == ("memory", "large")
    assert world.ledger.budgets("acme")[0].reserved_nano_usd == 0
    world.clock.elapsed_s += LARGE_WAIT_MAX_S
    world.due.run()
    assert world.queue.calls == [key]
    assert asyncio.run(world.run(key)).state is CallState.SUCCEEDED
    with room.taken("acme", 2 * LIGHT_BYTES_MAX) as has_room:
        assert has_room


def swept(world: ServiceWorld) -> CallKey:
    """A call that two workers took and did not live to claim."""
    key = world.submit().key
    for _ in range(2):
        world.clock.elapsed_s += 5
        assert world.due.sweep(world.clock.now()) == 1
    return key


def moved_on(world: ServiceWorld) -> None:
    """Have due queries run until nothing is due, and retries have come."""
    for _ in range(3):
        world.clock.elapsed_s += GRACE_S + 1
        world.due.run()


def test_a_call_that_dies_before_its_claim_dies_alone_and_then_for_good() -> None:
    """Nobody claimed it, so nobody missed it; whoever waits for its process counts it as lost."""
    alone = Alone(DeliveryResult.WORKER_LOST)
    world = ServiceWorld(run_quarantined=alone)
    key = swept(world)
    moved_on(world)

    for n in range(1, POLICY.worker_losses_max + 1):
        assert asyncio.run(world.llm.execute(key)) is DeliveryResult.WORKER_LOST
        moved_on(world)
        assert world.view(key).worker_losses == n

    view = world.view(key)
    assert (view.state, view.attempt, view.posted_nano_usd) == (CallState.DEAD, n, 0)
    assert json.loads(view.error or "")["code"] == "worker_lost"
    assert len(alone.given) == POLICY.worker_losses_max
    assert world.provider.requests == []


def test_a_suspect_that_dies_after_its_claim_is_lost_once() -> None:
    """What its process had claimed falls due by itself."""

    async def claims_and_dies(
        key: CallKey, org_id: str, expires_in_s: float
    ) -> DeliveryResult | Deferred:
        assert isinstance(world.ledger.reserve([a_reserve(key)])[0], Reserved)
        return DeliveryResult.WORKER_LOST

    world = ServiceWorld(run_quarantined=claims_and_dies)
    key = swept(world)

    assert asyncio.run(world.llm.execute(key)) is DeliveryResult.WORKER_LOST

    assert (world.view(key).state, world.view(key).attempt) == (CallState.RUNNING, 1)


def test_sweeps_alone_end_no_call() -> None:
    """What was only found often, since the broker kept losing it, runs alone and ends well."""
    child = ServiceWorld()
    world = ServiceWorld(run_quarantined=lambda key, *_: child.llm.execute(key))
    child.call_ledger._ledger = world.ledger
    key = swept(world)

    executed = asyncio.run(world.llm.execute(key))
    world.ai_call_logger.settle(child.queue.settle_tasks)

    assert executed is DeliveryResult.ANSWERED
    assert world.view(key).state is CallState.SUCCEEDED


def test_a_sweep_does_not_wait_for_a_suspect() -> None:
    """It may take as long as any call, and it is taken care of."""
    done = asyncio.Event()

    async def forever(key: CallKey, org_id: str, expires_in_s: float) -> DeliveryResult | Deferred:
        await done.wait()
        return DeliveryResult.ANSWERED

    async def story(world: ServiceWorld, key: CallKey) -> bool:
        task = asyncio.create_task(world.llm.execute(key))
        await asyncio.sleep(0)
        wait_for_inflight_claims = await world.llm.wait_for_inflight_claims(0)
        done.set()
        await task
        return wait_for_inflight_claims

    world = ServiceWorld(run_quarantined=forever)

    assert asyncio.run(story(world, a_suspect(world)))


def test_a_sweep_waits_for_the_claims_before_it() -> None:
    """What is queued only because it is on its way here is not lost."""
    world = ServiceWorld()
    key = world.submit().key

    async def story() -> tuple[bool, bool]:
        world.call_ledger.outages = {"reserve": 1}
        task = asyncio.create_task(world.llm.execute(key))
        await asyncio.sleep(0)
        arrived = bool(world.llm._in_flight._deliveries)
        done = await world.llm.wait_for_inflight_claims(5)
        await task
        return arrived, done

    arrived, done = asyncio.run(story())

    assert (arrived, done) == (True, True)
