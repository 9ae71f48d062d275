"""The contract of `LLMProviderPort`, for every provider."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from uuid import uuid4

import pytest

from callgate.adapters.memory.provider import Rule, echo
from callgate.domain.dialect import why_inexpressible
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Message, ServiceTier, Usage
from callgate.domain.structured import asked
from tests.contract.provider_steps import ATTEMPT, TIMEOUT_S, a_request, ask, texts_max
from tests.support.field_values import FIELD_VALUES, FIELDS_BESIDE
from tests.support.provider_worlds import ProviderUnderTest
from tests.support.waiting import until_async

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


def test_a_reply_survives_the_wire(opened: ProviderUnderTest) -> None:
    """Texts, finish reason, refusal, all token counts, tier, model and request id."""
    reply = opened.said(replace(REPLY, texts=REPLY.texts[: texts_max(opened)]))

    answer, _ = ask(opened, Rule(reply))

    assert answer == reply


def test_a_reply_without_usage_has_none(opened: ProviderUnderTest) -> None:
    silent = ProviderReply(("pong",), "stop", None, None, None, "m", None)

    answer, _ = ask(opened, Rule(silent))

    assert answer == silent


def test_every_field_of_the_request_arrives(opened: ProviderUnderTest) -> None:
    request = LLMRequest(
        **{
            **a_request().model_dump(),
            "messages": (
                Message(role="system", content="Be brief. \u4e2d"),
                Message(role="user", content="ping"),
                Message(role="assistant", content="pong"),
                Message(role="user", content='"quoted"\n\\ and \u0000'),
            ),
            **opened.known(
                n=3,
                temperature=0.2,
                top_p=0.9,
                top_k=7,
                seed=-7,
                stop=("END", "\n\n"),
                response_schema='{"type":"object","z":1,"a":{"y":2,"b":3}}',
                service_tier=ServiceTier.FLEX,
                reasoning_effort="low",
                verbosity="high",
                prompt_cache_key="k",
            ),
        }
    )

    _, world = ask(opened, request=request)

    assert [sent.request for sent in world.sent] == [asked(request, opened.entry)]


def test_what_a_protocol_cannot_express_is_refused_at_submit(opened: ProviderUnderTest) -> None:
    """So nothing that the caller asked for is left out in silence."""
    assert why_inexpressible(a_request(), opened.entry) is None
    for name in opened.entry.cannot:
        request = a_request(**FIELDS_BESIDE.get(name, {}), **{name: FIELD_VALUES[name]})
        refused = why_inexpressible(request, opened.entry) or ""
        known, names = refused.split(" knows no ")
        assert known == "provider 'openai'"
        assert name in names.split(", ")


def test_the_attempt_id_arrives(opened: ProviderUnderTest) -> None:
    """It connects the provider's log with callgate's."""
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
def test_a_failure_is_a_value(opened: ProviderUnderTest, failure: Failure) -> None:
    """It is returned, not raised, and has everything that decides retry and bill. One request was made."""
    answer, world = ask(opened, Rule(failure))

    assert isinstance(answer, Failure)
    assert {**_facts(answer), "message": ""} == _facts(failure)
    assert len(world.sent) == 1


def test_silence_ends_with_the_deadline(opened: ProviderUnderTest) -> None:
    """The bill is unknown."""
    started_at = time.monotonic()
    answer, world = ask(opened, Rule(delay_s=math.inf), timeout_s=1.0)

    assert isinstance(answer, Failure)
    assert (answer.code, answer.retryable, answer.billing) == ("timeout", True, Billing.UNKNOWN)
    assert 0.99 <= time.monotonic() - started_at < TIMEOUT_S
    assert len(world.sent) == 1


def test_without_time_nothing_is_sent(opened: ProviderUnderTest) -> None:
    """A passed deadline is unbilled."""
    answer, world = ask(opened, timeout_s=0.0)

    assert isinstance(answer, Failure)
    assert (answer.code, answer.retryable, answer.billing) == ("timeout", True, Billing.UNBILLED)
    assert world.sent == []


def test_cancellation_is_passed_on(opened: ProviderUnderTest) -> None:
    """It raises, and sends no second request."""

    async def cancelled() -> None:
        async with opened([Rule(delay_s=math.inf)]) as world:
            task = asyncio.ensure_future(
                world.provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
            )
            await until_async(lambda: bool(world.sent))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(world.sent) == 1

    asyncio.run(cancelled())


def test_concurrent_requests_get_their_own_answers(opened: ProviderUnderTest) -> None:
    """The answers come in another order."""
    requests = [a_request(f"prompt {number}") for number in range(50)]
    rules = [Rule(match="prompt 1", delay_s=0.05), Rule(match="prompt 2", delay_s=0.02)]

    async def all_of_them() -> tuple[list[ProviderReply | Failure], int]:
        async with opened(rules) as world:
            answers = await asyncio.gather(
                *(
                    world.provider.complete(r, attempt_id=uuid4(), timeout_s=TIMEOUT_S)
                    for r in requests
                )
            )
            return answers, len({sent.attempt_id for sent in world.sent})

    answers, attempts = asyncio.run(all_of_them())

    assert [a.texts if isinstance(a, ProviderReply) else a for a in answers] == [
        echo(request).texts for request in requests
    ]
    assert attempts == len(requests)


def test_a_provider_can_fail_once_and_then_answer(opened: ProviderUnderTest) -> None:
    """On the same connection."""
    limited = Failure("rate_limited", "", True, Billing.UNBILLED, 429)

    async def twice() -> list[ProviderReply | Failure]:
        async with opened([Rule(limited, times=1)]) as world:
            return [
                await world.provider.complete(a_request(), attempt_id=uuid4(), timeout_s=TIMEOUT_S)
                for _ in range(2)
            ]

    first, second = asyncio.run(twice())

    assert isinstance(first, Failure)
    assert isinstance(second, ProviderReply)


def test_closing_is_always_possible(opened: ProviderUnderTest) -> None:
    """Before the first request, after the last one, and twice."""

    async def closed() -> ProviderReply | Failure:
        async with opened([]) as world:
            await world.provider.aclose()
            answer = await world.provider.complete(
                a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S
            )
            await world.provider.aclose()
            await world.provider.aclose()
            return answer

    assert isinstance(asyncio.run(closed()), ProviderReply)


def _facts(failure: Failure) -> dict[str, object]:
    return {name: getattr(failure, name) for name in Failure.__dataclass_fields__}
