"""The Anthropic adapter sends one request per attempt, and nothing of the SDK's or of the environment's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from callgate.domain.messages import Message, ReasoningBlock
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from tests.contract.anthropic_cases import FINE
from tests.support.anthropic_preset import PRESET
from tests.support.openai_attempts import (
    ATTEMPT,
    TIMEOUT_S,
    AttemptResult,
    a_request,
    attempt,
)
from tests.support.provider_worlds import (
    KEY,
    SocketServer,
    adapter_for,
    hangs,
    http,
    sends_json,
)

URL = "http://127.0.0.1:{}".format


pytestmark = pytest.mark.usefixtures("no_proxies")


def attempted(*, status: int = 200, body: object = FINE.body, **options: Any) -> AttemptResult:
    """One attempt against a server that answers with this body."""
    headers = options.pop("headers", None)
    exchange = sends_json(body, status=status, headers=headers)
    return attempt(exchange, url=URL, **PRESET, **options)


def test_a_request_has_few_headers() -> None:
    """The key, the protocol's version, and what HTTP needs."""
    (received,) = attempted().received

    assert received.head == "POST /v1/messages HTTP/1.1"
    assert received.headers.keys() == {
        "host", "connection", "content-length", "content-type", "accept", "accept-encoding", "user-agent",
        "x-api-key", "anthropic-version", "x-callgate-attempt-id",
    }  # fmt: skip
    assert received.headers["x-api-key"] == KEY
    assert received.headers["anthropic-version"] == "2023-06-01"
    assert received.headers["user-agent"] == "callgate"


def test_the_sdks_environment_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, key and payer come from the catalogue and the credentials only."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-environment")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/environment")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Environment: environment")
    monkeypatch.setenv("ANTHROPIC_PROFILE", "environment")
    monkeypatch.setenv("ANTHROPIC_WORKSPACE_ID", "environment")

    (received,) = attempted().received

    assert received.headers["x-api-key"] == KEY
    assert "environment" not in str(received)


def test_the_default_address_is_anthropics(monkeypatch: pytest.MonkeyPatch) -> None:
    """ANTHROPIC_BASE_URL does not count, because prices are Anthropic's."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(b"", status=403))

    async def called() -> int:
        async with (
            SocketServer(sends_json(FINE.body)) as elsewhere,
            SocketServer(hangs, refuses) as proxy,
            adapter_for(None, **PRESET) as provider,
        ):
            monkeypatch.setenv("ANTHROPIC_BASE_URL", elsewhere.base_url)
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
            return elsewhere.connections

    asked: list[bytes] = []
    assert asyncio.run(called()) == 0
    assert asked[0].startswith(b"CONNECT api.anthropic.com:443 ")


def test_a_server_without_authentication_gets_no_key() -> None:
    outcome = attempted(key=None, needs_key=False)

    assert isinstance(outcome.answer, ProviderReply)
    assert not {"authorization", "x-api-key"} & outcome.received[0].headers.keys()


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_the_sdk_retries_nothing(status: int) -> None:
    """Not even when the provider asks for it: a retry is an attempt with its own hold."""
    headers = {"x-should-retry": "true", "retry-after": "0.01"}
    outcome = attempted(status=status, headers=headers, body={})

    assert isinstance(outcome.answer, Failure)
    assert outcome.answer.retryable
    assert len(outcome.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """A second request would be a second bill."""

    async def redirected() -> tuple[ProviderReply | Failure, int]:
        async with SocketServer(sends_json(FINE.body)) as second:
            headers = {"location": f"{second.base_url}/messages"}
            async with (
                SocketServer(sends_json({}, status=status, headers=headers)) as first,
                adapter_for(first.base_url, **PRESET) as provider,
            ):
                answer = await provider.complete(
                    a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S
                )
                return answer, second.connections

    answer, connections = asyncio.run(redirected())

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing, connections) == ("redirected", Billing.UNBILLED, 0)


def test_what_cannot_be_written_is_not_sent() -> None:
    """A reasoning block that no reply has brought. The server gets no connection."""
    forged = ReasoningBlock(protocol="anthropic", data='{"type":"image"}')
    messages = (
        Message(role="user", content="?"),
        Message(role="assistant", reasoning=(forged,)),
        Message(role="user", content="!"),
    )
    request = LLMRequest(**{**a_request().model_dump(), "messages": messages})

    outcome = attempted(request=request)

    assert outcome.classification == ("inexpressible", False, Billing.UNBILLED)
    assert (outcome.received, outcome.connections) == ([], 0)


def test_a_failure_quotes_neither_key_nor_prompt() -> None:
    """The provider puts both into its error."""
    message = f"messages.0.content: x-api-key {KEY} may not say Jane Doe"
    error = {"type": "invalid_request_error", "message": message}

    outcome = attempted(status=400, body={"type": "error", "error": error})

    assert isinstance(outcome.answer, Failure)
    stored = outcome.answer.to_json()
    assert "invalid_request_error" in stored
    for secret in ("Jane", "Doe", "sk-", KEY[3:11]):
        assert secret not in stored
