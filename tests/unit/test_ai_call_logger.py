"""Settlement: an answer's cost, the next state of its call, and the submitters who are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import structlog

from callgate.adapters.cost_calculator import CostCalculator
from callgate.domain.calls import AttemptRef, AttemptStatus, CallState
from callgate.domain.ledger import RecordAnswer, Reserved, Settle, SettleOutcome, Unstorable
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Anomaly, LLMRequest, Usage
from callgate.services.review import Assessment, assess
from tests.support.ledger_under_test import a_loss, a_reserve
from tests.support.service_world import GRACE_S, POLICY, REPLY, REPLY_COST, ServiceWorld, a_request
from tests.unit.settlement_steps import SCHEMA, answered

LINK = '{"link": null, "link_error": null}'
UNKNOWN = Failure("read_timeout", "no answer", True, Billing.UNKNOWN)
UNBILLED = Failure("connection_failed", "not now", True, Billing.UNBILLED)
REJECTED = Failure("bad_request", "no such parameter", False, Billing.UNBILLED)


@pytest.mark.parametrize(
    ("reply", "schema", "state", "code"),
    [
        (REPLY, None, CallState.SUCCEEDED, None),
        (replace(REPLY, texts=('{"total": "1"}',)), SCHEMA, CallState.SUCCEEDED, None),
        (replace(REPLY, texts=('{"total": 1}',)), SCHEMA, CallState.WAITING, "invalid_output"),
        (replace(REPLY, texts=("no json",)), SCHEMA, CallState.WAITING, "invalid_output"),
        (replace(REPLY, texts=("",)), None, CallState.WAITING, "empty_reply"),
        (replace(REPLY, texts=()), None, CallState.DEAD, "empty_reply"),
        (replace(REPLY, texts=("a", "")), None, CallState.WAITING, "empty_reply"),
        (replace(REPLY, refusal="no"), None, CallState.DEAD, "refused_by_model"),
        (replace(REPLY, finish_reason="content_filter"), None, CallState.DEAD, "content_filtered"),
        (replace(REPLY, refusal=""), None, CallState.SUCCEEDED, None),
        (replace(REPLY, finish_reason="error"), None, CallState.WAITING, "broken_off"),
        (replace(REPLY, finish_reason="abort"), SCHEMA, CallState.WAITING, "broken_off"),
        (replace(REPLY, finish_reason="odd"), None, CallState.DEAD, "unknown_ending"),
        (replace(REPLY, finish_reason=None), None, CallState.DEAD, "unknown_ending"),
        (
            replace(REPLY, finish_reason="length", texts=("",)),
            None,
            CallState.DEAD,
            "output_truncated",
        ),
        (replace(REPLY, finish_reason="length"), None, CallState.SUCCEEDED, None),
        (replace(REPLY, finish_reason="length"), SCHEMA, CallState.DEAD, "output_truncated"),
    ],
)
def test_a_paid_reply_is_posted_at_its_usage(
    reply: ProviderReply, schema: dict[str, object] | None, state: CallState, code: str | None
) -> None:
    """Whatever a reply is worth, its tokens were used."""
    world = ServiceWorld()
    key = world.submit(response_schema=schema).key
    world.provider.script = [reply]

    view = asyncio.run(world.run(key))

    assert view.state is state
    assert view.posted_nano_usd == REPLY_COST
    assert (json.loads(view.error)["code"] if view.error else None) == code


@pytest.mark.parametrize(
    ("failure", "state", "status"),
    [
        (UNBILLED, CallState.WAITING, AttemptStatus.FAILED),
        (REJECTED, CallState.DEAD, AttemptStatus.FAILED),
    ],
)
def test_a_surely_unbilled_attempt_is_posted_at_nothing(
    failure: Failure, state: CallState, status: AttemptStatus
) -> None:
    """Its hold comes back whole."""
    world = ServiceWorld()
    key = world.submit().key
    world.provider.script = [failure]

    view = asyncio.run(world.run(key))

    assert view.last is not None
    assert (view.state, view.last.status) == (state, status)
    assert view.posted_nano_usd == 0
    assert world.ledger.budgets("acme")[0].left_nano_usd == 10**9


@pytest.mark.parametrize(("policy", "state"), [("retry", "waiting"), ("dead", "dead")])
def test_an_unknown_outcome_posts_the_whole_hold(policy: str, state: str) -> None:
    """It may have been billed; whether to call again is the call type's choice."""
    world = ServiceWorld(policy=POLICY.model_copy(update={"on_unknown": policy}))
    key = world.submit().key
    world.provider.script = [UNKNOWN]

    view = asyncio.run(world.run(key))

    assert view.last is not None
    assert view.last.status is AttemptStatus.UNKNOWN
    assert view.posted_nano_usd == view.last.hold_nano_usd > 0
    assert view.state.value == state


