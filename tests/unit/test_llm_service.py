"""Executing one call: what is sent, what is kept, and what an outage may and may not do."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import (
    LIGHT_BYTES_MAX,
    AttemptRef,
    AttemptStatus,
    CallKey,
    CallState,
    NotClaimed,
    RecordOutcome,
    Reserve,
    Reserved,
    ReserveOutcome,
    Unstorable,
)
from callgate.domain.retry import Billing, Failure
from callgate.services.llm_service import LARGE_WAIT_S_MAX, Busy, Executed, Patience
from tests.support.ledger_under_test import a_loss, a_reserve
from tests.support.service_world import (
    GRACE_S,
    LEASE_S,
    POLICY,
    REPLY,
    REPLY_COST,
    WORKER_ID,
    Stage,
    a_request,
)
from worker.request_room import RequestRoom

RATE_LIMITED = Failure("rate_limited", "slow down", True, Billing.UNBILLED, status=429)


def test_a_call_is_made_once_and_logged() -> None:
    """One delivery sends one request under one attempt, and its log task settles it."""
    stage = Stage()
    submitted = stage.submit()

    view = asyncio.run(stage.run(submitted.key))

    assert view.state is CallState.SUCCEEDED
    assert view.last is not None
    assert view.last.posted_nano_usd == REPLY_COST
    assert [attempt_id for _, attempt_id, _ in stage.provider.requests] == [view.last.attempt_id]


def test_a_redelivered_message_sends_nothing() -> None:
    """The second delivery finds nothing to claim."""
    stage = Stage()
    key = stage.submit().key
    asyncio.run(stage.llm.execute(key))

    again = asyncio.run(stage.llm.execute(key))

    assert again is Executed.NOT_CLAIMED
    assert len(stage.provider.requests) == 1


def test_what_is_held_is_what_is_sent() -> None:
    """The call type's default bound is resolved at submit and goes on the wire."""
    stage = Stage()
    key = stage.submit().key

    asyncio.run(stage.llm.execute(key))

    ((request, _, timeout_s),) = stage.provider.requests
    assert request.max_output_tokens == 100
    assert timeout_s == 30


def test_a_refused_call_is_never_sent() -> None:
    """No hold, no request."""
    stage = Stage(limit_nano_usd=1)
    key = stage.submit().key

    executed = asyncio.run(stage.llm.execute(key))

    assert executed is Executed.REFUSED
    assert stage.view(key).state is CallState.REJECTED
    assert stage.provider.requests == []


def test_a_call_whose_provider_is_gone_is_rejected() -> None:
    """The queue must not carry it for ever."""
    stage = Stage()
    key = stage.submit().key
    stage.providers.clear()

    asyncio.run(stage.llm.execute(key))

    view = stage.view(key)
    assert view.state is CallState.REJECTED
    assert "unknown_provider" in (view.error or "")


def test_an_outage_before_the_claim_is_waited_out() -> None:
    """A task keeps its slot while Postgres is away, then goes on."""
    stage = Stage()
    key = stage.submit().key
    stage.lane.outages = {"read": 3, "reserve": 3}

    view = asyncio.run(stage.run(key))

    assert view.state is CallState.SUCCEEDED
    assert len(stage.provider.requests) == 1


def test_a_long_outage_before_the_claim_leaves_the_call_to_the_sweep() -> None:
    """Nothing was claimed, so giving up loses nothing."""
    stage = Stage()
    key = stage.submit().key
    stage.lane.outages = {"read": 10**9}

    executed = asyncio.run(stage.llm.execute(key))

    assert executed is Executed.LEDGER_AWAY
    assert stage.view(key).state is CallState.QUEUED


def test_a_claim_that_was_tried_is_never_given_up() -> None:
    """It may have been made although its answer was lost; an outage alone must not make an attempt unknown."""
    stage = Stage()
    key = stage.submit().key
    reserve, tries = stage.lane.reserve, itertools.count(1)

    async def unheard(wanted: Reserve) -> ReserveOutcome:
        outcome = await reserve(wanted)
        if next(tries) < 2_000:
            raise LedgerUnavailable("the answer was lost")
        return outcome

    stage.lane.reserve = unheard  # type: ignore[method-assign]

    view = asyncio.run(stage.run(key))

    assert stage.clock.elapsed_s > Patience(grace_s=GRACE_S).claim_s
    assert (view.state, view.attempt) == (CallState.SUCCEEDED, 1)


