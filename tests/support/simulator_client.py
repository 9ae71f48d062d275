"""A simulator, a real OpenAI client and callgate's adapters, for the tests of the simulator."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import openai
import pytest

from callgate.domain.messages import Message
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from devkit.simulator.simulator import (
    ATTEMPT_HEADER,
    Rule,
    Simulator,
    Step,
)
from tests.support.provider_worlds import adapter_for

ANSWER_TIMEOUT_S = 20.0


READ_TIMEOUT_S = 0.6


Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """One simulator for all tests of a file."""
    with Simulator() as running:
        yield running


@pytest.fixture
def provider(simulator: Simulator) -> Simulator:
    """The simulator without rules and requests."""
    simulator.reset()
    return simulator


@pytest.fixture(params=["httpx", "aiohttp"])
def transport(request: pytest.FixtureRequest) -> str:
    """Both transports of the OpenAI client."""
    return str(request.param)


@pytest.fixture
def ask(provider: Simulator, transport: str) -> Ask:
    """Makes one request with a real client."""

    def ask_once(method: str = "create", **fields: Any) -> Any:
        return asyncio.run(_ask(provider.base_url, transport, method, fields))

    return ask_once


async def _ask(base_url: str, transport: str, method: str, fields: dict[str, Any]) -> Any:
    transport_class = {
        "httpx": openai.DefaultAsyncHttpxClient,
        "aiohttp": openai.DefaultAioHttpClient,
    }[transport]
    fields = {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "extra_headers": {ATTEMPT_HEADER: "attempt-1"},
        "timeout": ANSWER_TIMEOUT_S,
        **fields,
    }
    # An empty context: nothing here speaks TLS, and loading certificates takes a tenth of a second.
    no_certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    http = transport_class(follow_redirects=fields.pop("follow", False), verify=no_certificates)
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key="any", max_retries=0, http_client=http
    ) as client:
        return await getattr(client.chat.completions, method)(**fields)


def only(step: Step) -> list[Rule | dict[str, Any]]:
    """Return a script that answers everything with one step."""
    return [Rule(reply=[step])]


def answers_of(
    base_url: str,
    entry: Mapping[str, Any],
    *requests: LLMRequest,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> list[ProviderReply | Failure]:
    """What callgate's adapter reads, one request after the other."""

    async def asked() -> list[ProviderReply | Failure]:
        async with adapter_for(base_url, **entry) as adapter:
            return [
                await adapter.complete(r, attempt_id=uuid4(), timeout_s=timeout_s) for r in requests
            ]

    return asyncio.run(asked())


def a_request(*messages: Message, **fields: Any) -> LLMRequest:
    """A request with everything that must be set."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="sim",
        model="m",
        messages=messages or (Message(role="user", content="hello"),),
        **{"max_output_tokens": 50, **fields},
    )