@pytest.mark.parametrize(
    ("reply", "anomaly"),
    [
        (replace(REPLY, usage=None), "usage_missing"),
        (replace(REPLY, usage=None, anomalies=(Anomaly.USAGE_ZERO,)), "usage_zero"),
        (replace(REPLY, usage=Usage(input_tokens=10**6, output_tokens=5)), "usage_implausible"),
        (replace(REPLY, usage=Usage(input_tokens=10, output_tokens=201)), "usage_implausible"),
        (replace(REPLY, service_tier="priority"), "price_unknown"),
        (replace(REPLY, service_tier="fast"), "price_unknown"),
    ],
)
def test_a_reply_nobody_can_price_posts_the_whole_hold(reply: ProviderReply, anomaly: str) -> None:
    """The answer is good and is delivered; its price is not known, so the hold is the price, and the row says why."""
    world = ServiceWorld()
    key = world.submit().key
    world.provider.script = [reply]

    view = asyncio.run(world.run(key))

    assert view.state is CallState.SUCCEEDED
    assert view.last is not None
    assert view.last.posted_nano_usd == view.last.hold_nano_usd
    assert "whole hold" in (view.last.price_source or "")
    assert view.last.anomalies == (anomaly,)


def test_a_tier_that_was_asked_for_must_be_known() -> None:
    """Nobody knows what `turbo` costs where `flex` was asked for. Unasked, it is the default under another name."""
    world = ServiceWorld()
    view = asyncio.run(world.run(world.submit().key))
    assert view.last is not None
    reply, asked = replace(REPLY, service_tier="turbo"), a_request(service_tier="flex")

    def assessed(request: LLMRequest) -> Assessment:
        assert view.last is not None
        return assess(CostCalculator(world.catalogue), view, view.last, reply, None, request)

    assert assessed(asked).priced.nano_usd == view.last.hold_nano_usd
    assert assessed(asked).anomalies == ("price_unknown",)
    assert assessed(a_request()).priced.nano_usd == REPLY_COST
    assert assessed(a_request()).anomalies == ("tier_unasked",)


def test_what_is_odd_about_a_bill_is_logged() -> None:
    """Operators hear of it where they read everything else."""
    world = ServiceWorld()
    key = world.submit().key
    world.provider.script = [replace(REPLY, anomalies=(Anomaly.USAGE_CONTRADICTORY,))]

    with structlog.testing.capture_logs() as logged:
        asyncio.run(world.run(key))

    (line,) = (line for line in logged if line["event"] == "bill.questioned")
    assert line["anomalies"] == ["usage_contradictory"]


def test_an_error_beside_a_usage_is_billed_by_it() -> None:
    """The provider says itself what went wrong, and what it took."""
    world = ServiceWorld()
    key = world.submit().key
    failure = Failure("insufficient_quota", "no credit", False, Billing.BY_USAGE, 402)
    world.provider.script = [replace(REPLY, texts=(), failure=failure)]

    view = asyncio.run(world.run(key))

    assert view.last is not None
    assert (view.state, view.last.status) == (CallState.DEAD, AttemptStatus.FAILED)
    assert view.posted_nano_usd == REPLY_COST
    assert Failure.from_json(view.error or "") == failure


