"""Dead letters: which are found, and what a redrive at once leaves out and why."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from callgate.domain.budgets import Window
from callgate.domain.calls import CallKey, CallState
from callgate.domain.limits import Declaration
from callgate.domain.pauses import PauseKey
from callgate.domain.provider import Billing, Failure
from callgate.domain.reports import By, CallFilter
from tests.support.service_world import ServiceWorld

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


def test_a_redrive_is_published_at_once(world: ServiceWorld) -> None:
    """The same statement of the service stores and publishes."""
    key = dead(world, "a")

    answers, left_out = world.dead_letters.redrive([key])

    assert [answer.key for answer in answers] == [CallKey(key.call_id, 2)]
    assert (world.queue.calls, left_out) == ([CallKey(key.call_id, 2)], {})


def test_calls_of_a_frozen_organisation_are_left_out(world: ServiceWorld) -> None:
    """Those of the others are redriven, also in the same batch."""
    world.ledger.set_budget("bolt", "org", Window.DAY, 10**12)
    theirs, mine = dead(world, "a", org_id="bolt"), dead(world, "a")
    world.ledger.pause(PauseKey(org_id="acme", is_freeze=True), by=By("ann", "unpaid"))

    answers, left_out = world.dead_letters.redrive([theirs, mine])

    assert [answer.key for answer in answers] == [CallKey(theirs.call_id, 2)]
    assert list(left_out) == [mine]
    assert left_out[mine].startswith("organisation acme is frozen (unpaid)")


def test_without_a_broker_a_redrive_is_accepted(world: ServiceWorld) -> None:
    """A sweep publishes it later."""
    key = dead(world, "a")
    world.queue.is_away = True

    (answer,), _ = world.dead_letters.redrive([key])

    assert world.view(answer.key).state is CallState.QUEUED


def test_calls_that_are_not_as_they_were_are_left_out(world: ServiceWorld) -> None:
    """Somebody discarded one, retention purged another, and one cannot be read."""
    discarded, purged, broken, good = (dead(world, text) for text in "abcd")
    world.ledger.ended_calls.discard([discarded], by=By("ann", "by a test"))
    world.ledger.tables.calls[purged].request = None
    world.ledger.tables.calls[broken].request = b"{"

    answers, left_out = world.dead_letters.redrive([discarded, purged, broken, good])

    assert [answer.key.call_id for answer in answers] == [good.call_id]
    assert left_out[discarded] == "not dead but rejected"
    assert left_out[purged] == "its request was purged"
    assert "cannot be read" in left_out[broken]


def test_a_replaced_call_is_not_found_again(world: ServiceWorld) -> None:
    """Its next generation may have succeeded: another redrive would pay for the answer twice."""
    world.dead_letters.redrive([dead(world, "a")])

    assert world.dead_letters.find(ALL, limit=10) == []


def test_a_search_finds_dead_calls_whatever_state_its_filter_names(world: ServiceWorld) -> None:
    """A dead letter is dead."""
    key = dead(world, "a")
    world.submit("open")

    found = world.dead_letters.find(replace(ALL, state=CallState.QUEUED), limit=10)

    assert [view.key for view in found] == [key]


def test_a_busy_organisation_is_left_out(world: ServiceWorld) -> None:
    """What there is room for is redriven; the others stay dead."""
    first, second = dead(world, "a"), dead(world, "b")
    world.ledger.flow.publish("worker", Declaration(open_calls_max=1))

    answers, left_out = world.dead_letters.redrive([first, second])

    assert len(answers) == 1
    assert list(left_out.values()) == ["its organisation has 1 of 1 open calls"]
    redriven = (replace(answer.key, generation=1) for answer in answers)
    assert {*left_out, *redriven} == {first, second}
