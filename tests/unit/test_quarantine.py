"""Quarantined calls run in processes of their own, or wait in the ledger."""

from __future__ import annotations

import asyncio
import json

from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import (
    Reserved,
)
from callgate.services.delivery_result import Deferred, DeliveryResult
from tests.support.ledger_under_test import a_loss, a_reserve
from tests.support.service_world import (
    GRACE_S,
    POLICY,
    ServiceWorld,
)


def a_quarantined_call(world: ServiceWorld) -> CallKey:
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


def test_a_quarantined_call_is_not_run_beside_others() -> None:
    """A call that was lost once goes where it can take nobody along; what came of it there is what came of it."""
    alone = Alone(DeliveryResult.ANSWERED)
    world = ServiceWorld(run_quarantined=alone)
    innocent, quarantined = world.submit("innocent").key, a_quarantined_call(world)

    asyncio.run(world.llm.execute(innocent))
    executed = asyncio.run(world.llm.execute(quarantined))

    assert executed is DeliveryResult.ANSWERED
    assert alone.given == [(quarantined, POLICY.deadline_s + GRACE_S)]
    assert [request.messages[0].content for request, _, _ in world.provider.requests] == [
        "innocent"
    ]


def test_in_a_process_of_its_own_a_quarantined_call_runs() -> None:
    """There it is an ordinary call, and its success an ordinary success."""
    world = ServiceWorld()
    key = a_quarantined_call(world)

    view = asyncio.run(world.run(key))

    assert (view.state, view.attempt, view.worker_losses) == (CallState.SUCCEEDED, 2, 1)


def test_a_quarantined_call_without_a_process_waits_in_the_ledger() -> None:
    """Without a hold, without a slot, out of reach of sweeps; when its turn may have come it is published again."""
    world = ServiceWorld(run_quarantined=Alone(Deferred(20.0)))
    key = a_quarantined_call(world)
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
    """No claim was made, so nothing expires. The worker that waits for its process counts the loss."""
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


def test_a_quarantined_call_whose_worker_dies_after_the_claim_is_lost_once() -> None:
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


def test_a_sweep_does_not_wait_for_a_quarantined_call() -> None:
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

    assert asyncio.run(story(world, a_quarantined_call(world)))
