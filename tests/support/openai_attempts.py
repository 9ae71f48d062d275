"""One attempt of the OpenAI adapter with a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Message
from tests.support.provider_worlds import Exchange, Greeting, Received, SocketServer, adapter_for

ATTEMPT = UUID("01890000-0000-7000-8000-000000000001")
TIMEOUT_S = 20.0
PROMPT = "The patient Jane Doe, born 1970-01-02, card 4111 1111 1111 1111"


def unset_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the proxy variables of the machine that runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine that runs the tests."""
    unset_proxies(monkeypatch)


def a_request(prompt: str = PROMPT, **fields: Any) -> LLMRequest:
    """A request with everything that must be set."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        messages=(Message(role="user", content=prompt),),
        **{"max_output_tokens": 50, **fields},
    )


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """An answer, and what the server received."""

    answer: ProviderReply | Failure
    received: list[Received]
    connections: int

    @property
    def classification(self) -> tuple[str, bool, Billing]:
        """Code, retryable and billing of the failure."""
        assert isinstance(self.answer, Failure), self.answer
        return self.answer.code, self.answer.retryable, self.answer.billing


def attempt(
    exchange: Exchange,
    greeting: Greeting | None = None,
    *,
    url: Callable[[int], str] = "http://127.0.0.1:{}/v1".format,
    timeout_s: float = TIMEOUT_S,
    request: LLMRequest | None = None,
    **adapter: Any,
) -> AttemptResult:
    """Make one attempt against a server."""

    async def made() -> AttemptResult:
        async with (
            SocketServer(exchange, greeting) as server,
            adapter_for(url(server.port), **adapter) as provider,
        ):
            answer = await provider.complete(
                request or a_request(), attempt_id=ATTEMPT, timeout_s=timeout_s
            )
            return AttemptResult(answer, server.received, server.connections)

    return asyncio.run(made())


def attempt_at(base_url: str, *, timeout_s: float = TIMEOUT_S) -> AttemptResult:
    """Make one attempt at an address without a test server."""

    async def made() -> AttemptResult:
        async with adapter_for(base_url) as provider:
            answer = await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=timeout_s)
            return AttemptResult(answer, [], 0)

    return asyncio.run(made())
