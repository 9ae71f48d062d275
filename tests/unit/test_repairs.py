"""Paid repair rounds: what the model is shown, how often, and what they cost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.calls import LIGHT_MAX_BYTES, AttemptKind, CallKey, CallState, CallView
from callgate.domain.catalogue import CallTypePolicy
from callgate.domain.messages import Message
from callgate.domain.provider import MESSAGE_CHARS_MAX, Billing, Failure, ProviderReply
from callgate.domain.repairs import ASK, BREAKS, HEADING, Broken, invalid_output, repair_of
from callgate.domain.requests import MESSAGES_MAX
from callgate.domain.retry import why_no_repair
from tests.support.service_world import POLICY, REPLY, REPLY_COST, ServiceWorld, a_request
from worker.request_room import RequestRoom

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
    "required": ["a", "b"],
}
GOOD = replace(REPLY, texts=('{"a": 1, "b": "x"}',))
BAD = replace(REPLY, texts=('{"a": "secret"}',))
CUT = replace(BAD, finish_reason="length")
EMPTY = replace(REPLY, texts=("",))
UNBILLED = Failure("conflict", "not now", True, Billing.UNBILLED, status=409)
LOST = Failure("timeout", "too late", True, Billing.UNKNOWN)
COMPLAINTS = "1. $.b: breaks 'required'\n2. $.a: breaks 'type'"
PATIENT = POLICY.model_copy(update={"attempts_max": 9, "paid_failures_max": 9})


def run(world: ServiceWorld, *script: ProviderReply | Failure, **fields: Any) -> CallView:
    """Run one call with a schema to its end, with these answers."""
    world.provider.script = list(script)
    key = world.submit(**{"response_schema": SCHEMA, **fields}).key
    for _ in range(len(script) + 1):
        view = asyncio.run(world.run(key))
        if not view.state.is_open:
            break
        world.clock.elapsed_s += 3_600
        world.due.run()
    return view


def kinds(world: ServiceWorld, key: CallKey) -> list[AttemptKind]:
    """The kinds of a call's attempts."""
    return [attempt.kind for attempt in world.ledger.tables.attempts_of[key]]


FIRST, RETRY, REPAIR = AttemptKind.FIRST, AttemptKind.RETRY, AttemptKind.REPAIR


def test_the_model_is_shown_its_answer_and_the_complaints() -> None:
    world = ServiceWorld()

    view = run(world, BAD, GOOD)

    assert view.state is CallState.SUCCEEDED
    assert kinds(world, view.key) == [FIRST, REPAIR]
    (first, _, _), (repair, _, _) = world.provider.requests
    assert repair.messages == (
        *first.messages,
        Message(role="assistant", content=BAD.texts[0]),
        Message(role="user", content=f"{HEADING}{COMPLAINTS}{ASK}"),
    )
    assert repair.model_copy(update={"messages": first.messages}) == first


def test_a_repair_has_its_own_row_and_hold_and_is_paid() -> None:
    world = ServiceWorld()

    view = run(world, BAD, GOOD)

    first, repair = world.ledger.tables.attempts_of[view.key]
    assert repair.hold_nano_usd > first.hold_nano_usd
    assert [first.posted_nano_usd, repair.posted_nano_usd] == [REPLY_COST, REPLY_COST]
    assert view.posted_nano_usd == 2 * REPLY_COST
    (budget,) = world.ledger.budgets("acme")
    assert (budget.spent_nano_usd, budget.reserved_nano_usd) == (2 * REPLY_COST, 0)


def test_no_text_of_the_answer_is_kept_in_the_failure() -> None:
    world = ServiceWorld()
    private = replace(REPLY, texts=('{"a": "secret", "b": 1, "Jane Secret": 2}',))

    view = run(world, private, GOOD, response_schema={**SCHEMA, "additionalProperties": False})

    first, _ = world.ledger.tables.attempts_of[view.key]
    failure = json.loads(first.error or "")
    assert "secret" not in failure["message"].casefold()
    assert failure["message"].removeprefix(BREAKS).split("\n") == [
        "1. $.a: breaks 'type'",
        "2. $.b: breaks 'type'",
        "3. $: breaks 'additionalProperties'",
    ]


