"""What a worker does for a redrive: price at today's prices, release at them, publish; and what it leaves out."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from callgate.domain.budgets import Window
from callgate.domain.calls import CallKey, CallState
from callgate.domain.errors import UnpricedModel
from callgate.domain.provider import Billing, Failure
from callgate.domain.redrive_rules import submission_id_of
from callgate.domain.redrives import (
    FORGOTTEN_AFTER_S,
    PricedCall,
    Redrive,
    RedriveOutcome,
    RedriveState,
)
from callgate.domain.reports import By, CallFilter
from callgate.domain.requests import LLMRequest
from callgate.services import redrive_runner
from callgate.services.redrive_runner import RedriveRunner
from callgate.services.redrives import RedriveService
from callgate.services.submit import Quote, SubmitService
from tests.support.service_world import ServiceWorld, a_request

REJECTED = Failure("bad_request", "no such parameter", False, Billing.UNBILLED, status=400)
DEAD = CallFilter(state=CallState.DEAD)
ANN = By("ann", "the provider is repaired")


class RedriveWorld(ServiceWorld):
    """All services over memory, with redrives."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = RedriveRunner(
            ledger=self.ledger, redrives=self.ledger.redrives, submits=self.submits
        )
        self.redrives = RedriveService(self.ledger.redrives, self.ledger, self.clock.now)

    def dead(self, text: str, **fields: str) -> CallKey:
        """A call that failed for good."""
        self.provider.script = [REJECTED]
        key = self.submit(text, **fields).key
        asyncio.run(self.run(key))
        self.queue.calls.clear()
        self.clock.pass_time(1)
        return key

    def planned(self) -> Redrive:
        """A redrive of everything that is dead, priced."""
        redrive_id = self.redrives.plan(DEAD, ANN).redrive_id
        while self.runner.run():
            pass
        return self.redrives.get(redrive_id)

    def started(self) -> Redrive:
        """The same, running."""
        seen = self.planned()
        return self.redrives.start(seen.redrive_id, ANN, expected_calls=seen.counts.pending)


@pytest.fixture
def world() -> RedriveWorld:
    """All services over memory, with redrives."""
    return RedriveWorld()


def test_a_plan_prices_each_call_as_its_hold_will_be(world: RedriveWorld) -> None:
    """The sum is what the budget must have headroom for."""
    texts = ("short", "much longer " * 50)
    for text in texts:
        world.dead(text)

    seen = world.planned()

    quotes = [world.submits.quote(a_request(text)) for text in texts]
    calls = world.redrives.calls_of(seen.redrive_id, limit=9)
    assert [c.worst_case_nano_usd for c in calls] == [q.worst_case_nano_usd for q in quotes]
    assert [c.input_token_bound for c in calls] == [q.input_token_bound for q in quotes]
    assert all(
        c.output_token_bound == q.request.max_output_tokens
        for c, q in zip(calls, quotes, strict=True)
    )
    assert seen.worst_case_nano_usd == sum(q.worst_case_nano_usd for q in quotes)
    assert (seen.state, world.queue.calls) == (RedriveState.PLANNED, [])


def test_what_cannot_be_released_is_said_in_the_plan(world: RedriveWorld) -> None:
    good, refused, purged = (world.dead(text) for text in ("good", "refused", "purged"))
    other = world.dead("other")
    world.ledger.tables.calls[purged].request = None
    world.ledger.tables.calls[refused].request = b"{"
    world.ledger.tables.calls[other].request = (
        a_request(org_id="rival", max_output_tokens=5).model_dump_json().encode()
    )

    calls = world.redrives.calls_of(world.planned().redrive_id, limit=9)

    assert {c.key: (c.outcome, c.code) for c in calls} == {
        good: (RedriveOutcome.PENDING, None),
        refused: (RedriveOutcome.REFUSED, "request_unreadable"),
        purged: (RedriveOutcome.REFUSED, "purged"),
        other: (RedriveOutcome.REFUSED, "request_unreadable"),
    }


