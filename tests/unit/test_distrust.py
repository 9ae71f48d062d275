"""Values from messages, and from rows that a client wrote, are not trusted."""

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
    """A call of acme with a forged row or body."""
    prepared = world.submits.prepare(a_request())
    (answer,) = world.ledger.submit([forged(prepared, body, **changes)])
    return answer.key


def forged(prepared: NewSubmission, body: bytes | None, **changes: Any) -> NewSubmission:
    """The submission with another body or other columns."""
    return replace(prepared, request=body or prepared.request, **changes)


@pytest.mark.parametrize("field", ["org_id", "call_type", "provider", "model"])
def test_a_body_that_names_another_row_is_never_sent(field: str) -> None:
    """Otherwise a call could use another organisation's key or budget."""
    world = ServiceWorld()
    body = a_request().model_copy(update={field: "other", "max_output_tokens": 5})

    executed = asyncio.run(
        world.llm.execute(key := submitted(world, body.model_dump_json().encode()))
    )

    assert executed is DeliveryResult.REFUSED
    assert world.provider.requests == []
    assert "unreadable_request" in (world.view(key).error or "")


def test_the_worker_checks_the_gates_again() -> None:
    """A client that writes its row itself gets no model, size or unbounded answer that the gates refuse."""
    world = ServiceWorld()
    unbounded = a_request().model_dump_json().encode()

    no_bound = submitted(world, unbounded)
    too_large = submitted(world, world.submits.prepare(a_request("big")).request, **BIG)
    executed = [asyncio.run(world.llm.execute(key)) for key in (no_bound, too_large)]

    assert executed == [DeliveryResult.REFUSED, DeliveryResult.REFUSED]
    assert world.provider.requests == []
    assert "missing_output_bound" in (world.view(no_bound).error or "")
    assert "input_too_large" in (world.view(too_large).error or "")


@pytest.mark.parametrize("stored_bound", [0, 1, 10_000])
def test_the_larger_token_count_is_held(stored_bound: int) -> None:
    """A client's small bound does not lower the hold; a larger one raises it."""
    world = ServiceWorld()
    prepared = world.submits.prepare(a_request("hello" * 1_000))

    key = submitted(world, prepared.request, input_token_bound=stored_bound)
    asyncio.run(world.llm.execute(key))

    (attempt,) = world.ledger.tables.attempts.values()
    assert (
        attempt.hold_nano_usd == max(stored_bound, prepared.input_token_bound) * 1_000 + 100 * 2_000
    )


def test_a_long_text_is_refused_despite_the_rows_count() -> None:
    world = ServiceWorld(policy=POLICY.model_copy(update={"input_tokens_max": 2_000}))
    body = a_request("hello" * 1_000, max_output_tokens=5).model_dump_json().encode()

    key = submitted(world, body, input_token_bound=1)

    assert asyncio.run(world.llm.execute(key)) is DeliveryResult.REFUSED
    assert world.provider.requests == []
    assert "input_too_large" in (world.view(key).error or "")


def test_an_unreadable_body_is_not_quoted() -> None:
    """Neither by the rejection of the call nor by that of a redrive."""
    world = ServiceWorld()
    key = submitted(world, ('{"org_id": "acme", "messages": "' + TEXT + '"}').encode())
    asyncio.run(world.llm.execute(key))
    world.ledger.tables.calls[key].state = CallState.DEAD

    _, refused = world.dead_letters.redrive([key])

    assert TEXT not in (world.view(key).error or "unreadable")
    assert "cannot be read" in refused[key]
    assert TEXT not in refused[key]


def test_a_redrive_submits_for_the_organisation_of_the_row() -> None:
    """A dead call whose body names another organisation does not run at its expense."""
    world = ServiceWorld()
    body = a_request(org_id="rival", max_output_tokens=5).model_dump_json().encode()
    key = submitted(world, body)
    world.ledger.tables.calls[key].state = CallState.DEAD

    answers, refused = world.dead_letters.redrive([key])

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
def test_a_messages_key_is_valid_or_none(call: Any, generation: Any) -> None:
    """Postgres would refuse the whole batch for an invalid one."""
    with pytest.raises(ValueError, match=r".+"):
        CallKey.parse(call, generation)


def test_a_sweep_time_in_the_future_counts_as_now() -> None:
    """However often it is sent, a call is republished only as often as the slack allows."""
    world = ServiceWorld()
    key = world.submit().key
    world.clock.elapsed_s += 5

    counts = [world.due.sweep(datetime(9000, 1, 1, tzinfo=UTC)) for _ in range(5)]

    assert counts == [1, 0, 0, 0, 0]
    assert world.queue.calls == [key]
    assert world.due.sweep(world.clock.now() - timedelta(days=1)) == 0