def test_a_claim_that_a_late_answer_overtook_is_ended_unsent() -> None:
    """It was made, and nobody heard; then the call had ended. Its hold is given back, not posted as unknown."""
    stage = Stage()
    key = stage.submit().key
    reserve = stage.lane.reserve

    async def overtaken(wanted: Reserve) -> ReserveOutcome:
        made = await reserve(wanted)
        assert isinstance(made, Reserved)
        return NotClaimed(key, CallState.SUCCEEDED, made.ref)

    stage.lane.reserve = overtaken  # type: ignore[method-assign]

    last = asyncio.run(stage.run(key)).last

    assert last is not None
    assert (last.status, last.posted_nano_usd) == (AttemptStatus.FAILED, 0)
    assert stage.provider.requests == []


def test_a_paid_answer_outlives_an_outage() -> None:
    """It is kept and recorded when the ledger is back; it is not asked for again."""
    stage = Stage()
    key = stage.submit().key
    stage.lane.outages = {"record": 5}

    view = asyncio.run(stage.run(key))

    assert view.state is CallState.SUCCEEDED
    assert view.last is not None
    assert view.last.status is AttemptStatus.SUCCEEDED
    assert len(stage.provider.requests) == 1


def test_a_deadline_counts_from_before_the_hold() -> None:
    """Time that the hold took is time the request no longer has."""
    stage = Stage()
    key = stage.submit().key
    reserve = stage.lane.reserve

    async def slow_reserve(wanted):  # type: ignore[no-untyped-def]
        await stage.clock.sleep(12)
        return await reserve(wanted)

    stage.lane.reserve = slow_reserve  # type: ignore[method-assign]

    asyncio.run(stage.llm.execute(key))

    ((_, _, timeout_s),) = stage.provider.requests
    assert timeout_s == 18


def test_a_hold_that_took_too_long_is_given_back_unsent() -> None:
    """Past its deadline an attempt may not send; it costs nothing and is tried again."""
    stage = Stage()
    key = stage.submit().key
    reserve = stage.lane.reserve

    async def slow_reserve(wanted):  # type: ignore[no-untyped-def]
        await stage.clock.sleep(31)
        return await reserve(wanted)

    stage.lane.reserve = slow_reserve  # type: ignore[method-assign]

    view = asyncio.run(stage.run(key))

    assert stage.provider.requests == []
    assert view.state is CallState.WAITING
    assert view.posted_nano_usd == 0


def test_nothing_is_claimed_without_a_lease() -> None:
    """A process that others may have called dead waits until it has renewed."""
    stage = Stage()
    key = stage.submit().key
    stage.clock.elapsed_s += LEASE_S / 2
    slept: list[CallState] = []
    sleep = stage.clock.sleep

    async def sleep_and_renew_at_last(seconds: float) -> None:
        await sleep(seconds)
        slept.append(stage.view(key).state)
        if len(slept) == 3:
            stage.lease.renew()

    stage.clock.sleep = sleep_and_renew_at_last  # type: ignore[method-assign]
    asyncio.run(stage.llm.execute(key))

    assert slept[:3] == [CallState.QUEUED] * 3
    assert len(stage.provider.requests) == 1


def test_a_process_that_never_renews_leaves_its_calls_to_the_sweep() -> None:
    """Its patience has a bound."""
    stage = Stage()
    key = stage.submit().key
    stage.clock.elapsed_s += LEASE_S / 2

    executed = asyncio.run(stage.llm.execute(key))

    assert executed is Executed.LEDGER_AWAY
    assert stage.view(key).state is CallState.QUEUED


def test_nothing_is_sent_once_the_lease_may_have_run_out() -> None:
    """The process stood still between claim and request: the attempt costs nothing and is tried again."""
    stage = Stage(lease_s=10)
    key = stage.submit().key
    _after_the_claim(stage, lambda: _pass_time(stage, 5))

    view = asyncio.run(stage.run(key))

    assert stage.provider.requests == []
    assert (view.state, view.posted_nano_usd) == (CallState.WAITING, 0)
    assert "lease_before_send" in (view.error or "")


def test_nothing_is_sent_under_a_lease_that_was_given_away() -> None:
    """It was judged and has been renewed since: it holds again, but what was claimed before is another's now."""
    stage = Stage()
    key = stage.submit().key
    _after_the_claim(stage, lambda: (stage.ledger.leases.release(WORKER_ID), _renew_later(stage)))

    view = asyncio.run(stage.run(key))

    assert stage.lease.held() is not None
    assert stage.provider.requests == []
    assert (view.state, view.posted_nano_usd) == (CallState.WAITING, 0)


