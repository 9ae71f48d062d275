"""Steps of the contract of `LLMProviderPort`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

from callgate.adapters.memory.provider import Rule
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Message
from tests.support.provider_worlds import ProviderUnderTest, World

ATTEMPT = UUID("01890000-0000-7000-8000-000000000001")
TIMEOUT_S = 20.0
TEXTS_MAX = 3


def a_request(prompt: str = "ping", **fields: Any) -> LLMRequest:
    """A request with everything that must be set."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        **{
            "messages": (Message(role="user", content=prompt),),
            "max_output_tokens": 50,
            **fields,
        },
    )


def texts_max(opened: ProviderUnderTest) -> int:
    """How many texts a reply of the provider can have."""
    return 1 if "n" in opened.entry.cannot else TEXTS_MAX


def ask(
    opened: ProviderUnderTest,
    *rules: Rule,
    request: LLMRequest | None = None,
    timeout_s: float = TIMEOUT_S,
) -> tuple[ProviderReply | Failure, World]:
    """Make one request of a fresh provider."""

    async def asked() -> tuple[ProviderReply | Failure, World]:
        async with opened(rules) as world:
            answer = await world.provider.complete(
                request or a_request(), attempt_id=ATTEMPT, timeout_s=timeout_s
            )
            return answer, world

    return asyncio.run(asked())


def converse(
    opened: ProviderUnderTest,
    replies: Sequence[ProviderReply],
    first: LLMRequest,
    then: Callable[[ProviderReply], LLMRequest],
) -> tuple[list[ProviderReply], list[LLMRequest]]:
    """
    Make a request, and a second one that follows from its reply.

    Returns:
        The replies as they were read, and the requests as they arrived.
    """

    async def conversed() -> tuple[list[ProviderReply], list[LLMRequest]]:
        async with opened([Rule(reply, times=1) for reply in replies]) as world:
            answers: list[ProviderReply] = []
            while len(answers) < len(replies):
                request = then(answers[-1]) if answers else first
                answer = await world.provider.complete(
                    request, attempt_id=uuid4(), timeout_s=TIMEOUT_S
                )
                assert isinstance(answer, ProviderReply)
                answers.append(answer)
            return answers, [sent.request for sent in world.sent]

    return asyncio.run(conversed())