def test_a_cost_above_its_hold_is_posted_in_full() -> None:
    """A bill cannot be refused."""
    world = ServiceWorld()
    key = world.submit().key
    world.provider.script = [replace(REPLY, usage=Usage(input_tokens=1_500, output_tokens=100))]

    view = asyncio.run(world.run(key))

    assert view.posted_nano_usd == 1_500 * 1_000 + 100 * 2_000
    assert view.last is not None
    assert view.posted_nano_usd > view.last.hold_nano_usd


def test_retries_end_as_a_dead_letter() -> None:
    """After `attempts_max` attempts the call is dead, with its last failure."""
    world = ServiceWorld()
    key = world.submit(link=LINK).key
    world.provider.script = [UNBILLED] * 3
    for _ in range(3):
        asyncio.run(world.run(key))
        world.clock.elapsed_s += 60
        world.due.run()

    view = world.view(key)

    assert (view.state, view.attempt) == (CallState.DEAD, 3)
    assert json.loads(view.error or "")["code"] == "connection_failed"
    assert [d.state for d in world.queue.links] == [CallState.DEAD]


def test_every_submitter_is_told() -> None:
    """Those who joined hear of the end like the first."""
    world = ServiceWorld()
    first = world.submit(link=LINK)
    second = world.submit(link=LINK)

    asyncio.run(world.run(first.key))

    told = {d.submission_id for d in world.queue.links}
    assert told == {first.submission_id, second.submission_id}
    assert world.view(first.key).due_at is None


def test_a_link_that_cannot_be_published_stays_due() -> None:
    """It is delivered when the broker is back, and the outage counts for nobody."""
    world = ServiceWorld()
    key = world.submit(link=LINK).key
    world.queue.is_away = True
    asyncio.run(world.llm.execute(key))
    world.queue.is_away = False
    assert world.view(key).due_at is None
    assert world.delivery.run() == 0
    world.clock.elapsed_s += 11

    assert world.delivery.run() == 1

    (link,) = world.queue.links
    assert (link.key, link.tries) == (key, 0)
    assert world.delivery.run() == 0


def test_an_attempt_still_on_its_way_is_left_alone() -> None:
    """A log task that comes too early, or for nothing, settles nothing."""
    world = ServiceWorld()
    key = world.submit().key

    async def early() -> list[object]:
        world.provider.complete = None  # type: ignore[method-assign, assignment]
        with pytest.raises(TypeError):
            await world.llm.execute(key)
        view = world.view(key)
        assert view.last is not None
        return list(world.ai_call_logger.settle([AttemptRef(key, view.last.attempt_id)]))

    assert asyncio.run(early()) == []
    assert world.view(key).state is CallState.RUNNING


def lost_once(world: ServiceWorld) -> None:
    """Have one worker claim the next call and vanish."""
    complete, world.provider.complete = world.provider.complete, None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        asyncio.run(world.llm.execute(world.queue.calls[-1]))
    world.provider.complete = complete  # type: ignore[method-assign]


def test_a_lost_attempt_becomes_unknown_and_is_tried_again() -> None:
    """Its worker vanished: the whole hold is posted, and another worker makes the call."""
    world = ServiceWorld()
    key = world.submit().key
    world.queue.calls = [key]
    lost_once(world)
    world.due.run()
    world.clock.elapsed_s += 30 + GRACE_S + 1
    world.due.run()
    world.clock.elapsed_s += 2
    world.due.run()

    view = asyncio.run(world.run(world.queue.calls[-1]))

    assert (view.state, view.attempt, view.worker_losses) == (CallState.SUCCEEDED, 2, 1)


def test_a_call_that_takes_its_workers_along_dies() -> None:
    """After `worker_losses_max` lost attempts it is called poisonous."""
    world = ServiceWorld()
    key = world.submit().key
    world.queue.calls = [key]
    world.due.run()
    for _ in range(POLICY.worker_losses_max):
        lost_once(world)
        world.clock.elapsed_s += 30 + GRACE_S + 1
        world.due.run()
        world.clock.elapsed_s += 2
        world.due.run()

    view = world.view(key)

    assert (view.state, view.attempt) == (CallState.DEAD, POLICY.worker_losses_max)
    assert json.loads(view.error or "")["code"] == "worker_lost"