def test_a_zombie_that_had_not_sent_posts_nothing_in_the_end() -> None:
    """Called lost, its attempt was posted in full; the truth is that no request ever left."""
    stage = Stage()
    key = stage.submit().key

    def be_judged() -> None:
        last = stage.view(key).last
        assert last is not None
        ref = AttemptRef(key, last.attempt_id)
        stage.ledger.leases.release(WORKER_ID)
        stage.logger.settle([ref], are_expired=True)
        assert stage.view(key).posted_nano_usd > 0
        _renew_later(stage)

    _after_the_claim(stage, be_judged)

    view = asyncio.run(stage.run(key))

    assert stage.provider.requests == []
    assert (view.state, view.posted_nano_usd) == (CallState.WAITING, 0)


def test_a_claim_whose_answer_was_lost_belongs_to_the_lease_of_its_first_try() -> None:
    """The second try brings the same attempt back, though it may have been given away in between."""
    stage = Stage()
    key = stage.submit().key
    reserve, tries = stage.lane.reserve, 0

    async def reserve_without_an_answer(wanted):  # type: ignore[no-untyped-def]
        nonlocal tries
        tries += 1
        outcome = await reserve(wanted)
        if tries == 1:
            stage.ledger.leases.release(WORKER_ID)
            _renew_later(stage)
            raise LedgerUnavailable("the answer was lost")
        return outcome

    stage.lane.reserve = reserve_without_an_answer  # type: ignore[method-assign]

    asyncio.run(stage.llm.execute(key))

    assert tries == 2
    assert stage.provider.requests == []


def _after_the_claim(stage: Stage, happens: Callable[[], object]) -> None:
    reserve = stage.lane.reserve

    async def reserve_then(wanted):  # type: ignore[no-untyped-def]
        outcome = await reserve(wanted)
        happens()
        return outcome

    stage.lane.reserve = reserve_then  # type: ignore[method-assign]


def _pass_time(stage: Stage, seconds: float) -> None:
    stage.clock.elapsed_s += seconds


def _renew_later(stage: Stage) -> None:
    _pass_time(stage, 1)
    stage.lease.renew()


def test_without_a_broker_the_answer_is_settled_in_place() -> None:
    """A log task that cannot be published is no reason to wait."""
    stage = Stage()
    key = stage.submit().key
    stage.queue.is_away = True

    asyncio.run(stage.llm.execute(key))

    assert stage.view(key).state is CallState.SUCCEEDED


def test_a_reply_that_cannot_be_stored_still_settles_its_money() -> None:
    """The text is given up, the usage is not; the call is dead with its reason."""
    stage = Stage()
    key = stage.submit().key
    stage.provider.script = [replace(REPLY, texts=("poison",))]
    record = stage.lane.record

    async def picky_record(wanted):  # type: ignore[no-untyped-def]
        if wanted.reply is not None and b"poison" in wanted.reply:
            return RecordOutcome.UNSTORABLE
        return await record(wanted)

    stage.lane.record = picky_record  # type: ignore[method-assign]

    view = asyncio.run(stage.run(key))

    assert view.state is CallState.DEAD
    assert "unstorable_reply" in (view.error or "")
    assert view.posted_nano_usd == REPLY_COST


def test_a_failed_attempt_is_tried_again_under_a_new_hold() -> None:
    """A retry is a new attempt, after the wait the provider asked for."""
    stage = Stage()
    key = stage.submit().key
    stage.provider.script = [replace(RATE_LIMITED, retry_after_s=7.0)]
    waiting = asyncio.run(stage.run(key))
    stage.clock.elapsed_s += 6.9
    early = stage.due.run()
    stage.clock.elapsed_s += 0.2
    stage.due.run()

    view = asyncio.run(stage.run(stage.queue.calls[-1]))

    assert waiting.state is CallState.WAITING
    assert early[1] == 0
    assert (view.state, view.attempt) == (CallState.SUCCEEDED, 2)
    assert len({attempt_id for _, attempt_id, _ in stage.provider.requests}) == 2


@pytest.mark.parametrize("stored", [b"", b"{", b"[" * 100_000, b"null"])
def test_a_request_that_cannot_be_read_is_rejected(stored: bytes) -> None:
    """In the queue every sweep would find it again, for ever."""
    stage = Stage()
    key = stage.submit().key
    stage.ledger.tables.calls[key].request = stored

    assert asyncio.run(stage.llm.execute(key)) is Executed.REFUSED

    assert stage.view(key).state is CallState.REJECTED
    assert "unreadable_request" in (stage.view(key).error or "")