@pytest.mark.parametrize(
    ("policy", "script", "made", "ends"),
    [
        ({}, (BAD, BAD), [FIRST, REPAIR], "dead"),
        ({"repairs_max": 0}, (BAD, GOOD), [FIRST, RETRY], "succeeded"),
        ({"repairs_max": 0}, (BAD, BAD), [FIRST, RETRY], "dead"),
        ({"paid_failures_max": 1}, (BAD,), [FIRST], "dead"),
        ({"paid_failures_max": 3}, (BAD, BAD, GOOD), [FIRST, REPAIR, RETRY], "succeeded"),
        ({"paid_failures_max": 3}, (BAD, BAD, BAD), [FIRST, REPAIR, RETRY], "dead"),
        (
            {"paid_failures_max": 9, "repairs_max": 2, "attempts_max": 9},
            (BAD, BAD, BAD, GOOD),
            [FIRST, REPAIR, REPAIR, RETRY],
            "succeeded",
        ),
        ({"attempts_max": 9}, (CUT,), [FIRST], "dead"),
        ({}, (EMPTY, GOOD), [FIRST, RETRY], "succeeded"),
        # The newest answer counts.
        ({"paid_failures_max": 9}, (BAD, EMPTY, GOOD), [FIRST, REPAIR, RETRY], "succeeded"),
        # A repair that surely cost nothing is made again; one that may have been answered is not.
        ({}, (BAD, UNBILLED, GOOD), [FIRST, REPAIR, REPAIR], "succeeded"),
        ({}, (BAD, LOST, GOOD), [FIRST, REPAIR, RETRY], "succeeded"),
    ],
)
def test_how_often_an_answer_is_repaired(
    policy: dict[str, Any], script: tuple[ProviderReply, ...], made: list[AttemptKind], ends: str
) -> None:
    world = ServiceWorld(policy=POLICY.model_copy(update={"attempts_max": 4, **policy}))

    view = run(world, *script)

    assert (kinds(world, view.key), view.state) == (made, ends)


def test_the_second_repair_is_about_the_newest_answer() -> None:
    """The one before is not shown again."""
    world = ServiceWorld(policy=PATIENT.model_copy(update={"repairs_max": 2}))
    newer = replace(REPLY, texts=('{"a": 1}',))

    run(world, BAD, newer, GOOD)

    _, _, (second, _, _) = world.provider.requests
    assert [message.content for message in second.messages[1:]] == [
        '{"a": 1}',
        f"{HEADING}1. $.b: breaks 'required'{ASK}",
    ]


def test_of_several_answers_none_is_repaired() -> None:
    world = ServiceWorld()
    two = {name: replace(reply, texts=reply.texts * 2) for name, reply in (("b", BAD), ("g", GOOD))}

    view = run(world, two["b"], two["g"], n=2)

    assert kinds(world, view.key) == [FIRST, RETRY]


def test_a_repair_that_breaks_a_gate_is_none() -> None:
    """The bound of the call fits, and not the answer besides."""
    world = ServiceWorld()
    bound = world.submits.quote(a_request(response_schema=SCHEMA)).input_token_bound
    world = ServiceWorld(policy=POLICY.model_copy(update={"input_tokens_max": bound + 100}))

    view = run(world, BAD, GOOD)

    assert kinds(world, view.key) == [FIRST, RETRY]
    assert view.state is CallState.SUCCEEDED


def test_a_probe_is_no_repair() -> None:
    """It asks whether the provider is back, with the call's own request."""
    world = ServiceWorld(policy=PATIENT)
    world.provider.script = [BAD]
    key = world.submit(response_schema=SCHEMA).key
    asyncio.run(world.run(key))
    for n in range(3):
        other = world.submit(f"other {n}").key
        world.provider.script = [Failure("server_error", "no", True, Billing.UNKNOWN, status=503)]
        asyncio.run(world.run(other))
    world.clock.elapsed_s += 20
    world.due.run()

    world.provider.script = [GOOD]
    view = asyncio.run(world.run(key))

    assert kinds(world, key) == [FIRST, AttemptKind.PROBE]
    assert len(world.provider.requests[-1][0].messages) == 1
    assert view.state is CallState.SUCCEEDED