UNREADABLE: dict[str, dict[str, Any]] = {
    "reply no JSON": {"reply": b"{"},
    "reply no mapping": {"reply": b"[]"},
    "reply without fields": {"reply": b"{}"},
    "reply with a field too many": {"reply": REPLY.to_json()[:-1] + b', "more": 1}'},
    "reply nested too deeply": {"reply": b"[" * 100_000},
    "usage negative": {"reply": REPLY.to_json().replace(b'"input_tokens": 10', b'"input_tokens": -10')},
    "usage no number": {"reply": REPLY.to_json().replace(b'"input_tokens": 10', b'"input_tokens": "x"')},
    "error no JSON": {"error": "{"},
    "error without fields": {"error": "{}"},
    "error of an unknown kind": {"error": UNKNOWN.to_json().replace("unknown", "perhaps")},
}  # fmt: skip


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_attempt_unreadable_does_not_hold_up_its_batch(kind: str) -> None:
    """It is settled at its whole hold, and its call is dead; its neighbours are settled as ever."""
    world = ServiceWorld()
    before, broken, after = (answered(world, f"text {n}") for n in range(3))
    row = world.ledger.tables.attempts[broken.attempt_id]
    for column, value in UNREADABLE[kind].items():
        setattr(row, column, value)

    settled = world.ai_call_logger.settle([before, broken, after])

    assert [s.state for s in settled] == [CallState.SUCCEEDED, CallState.DEAD, CallState.SUCCEEDED]
    view = world.view(broken.key)
    assert view.last is not None
    assert view.last.posted_nano_usd == view.last.hold_nano_usd
    assert json.loads(view.error or "")["code"] == "attempt_unreadable"
    assert world.ledger.budgets("acme")[0].reserved_nano_usd == 0


@pytest.mark.parametrize("request_text", [b"", b"{", b"[]", b"[" * 100_000])
def test_a_broken_request_does_not_hold_up_its_batch(request_text: bytes) -> None:
    """Nobody can say what was asked, so nobody can say whether the answer is one."""
    world = ServiceWorld()
    good, broken = answered(world, "good"), answered(world, "broken")
    world.ledger.tables.calls[broken.key].request = request_text

    settled = world.ai_call_logger.settle([broken, good])

    assert [s.state for s in settled] == [CallState.DEAD, CallState.SUCCEEDED]


def test_an_amount_the_ledger_refuses_is_posted_as_the_hold() -> None:
    """Otherwise the attempt would never be settled, and its hold never released."""
    world = ServiceWorld()
    ref = answered(world)
    settle = world.ledger.settle
    asked: list[int] = []

    def picky(batch: Sequence[Settle]) -> list[SettleOutcome]:
        asked.extend(s.posted_nano_usd for s in batch)
        if any(s.posted_nano_usd == REPLY_COST for s in batch):
            return [Unstorable("out of range")]
        return settle(batch)

    world.ledger.settle = picky  # type: ignore[method-assign]

    (settled,) = world.ai_call_logger.settle([ref])

    view = world.view(ref.key)
    assert view.last is not None
    assert asked == [REPLY_COST, REPLY_COST, view.last.hold_nano_usd]
    assert settled.state is CallState.DEAD
    assert view.last.posted_nano_usd == view.last.hold_nano_usd


def test_attempts_of_one_call_are_settled_one_after_the_other() -> None:
    """A late answer changes what the next failure comes to, though both are settled in one batch, the newer first."""
    world = ServiceWorld()
    key = world.submit().key
    (first,) = world.ledger.reserve([a_reserve(key)])
    assert isinstance(first, Reserved)
    world.ledger.settle([a_loss(first.ref)])
    world.clock.elapsed_s += 1
    world.due.run()
    (second,) = world.ledger.reserve([a_reserve(key)])
    assert isinstance(second, Reserved)
    world.ledger.record(
        [
            RecordAnswer(first.ref, None, UNBILLED.to_json(), 1),
            RecordAnswer(second.ref, None, UNKNOWN.to_json(), 1),
        ]
    )

    settled = world.ai_call_logger.settle([second.ref, first.ref, second.ref])

    assert [s.ref for s in settled if s.is_applied] == [first.ref, second.ref]
    assert world.view(key).state is CallState.WAITING