def test_a_request_without_an_output_bound_is_rejected() -> None:
    """Submit never stores one; whoever did, it can have no hold."""
    stage = Stage()
    key = stage.submit().key
    stage.ledger.tables.calls[key].request = a_request().model_dump_json().encode()

    asyncio.run(stage.llm.execute(key))

    assert stage.view(key).state is CallState.REJECTED


def test_a_claim_that_cannot_be_stored_is_rejected() -> None:
    """The ledger refuses the attempt's row each time; a rejection holds nothing of the call's own."""
    stage = Stage()
    key = stage.submit().key
    reserve = stage.lane.reserve

    async def picky_reserve(wanted):  # type: ignore[no-untyped-def]
        if wanted.refuse_with is None:
            return Unstorable("out of range")
        return await reserve(wanted)

    stage.lane.reserve = picky_reserve  # type: ignore[method-assign]

    assert asyncio.run(stage.llm.execute(key)) is Executed.REFUSED

    assert stage.view(key).state is CallState.REJECTED
    assert "unstorable_claim" in (stage.view(key).error or "")


def a_suspect(stage: Stage) -> CallKey:
    """A call that was lost once and is queued again."""
    key = stage.submit().key
    (reserved,) = stage.ledger.reserve([a_reserve(key)])
    assert isinstance(reserved, Reserved)
    stage.ledger.settle([a_loss(reserved.ref)])
    stage.due.run()
    assert (stage.view(key).state, stage.view(key).lost_attempts) == (CallState.QUEUED, 1)
    return key


class Alone:
    """An `Isolate` that says what it is told to, and remembers what it was given."""

    def __init__(self, answer: Executed | Busy) -> None:
        self.answer = answer
        self.given: list[tuple[CallKey, float]] = []

    async def __call__(self, key: CallKey, org_id: str, lease_s: float) -> Executed | Busy:
        self.given.append((key, lease_s))
        return self.answer


def test_a_suspect_is_not_run_among_its_neighbours() -> None:
    """A call that was lost once goes where it can take nobody along; what came of it there is what came of it."""
    alone = Alone(Executed.ANSWERED)
    stage = Stage(isolate=alone)
    innocent, suspect = stage.submit("innocent").key, a_suspect(stage)

    asyncio.run(stage.llm.execute(innocent))
    executed = asyncio.run(stage.llm.execute(suspect))

    assert executed is Executed.ANSWERED
    assert alone.given == [(suspect, POLICY.deadline_s + GRACE_S)]
    assert [request.messages[0].content for request, _, _ in stage.provider.requests] == [
        "innocent"
    ]


def test_in_a_process_of_its_own_a_suspect_simply_runs() -> None:
    """There it is an ordinary call, and its success an ordinary success."""
    stage = Stage()
    key = a_suspect(stage)

    view = asyncio.run(stage.run(key))

    assert (view.state, view.attempt, view.lost_attempts) == (CallState.SUCCEEDED, 2, 1)


def test_a_suspect_without_a_process_waits_in_the_ledger() -> None:
    """Without a hold, without a slot, out of reach of sweeps; when its turn may have come it is published again."""
    stage = Stage(isolate=Alone(Busy(20.0)))
    key = a_suspect(stage)
    published = len(stage.queue.calls)

    executed = asyncio.run(stage.llm.execute(key))

    view = stage.view(key)
    assert (executed, view.state, view.attempt) == (Executed.PUT_OFF, CallState.WAITING, 1)
    assert json.loads(view.error or "")["code"] == "suspect"
    assert stage.ledger.budgets("acme")[0].reserved_nano_usd == 0
    stage.clock.elapsed_s += 19
    assert stage.due.sweep(stage.clock.now()) == 0
    stage.due.run()
    assert len(stage.queue.calls) == published
    stage.clock.elapsed_s += 2
    stage.due.run()
    assert stage.queue.calls[published:] == [key]


