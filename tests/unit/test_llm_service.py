"""Execute one call: what is sent, recorded and settled."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from callgate.domain.calls import LIGHT_MAX_BYTES, AttemptStatus, CallState
from callgate.domain.ledger import (
    RecordOutcome,
    Reserve,
    Unstorable,
)
from callgate.domain.provider import Billing, Failure
from callgate.services.delivery_result import DeliveryResult
from callgate.services.large_requests import LARGE_WAIT_MAX_S
from tests.support.service_world import (
    POLICY,
    REPLY,
    REPLY_COST,
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
    """It must not stay in the queue."""
    world = ServiceWorld()
    key = world.submit().key
    world.providers.clear()

    asyncio.run(world.llm.execute(key))

    view = world.view(key)
    assert view.state is CallState.REJECTED
    assert "unknown_provider" in (view.error or "")


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

    async def picky_record(answer):  # type: ignore[no-untyped-def]
        if answer.reply is not None and b"poison" in answer.reply:
            return RecordOutcome.UNSTORABLE
        return await record(answer)

    world.call_ledger.record = picky_record  # type: ignore[method-assign]

    view = asyncio.run(world.run(key))

    assert view.state is CallState.DEAD
    assert "reply_not_stored" in (view.error or "")
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
    """If it stayed queued, every sweep would find it."""
    world = ServiceWorld()
    key = world.submit().key
    world.ledger.tables.calls[key].request = stored

    assert asyncio.run(world.llm.execute(key)) is DeliveryResult.REFUSED

    assert world.view(key).state is CallState.REJECTED
    assert "unreadable_request" in (world.view(key).error or "")


def test_a_request_without_an_output_bound_is_rejected() -> None:
    """`submit` never stores one. Without a bound there can be no hold."""
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
    assert "claim_refused" in (world.view(key).error or "")


def test_a_large_request_without_room_waits_in_the_ledger() -> None:
    """Without a hold and without a slot; its room is free again when its call is over."""
    room = RequestRoom(4 * LIGHT_MAX_BYTES)
    world = ServiceWorld(
        room=room.taken, policy=POLICY.model_copy(update={"input_tokens_max": 10**6})
    )
    key = world.submit("x" * (LIGHT_MAX_BYTES + 1)).key

    with room.taken("acme", LIGHT_MAX_BYTES):
        executed = asyncio.run(world.llm.execute(key))

    view = world.view(key)
    assert (executed, view.state, view.attempt) == (DeliveryResult.DEFERRED, CallState.WAITING, 0)
    assert (view.wait_reason, json.loads(view.error or "")["code"]) == ("memory", "large")
    assert world.ledger.budgets("acme")[0].reserved_nano_usd == 0
    world.clock.elapsed_s += LARGE_WAIT_MAX_S
    world.due.run()
    assert world.queue.calls == [key]
    assert asyncio.run(world.run(key)).state is CallState.SUCCEEDED
    with room.taken("acme", 2 * LIGHT_MAX_BYTES) as has_room:
        assert has_room


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
