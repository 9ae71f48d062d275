"""`LLMProviderPort`: every provider, asked the same things."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

import pytest

from callgate.adapters.memory.provider import Rule, echo
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Message, ServiceTier, Usage
from tests.contract.provider_worlds import World, memory_world, openai_world, until

ATTEMPT = UUID("01890000-0000-7000-8000-000000000001")
PATIENCE_S = 20.0
REPLY = ProviderReply(
    texts=("first", "zweite \u4e2d\U0001f600", ""),
    finish_reason="length",
    refusal="I would rather not",
    usage=Usage(
        input_tokens=900,
        cached_input_tokens=640,
        cache_write_tokens=100,
        output_tokens=77,
        reasoning_tokens=64,
    ),
    service_tier="flex",
    model="gpt-4o-mini-2024-07-18",
    provider_request_id="req_7",
)

Open = Callable[[Sequence[Rule]], AbstractAsyncContextManager[World]]


@pytest.fixture(params=[memory_world, openai_world], ids=["memory", "openai"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Opens a provider that follows rules."""
    world: Open = request.param
    return world


def a_request(prompt: str = "ping", **fields: Any) -> LLMRequest:
    """A request with everything that must be set."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=(Message(role="user", content=prompt),),
        **{"max_output_tokens": 50, **fields},
    )


def ask(
    opened: Open, *rules: Rule, request: LLMRequest | None = None, timeout_s: float = PATIENCE_S
) -> tuple[ProviderReply | Failure, World]:
    """Make one request of a fresh provider."""

    async def asked() -> tuple[ProviderReply | Failure, World]:
        async with opened(rules) as world:
            answer = await world.provider.complete(
                request or a_request(), attempt_id=ATTEMPT, timeout_s=timeout_s
            )
            return answer, world

    return asyncio.run(asked())


def test_a_reply_comes_back_as_it_was_given(opened: Open) -> None:
    """Texts, finish reason, refusal, all token buckets, tier, model and request id survive the wire."""
    answer, _ = ask(opened, Rule(REPLY))

    assert answer == REPLY


def test_a_reply_without_usage_has_none(opened: Open) -> None:
    """Nobody invents tokens."""
    silent = ProviderReply(("pong",), "stop", None, None, None, "m", None)

    answer, _ = ask(opened, Rule(silent))

    assert answer == silent


def test_the_request_arrives_as_it_was_asked(opened: Open) -> None:
    """Everything the request sets is sent, the bound of its output as it was held."""
    request = LLMRequest(
        **{
            **a_request().model_dump(),
            "messages": (
                Message(role="system", content="Be brief. \u4e2d"),
                Message(role="user", content="ping"),
                Message(role="assistant", content="pong"),
                Message(role="user", content='"quoted"\n\\ and \u0000'),
            ),
            "n": 3,
            "temperature": 0.2,
            "top_p": 0.9,
            "seed": -7,
            "stop": ("END", "\n\n"),
            "response_schema": '{"type":"object","z":1,"a":{"y":2,"b":3}}',
            "service_tier": ServiceTier.FLEX,
        }
    )

    _, world = ask(opened, request=request)

    assert [sent.request for sent in world.sent] == [request]


def test_the_attempt_id_arrives(opened: Open) -> None:
    """A provider's log can be matched with ours."""
    _, world = ask(opened)

    assert [sent.attempt_id for sent in world.sent] == [ATTEMPT]


@pytest.mark.parametrize(
    "failure",
    [
        Failure("rate_limited", "", True, Billing.UNBILLED, 429, "rate_limit_exceeded", 7.5),
        Failure("insufficient_quota", "", False, Billing.UNBILLED, 429, "insufficient_quota"),
        Failure("server_error", "", True, Billing.UNKNOWN, 503, None, 2.0),
        Failure("bad_request", "", False, Billing.UNBILLED, 400, "invalid_value"),
    ],
    ids=lambda failure: failure.code,
)
def test_a_failure_is_a_value(opened: Open, failure: Failure) -> None:
    """It is returned, not raised, and says all a retry or a bill is decided by. One request was made."""
    answer, world = ask(opened, Rule(failure))

    assert isinstance(answer, Failure)
    assert {**_facts(answer), "message": ""} == _facts(failure)
    assert len(world.sent) == 1


def test_silence_ends_with_the_deadline(opened: Open) -> None:
    """A provider that says nothing costs the attempt's patience, and may have billed."""
    started_at = time.monotonic()
    answer, world = ask(opened, Rule(delay_s=math.inf), timeout_s=1.0)

    assert isinstance(answer, Failure)
    assert (answer.code, answer.retryable, answer.billing) == ("timeout", True, Billing.UNKNOWN)
    assert 0.99 <= time.monotonic() - started_at < PATIENCE_S
    assert len(world.sent) == 1


def test_without_time_nothing_is_sent(opened: Open) -> None:
    """A deadline that has passed already costs nothing."""
    answer, world = ask(opened, timeout_s=0.0)

    assert isinstance(answer, Failure)
    assert (answer.code, answer.retryable, answer.billing) == ("timeout", True, Billing.UNBILLED)
    assert world.sent == []


def test_cancellation_goes_through(opened: Open) -> None:
    """Whoever cancels a call stops it: no value, no second request."""

    async def cancelled() -> None:
        async with opened([Rule(delay_s=math.inf)]) as world:
            task = asyncio.ensure_future(
                world.provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
            )
            await until(lambda: bool(world.sent))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(world.sent) == 1

    asyncio.run(cancelled())


def test_many_at_once_get_their_own_answers(opened: Open) -> None:
    """Concurrent requests do not mix, whatever order their answers come in."""
    requests = [a_request(f"prompt {number}") for number in range(50)]
    rules = [Rule(match="prompt 1", delay_s=0.05), Rule(match="prompt 2", delay_s=0.02)]

    async def all_of_them() -> tuple[list[ProviderReply | Failure], int]:
        async with opened(rules) as world:
            answers = await asyncio.gather(
                *(
                    world.provider.complete(r, attempt_id=uuid4(), timeout_s=PATIENCE_S)
                    for r in requests
                )
            )
            return answers, len({sent.attempt_id for sent in world.sent})

    answers, attempts = asyncio.run(all_of_them())

    assert [a.texts if isinstance(a, ProviderReply) else a for a in answers] == [
        echo(request).texts for request in requests
    ]
    assert attempts == len(requests)


def test_a_used_up_rule_makes_room_for_the_next(opened: Open) -> None:
    """A provider can fail once and then answer, on the same connection."""
    limited = Failure("rate_limited", "", True, Billing.UNBILLED, 429)

    async def twice() -> list[ProviderReply | Failure]:
        async with opened([Rule(limited, times=1)]) as world:
            return [
                await world.provider.complete(a_request(), attempt_id=uuid4(), timeout_s=PATIENCE_S)
                for _ in range(2)
            ]

    first, second = asyncio.run(twice())

    assert isinstance(first, Failure)
    assert isinstance(second, ProviderReply)


def test_closing_is_always_possible(opened: Open) -> None:
    """Before the first request, after the last, and twice."""

    async def closed() -> ProviderReply | Failure:
        async with opened([]) as world:
            await world.provider.aclose()
            answer = await world.provider.complete(
                a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S
            )
            await world.provider.aclose()
            await world.provider.aclose()
            return answer

    assert isinstance(asyncio.run(closed()), ProviderReply)


def _facts(failure: Failure) -> dict[str, object]:
    return {name: getattr(failure, name) for name in Failure.__dataclass_fields__}