def test_a_large_request_without_room_waits_in_the_ledger() -> None:
    """Without a hold and without a slot; its room is free again when its call is over."""
    room = RequestRoom(4 * LIGHT_BYTES_MAX)
    stage = Stage(room=room.taken, policy=POLICY.model_copy(update={"input_tokens_max": 10**6}))
    key = stage.submit("x" * (LIGHT_BYTES_MAX + 1)).key

    with room.taken("acme", LIGHT_BYTES_MAX):
        executed = asyncio.run(stage.llm.execute(key))

    view = stage.view(key)
    assert (executed, view.state, view.attempt) == (Executed.PUT_OFF, CallState.WAITING, 0)
    assert (view.wait_reason, json.loads(view.error or "")["code"]) == ("memory", "large")
    assert stage.ledger.budgets("acme")[0].reserved_nano_usd == 0
    stage.clock.elapsed_s += LARGE_WAIT_S_MAX
    stage.due.run()
    assert stage.queue.calls == [key]
    assert asyncio.run(stage.run(key)).state is CallState.SUCCEEDED
    with room.taken("acme", 2 * LIGHT_BYTES_MAX) as has_room:
        assert has_room


def swept(stage: Stage) -> CallKey:
    """A call that two workers took and did not live to claim."""
    key = stage.submit().key
    for _ in range(2):
        stage.clock.elapsed_s += 5
        assert stage.due.sweep(stage.clock.now()) == 1
    return key


def moved_on(stage: Stage) -> None:
    """Have due queries run until nothing is due, and retries have come."""
    for _ in range(3):
        stage.clock.elapsed_s += GRACE_S + 1
        stage.due.run()


def test_a_call_that_dies_before_its_claim_dies_alone_and_then_for_good() -> None:
    """Nobody claimed it, so nobody missed it; whoever waits for its process counts it as lost."""
    alone = Alone(Executed.LOST)
    stage = Stage(isolate=alone)
    key = swept(stage)
    moved_on(stage)

    for n in range(1, POLICY.lost_max + 1):
        assert asyncio.run(stage.llm.execute(key)) is Executed.LOST
        moved_on(stage)
        assert stage.view(key).lost_attempts == n

    view = stage.view(key)
    assert (view.state, view.attempt, view.posted_nano_usd) == (CallState.DEAD, n, 0)
    assert json.loads(view.error or "")["code"] == "worker_lost"
    assert len(alone.given) == POLICY.lost_max
    assert stage.provider.requests == []


def test_a_suspect_that_dies_after_its_claim_is_lost_once() -> None:
    """What its process had claimed falls due by itself."""
    stage = Stage()
    key = swept(stage)

    async def claims_and_dies(key: CallKey, org_id: str, lease_s: float) -> Executed | Busy:
        assert isinstance(stage.ledger.reserve([a_reserve(key)])[0], Reserved)
        return Executed.LOST

    stage.llm._isolate = claims_and_dies

    assert asyncio.run(stage.llm.execute(key)) is Executed.LOST

    assert (stage.view(key).state, stage.view(key).attempt) == (CallState.RUNNING, 1)


def test_sweeps_alone_end_no_call() -> None:
    """What was only found often, since the broker kept losing it, runs alone and ends well."""
    stage = Stage()
    stage.llm._isolate = lambda key, *_: child.llm.execute(key)
    child = Stage()
    child.lane._ledger = stage.ledger
    key = swept(stage)

    executed = asyncio.run(stage.llm.execute(key))
    stage.logger.settle(child.queue.logs)

    assert executed is Executed.ANSWERED
    assert stage.view(key).state is CallState.SUCCEEDED


def test_a_sweep_does_not_wait_for_a_suspect() -> None:
    """It may take as long as any call, and it is taken care of."""
    done = asyncio.Event()

    async def forever(key: CallKey, org_id: str, lease_s: float) -> Executed | Busy:
        await done.wait()
        return Executed.ANSWERED

    async def story(stage: Stage, key: CallKey) -> bool:
        task = asyncio.create_task(stage.llm.execute(key))
        await asyncio.sleep(0)
        claims_made = await stage.llm.claims_made(0)
        done.set()
        await task
        return claims_made

    stage = Stage(isolate=forever)

    assert asyncio.run(story(stage, a_suspect(stage)))


def test_a_sweep_waits_for_the_claims_before_it() -> None:
    """What is queued only because it is on its way here is not lost."""
    stage = Stage()
    key = stage.submit().key

    async def story() -> tuple[bool, bool]:
        stage.lane.outages = {"reserve": 1}
        task = asyncio.create_task(stage.llm.execute(key))
        await asyncio.sleep(0)
        arrived = bool(stage.llm._unclaimed)
        done = await stage.llm.claims_made(5)
        await task
        return arrived, done

    arrived, done = asyncio.run(story())

    assert (arrived, done) == (True, True)