def test_a_large_answer_takes_room_in_memory() -> None:
    """Or the call waits for it, as for a large request."""
    room = RequestRoom(4 * LIGHT_MAX_BYTES)
    world = ServiceWorld(
        room=room.taken, policy=PATIENT.model_copy(update={"input_tokens_max": 10**6})
    )
    long = json.dumps({"a": "x" * LIGHT_MAX_BYTES})
    world.provider.script = [replace(REPLY, texts=(long,))]
    key = world.submit(response_schema=SCHEMA).key
    asyncio.run(world.run(key))
    world.clock.elapsed_s += 60
    world.due.run()
    world.provider.script = [GOOD]

    with room.taken("acme", LIGHT_MAX_BYTES):
        view = asyncio.run(world.run(key))
    assert (view.state, view.wait_reason) == (CallState.WAITING, "memory")

    world.clock.elapsed_s += 3_600
    world.due.run()
    assert asyncio.run(world.run(key)).state is CallState.SUCCEEDED
    assert kinds(world, key) == [FIRST, REPAIR]


def test_an_outage_of_the_ledger_does_not_lose_a_repair() -> None:
    world = ServiceWorld()
    world.call_ledger.outages = {"read_answer": 3}

    view = run(world, BAD, GOOD)

    assert kinds(world, view.key) == [FIRST, REPAIR]


def test_a_broken_row_is_asked_again_as_it_is() -> None:
    world = ServiceWorld()
    world.provider.script = [BAD, GOOD]
    key = world.submit(response_schema=SCHEMA).key
    asyncio.run(world.run(key))
    (first,) = world.ledger.tables.attempts_of[key]
    first.reply = b"{}"
    world.clock.elapsed_s += 60
    world.due.run()

    view = asyncio.run(world.run(key))

    assert (kinds(world, key), view.state) == ([FIRST, RETRY], CallState.SUCCEEDED)


FAILURES = st.builds(
    Failure,
    st.sampled_from(["invalid_output", "empty_reply", "output_truncated"]),
    st.just(""),
    st.booleans(),
    st.sampled_from(list(Billing)),
)


@given(FAILURES, st.integers(0, 5), st.integers(1, 3), st.integers(0, 4), st.booleans())
def test_only_a_broken_answer_is_repaired_and_not_too_often(
    failure: Failure, repairs: int, answers: int, most: int, is_too_large: bool
) -> None:
    policy = CallTypePolicy(repairs_max=most)

    why = why_no_repair(
        failure, repairs=repairs, answers=answers, policy=policy, is_too_large=is_too_large
    )

    may = failure.code == "invalid_output" and repairs < most and answers == 1
    assert (why is None) == (may and not is_too_large)


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\r"), max_size=300), min_size=1, max_size=12
    )
)
def test_complaints_are_numbered_and_whole(complaints: list[str]) -> None:
    failure = invalid_output(complaints)

    lines = failure.message.removeprefix(BREAKS).split("\n")
    kept = [f"{n}. {text}" for n, text in enumerate(complaints, 1)][: len(lines)]
    assert lines == kept
    assert len(failure.message) <= MESSAGE_CHARS_MAX or len(lines) == 1
    assert failure.code == "invalid_output"


def test_dead_letters_are_alike_if_their_first_complaint_is() -> None:
    one, more = (
        invalid_output(["$.a: breaks 'type'"]),
        invalid_output(["$.a: breaks 'type'", "$.b: x"]),
    )
    other = invalid_output(["$.z: breaks 'type'"])

    assert one.fingerprint("p") == more.fingerprint("p") != other.fingerprint("p")


@pytest.mark.parametrize("count", [MESSAGES_MAX, MESSAGES_MAX - 1])
def test_there_must_be_room_for_two_messages(count: int) -> None:
    request = a_request(messages=[Message(role="user", content="x")] * count)

    with pytest.raises(ValueError, match="too large"):
        repair_of(request, Broken(invalid_output(["$: x"]), BAD))
