"""Redrives as plans: which calls, at what price and pace, and which are left out and why."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from callgate.domain.budgets import Window
from callgate.domain.calls import CallKey, CallState
from callgate.domain.flow import Declaration
from callgate.domain.pauses import PauseKey
from callgate.domain.provider import Billing, Failure
from callgate.domain.reports import By, CallFilter
from callgate.services.dead_letters import PlannedCall, RedrivePlan
from tests.support.service_world import ServiceWorld, a_request

REJECTED = Failure("bad_request", "no such parameter", False, Billing.UNBILLED, status=400)
ALL = CallFilter()


@pytest.fixture
def world() -> ServiceWorld:
    """All services over memory."""
    return ServiceWorld()


def dead(world: ServiceWorld, text: str, **fields: str) -> CallKey:
    """A call that failed for good."""
    world.provider.script = [REJECTED]
    key = world.submit(text, **fields).key
    asyncio.run(world.run(key))
    world.queue.calls.clear()
    assert world.view(key).state is CallState.DEAD
    return key


def test_a_plan_prices_each_call_as_its_hold_will_be(world: ServiceWorld) -> None:
    """The sum is what the budget must have headroom for."""
    keys = [dead(world, text) for text in ("short", "much longer " * 50)]

    plan = world.dead_letters.plan(ALL)

    quotes = [world.submits.quote(a_request(text)) for text in ("short", "much longer " * 50)]
    assert {call.key: call.worst_case_nano_usd for call in plan.calls} == dict(
        zip(keys, (q.worst_case_nano_usd for q in quotes), strict=True)
    )
    assert plan.worst_case_nano_usd == sum(q.worst_case_nano_usd for q in quotes)
    assert world.queue.calls == []


def test_a_call_that_todays_gates_refuse_is_left_out_of_the_plan(world: ServiceWorld) -> None:
    """The plan says why, before anything is done."""
    good, refused, purged = (dead(world, text) for text in ("good", "refused", "purged"))
    world.ledger.tables.calls[purged].request = None
    world.ledger.tables.calls[refused].request = b"{"

    plan = world.dead_letters.plan(ALL)

    assert [call.key for call in plan.calls] == [good]
    assert plan.left_out[purged] == "its request was purged"
    assert "cannot be read" in plan.left_out[refused]


def test_a_plan_takes_the_newest_calls_up_to_its_maximum(world: ServiceWorld) -> None:
    """An operator can try a few before the rest."""
    keys = []
    for text in ("a", "b", "c"):
        keys.append(dead(world, text))
        world.clock.pass_time(1)

    plan = world.dead_letters.plan(ALL, calls_max=2)

    assert [call.key for call in plan.calls] == [keys[2], keys[1]]


def test_a_redrive_is_published_at_once(world: ServiceWorld) -> None:
    """The same statement of the service stores and publishes."""
    key = dead(world, "a")

    done = world.dead_letters.carry_out(world.dead_letters.plan(ALL))

    assert done.keys == (CallKey(key.call_id, 2),)
    assert world.queue.calls == list(done.keys)


def test_calls_of_a_frozen_organisation_are_left_out(world: ServiceWorld) -> None:
    """Those of the others are redriven, also in the same batch."""
    world.ledger.set_budget("bolt", "org", Window.DAY, 10**12)
    theirs, mine = dead(world, "a", org_id="bolt"), dead(world, "a")
    world.ledger.pause(PauseKey(org_id="acme", is_freeze=True), by=By("ann", "unpaid"))

    done = world.dead_letters.carry_out(world.dead_letters.plan(ALL))

    assert done.keys == (CallKey(theirs.call_id, 2),)
    assert list(done.left_out) == [mine]
    assert done.left_out[mine].startswith("organisation acme is frozen (unpaid)")


def test_without_a_broker_a_redrive_is_accepted(world: ServiceWorld) -> None:
    """A sweep publishes it later."""
    dead(world, "a")
    plan = world.dead_letters.plan(ALL)
    world.queue.is_away = True

    (key,) = world.dead_letters.carry_out(plan).keys

    assert world.view(key).state is CallState.QUEUED


def test_a_plan_keeps_its_pace(world: ServiceWorld) -> None:
    """A batch, a pause, a batch; no pause after the last."""
    for text in "abcde":
        dead(world, text)
    started_s = world.clock.elapsed_s

    plan = world.dead_letters.plan(ALL, rate_per_s=2)
    done = world.dead_letters.carry_out(plan)

    assert [len(batch) for batch in plan.batches()] == [2, 2, 1]
    assert len(done.keys) == 5
    assert world.clock.elapsed_s - started_s == 2.0


@pytest.mark.parametrize(
    ("rate_per_s", "batch_size", "pause_s"), [(None, 100, 0.0), (0.5, 1, 2.0), (1_000, 100, 0.1)]
)
def test_a_pace_is_a_batch_size_and_a_pause(
    rate_per_s: float | None, batch_size: int, pause_s: float
) -> None:
    """Slow paces go call by call, fast ones a hundred at a time."""
    plan = RedrivePlan((), {}, rate_per_s)

    assert (plan.batch_size, plan.pause_s) == (batch_size, pause_s)


def test_a_call_that_changed_after_the_plan_is_left_out(world: ServiceWorld) -> None:
    """Somebody else discarded one, and retention purged the other."""
    discarded, purged, good = (dead(world, text) for text in "abc")
    plan = world.dead_letters.plan(ALL)
    world.dead_letters.discard([discarded], by=By("ann", "by a test"))
    world.ledger.tables.calls[purged].request = None

    done = world.dead_letters.carry_out(plan)

    assert [key.call_id for key in done.keys] == [good.call_id]
    assert done.left_out == {
        discarded: "not dead but rejected",
        purged: "its request was purged",
    }


def test_a_replaced_call_is_not_found_again(world: ServiceWorld) -> None:
    """Its next generation may have succeeded: another redrive would pay for the answer twice."""
    dead(world, "a")
    world.dead_letters.carry_out(world.dead_letters.plan(ALL))

    assert world.dead_letters.find(ALL, limit=10) == []
    assert world.dead_letters.plan(ALL).calls == ()


def test_a_search_finds_dead_calls_whatever_state_its_filter_names(world: ServiceWorld) -> None:
    """A dead letter is dead."""
    key = dead(world, "a")
    world.submit("open")

    found = world.dead_letters.find(replace(ALL, state=CallState.QUEUED), limit=10)

    assert [view.key for view in found] == [key]


def test_a_plan_is_a_value_without_requests(world: ServiceWorld) -> None:
    """It can be shown, compared and kept while bodies are purged."""
    key = dead(world, "secret")

    plan = world.dead_letters.plan(ALL)

    assert plan == RedrivePlan((PlannedCall(key, plan.worst_case_nano_usd),), {})
    assert "secret" not in repr(plan)


def test_a_busy_organisation_is_left_out(world: ServiceWorld) -> None:
    """What there is room for is redriven; the others stay dead."""
    first, second = dead(world, "a"), dead(world, "b")
    world.ledger.flow.publish("worker", Declaration(open_calls_max=1))

    done = world.dead_letters.carry_out(world.dead_letters.plan(ALL))

    assert len(done.keys) == 1
    assert list(done.left_out.values()) == ["its organisation has 1 of 1 open calls"]
    assert {*done.left_out, *(replace(key, generation=1) for key in done.keys)} == {first, second}