def test_a_gate_of_today_refuses_with_its_code(world: RedriveWorld) -> None:
    world.dead("a")
    with patch.object(SubmitService, "quote", side_effect=_refuses):
        seen = world.planned()

    (call,) = world.redrives.calls_of(seen.redrive_id, limit=9)
    assert (call.outcome, call.code) == (RedriveOutcome.REFUSED, "unpriced_model")


def test_an_unforeseen_error_refuses_one_call(world: RedriveWorld) -> None:
    """The others go on, and no step is repeated without end."""
    broken, good = world.dead("a"), world.dead("b")
    quote = world.submits.quote

    def breaks(request: LLMRequest) -> Quote:
        if request.messages[0].content == "a":
            raise ZeroDivisionError
        return quote(request)

    with patch.object(world.submits, "quote", breaks):
        seen = world.planned()

    calls = world.redrives.calls_of(seen.redrive_id, limit=9)
    assert {c.key: c.outcome for c in calls} == {
        broken: RedriveOutcome.REFUSED,
        good: RedriveOutcome.PENDING,
    }


def test_a_release_is_published_and_known_by_its_submission(world: RedriveWorld) -> None:
    key = world.dead("a")
    seen = world.started()

    assert world.runner.run()

    next_key = CallKey(key.call_id, 2)
    assert world.queue.calls == [next_key]
    assert world.view(next_key).state is CallState.QUEUED
    submission_id = submission_id_of(seen.redrive_id, key)
    assert world.ledger.tables.submissions[submission_id].key == next_key
    asyncio.run(world.run(next_key))
    world.clock.pass_time(1)
    assert not world.runner.run()
    assert world.redrives.get(seen.redrive_id).state is RedriveState.DONE


def test_without_a_broker_a_release_is_accepted(world: RedriveWorld) -> None:
    """A sweep publishes it later."""
    world.dead("a")
    seen = world.started()
    world.queue.is_away = True

    assert world.runner.run()

    assert world.redrives.get(seen.redrive_id).counts.released == 1


def test_large_requests_are_released_in_several_steps(world: RedriveWorld) -> None:
    """A step holds a bounded number of bytes."""
    for n in range(4):
        world.dead(f"{n}" * 1_000)
    seen = world.started()

    with patch.object(redrive_runner, "STEP_MAX_BYTES", 1_500):
        world.runner.run()
        first = world.redrives.get(seen.redrive_id).counts
        world.runner.run()
        second = world.redrives.get(seen.redrive_id).counts

    assert (first.released, second.released) == (2, 4)


def test_a_price_of_today_counts_against_the_cap(world: RedriveWorld) -> None:
    """Not the one of the plan."""
    world.dead("a")
    seen = world.started()
    step = world.ledger.redrives.take(lease_s=60)
    assert step is not None
    (call,) = world.runner._priced(step)
    dearer = PricedCall(1, 10**9, call.input_token_bound, 5, submission=call.submission)

    world.ledger.redrives.release(step, [dearer])

    assert world.redrives.get(seen.redrive_id).committed_nano_usd == 10**9


def test_redrives_of_long_ago_are_forgotten(world: RedriveWorld) -> None:
    world.dead("a")
    seen = world.planned()
    world.redrives.abort(seen.redrive_id, ANN)

    world.clock.pass_time(FORGOTTEN_AFTER_S - 1)
    world.runner.forget()
    assert len(world.redrives.newest(limit=9)) == 1
    world.clock.pass_time(2)
    world.runner.forget()

    assert world.redrives.newest(limit=9) == []


def test_a_forecast_is_of_now(world: RedriveWorld) -> None:
    """The budget is used up between two looks at the same plan."""
    world.dead("a")
    seen = world.planned()
    assert world.redrives.forecast(seen.redrive_id).refused_calls == 0

    world.ledger.set_budget("acme", "org", Window.DAY, 1)

    assert world.redrives.forecast(seen.redrive_id).refused == {"budget_too_small": 1}


def _refuses(*_: object, **__: object) -> None:
    raise UnpricedModel("no price")
