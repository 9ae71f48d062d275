"""What comes out of a message or out of a row that a client wrote is not believed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from callgate.domain.bounds import INPUT_TOKENS_MAX
from callgate.domain.calls import CallKey, CallState
from callgate.domain.identity import call_id
from callgate.domain.ledger import NewSubmission
from callgate.services.delivery_result import DeliveryResult
from tests.support.service_world import POLICY, ServiceWorld, a_request

CALL_ID = "0190b6f2-5a3e-8c1d-9e4f-7a6b5c4d3e2f"
TEXT = "a prompt that no error may quote"


HASH = b"\x01" * 32
BIG = {"input_hash": HASH, "call_id": call_id("acme", HASH), "input_token_bound": INPUT_TOKENS_MAX}


def submitted(world: ServiceWorld, body: bytes | None = None, **changes: Any) -> CallKey:
    """A call of acme whose row and body somebody else wrote."""
    prepared = world.submits.prepare(a_request())
    (answer,) = world.ledger.submit([forged(prepared, body, **changes)])
    return answer.key


def forged(prepared: NewSubmission, body: bytes | None, **changes: Any) -> NewSubmission:
    """A submission with another body, or other columns."""
    return replace(prepared, request=body or prepared.request, **changes)


@pytest.mark.parametrize("field", ["org_id", "call_type", "provider", "model"])
def test_a_body_that_speaks_of_another_row_is_never_sent(field: str) -> None:
    """Or a call of one organisation would be sent with the key of another, or paid from another budget."""
    world = ServiceWorld()
    body = a_request().model_copy(update={field: "other", "max_output_tokens": 5})

    executed = asyncio.run(
        world.llm.execute(key := submitted(world, body.model_dump_json().encode()))
    )

    assert executed is DeliveryResult.REFUSED
    assert world.provider.requests == []
    assert "unreadable_request" in (world.view(key).error or "")


def test_the_worker_asks_the_gates_again() -> None:
    """A client that writes its row itself gets no model, no size and no unbounded answer that the gates refuse."""
    world = ServiceWorld()
    unbounded = a_request().model_dump_json().encode()

    no_bound = submitted(world, unbounded)
    too_large = submitted(world, world.submits.prepare(a_request("big")).request, **BIG)
    executed = [asyncio.run(world.llm.execute(key)) for key in (no_bound, too_large)]

    assert executed == [DeliveryResult.REFUSED, DeliveryResult.REFUSED]
    assert world.provider.requests == []
    assert "missing_output_bound" in (world.view(no_bound).error or "")
    assert "input_too_large" in (world.view(too_large).error or "")


@pytest.mark.parametrize("told", [0, 1, 10_000])
def test_the_greater_count_is_held(told: int) -> None:
    """A client that writes a small bound into its row spends no more than is held; one that knows better holds more."""
    world = ServiceWorld()
    prepared = world.submits.prepare(a_request("hello" * 1_000))

    key = submitted(world, prepared.request, input_token_bound=told)
    asyncio.run(world.llm.execute(key))

    (attempt,) = world.ledger.tables.attempts.values()
    assert attempt.hold_nano_usd == max(told, prepared.input_token_bound) * 1_000 + 100 * 2_000


def test_a_long_text_is_refused_whatever_the_row_says() -> None:
    """The token gate believes no row either."""
    world = ServiceWorld(policy=POLICY.model_copy(update={"input_tokens_max": 2_000}))
    body = a_request("hello" * 1_000, max_output_tokens=5).model_dump_json().encode()

    key = submitted(world, body, input_token_bound=1)

    assert asyncio.run(world.llm.execute(key)) is DeliveryResult.REFUSED
    assert world.provider.requests == []
    assert "input_too_large" in (world.view(key).error or "")


def test_a_body_that_cannot_be_read_is_not_quoted() -> None:
    """Neither the refusal of the call nor that of a redrive holds any of it."""
    world = ServiceWorld()
    key = submitted(world, ('{"org_id": "acme", "messages": "' + TEXT + '"}').encode())
    asyncio.run(world.llm.execute(key))
    world.ledger.tables.calls[key].state = CallState.DEAD

    _, refused = world.redrives.redrive([key])

    assert TEXT not in (world.view(key).error or "unreadable")
    assert "cannot be read" in refused[key]
    assert TEXT not in refused[key]


def test_a_redrive_submits_for_the_organisation_of_the_row() -> None:
    """A dead call whose body names another organisation is not run at that one's expense."""
    world = ServiceWorld()
    body = a_request(org_id="rival", max_output_tokens=5).model_dump_json().encode()
    key = submitted(world, body)
    world.ledger.tables.calls[key].state = CallState.DEAD

    answers, refused = world.redrives.redrive([key])

    assert answers == []
    assert list(refused) == [key]


@pytest.mark.parametrize(
    ("call", "generation"),
    [
        (CALL_ID, 2**31),
        (CALL_ID, 0),
        (CALL_ID, -1),
        (CALL_ID, "1"),
        (CALL_ID, True),
        (CALL_ID, 1.0),
        (CALL_ID, None),
        (7, 1),
        (None, 1),
        ("no uuid", 1),
    ],
)
def test_a_key_of_a_message_is_one_of_a_ledger_or_none(call: Any, generation: Any) -> None:
    """One that Postgres cannot read would make it refuse the batch, and the neighbours with it."""
    with pytest.raises(ValueError, match=r".+"):
        CallKey.parse(call, generation)


def test_a_sweep_from_the_future_is_one_of_now() -> None:
    """However often it is sent, a call is published again no more often than the slack allows."""
    world = ServiceWorld()
    key = world.submit().key
    world.clock.elapsed_s += 5

    counts = [world.due.sweep(datetime(9000, 1, 1, tzinfo=UTC)) for _ in range(5)]

    assert counts == [1, 0, 0, 0, 0]
    assert world.queue.calls == [key]
    assert world.due.sweep(world.clock.now() - timedelta(days=1)) == 0
