"""The OpenAI adapter sends one request per attempt, to the catalogue's address, with the organisation's key."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.support.openai_attempts import (
    ATTEMPT,
    PROMPT,
    TIMEOUT_S,
    AttemptResult,
    a_request,
    attempt,
    attempt_at,
)
from tests.support.provider_worlds import (
    KEY,
    Received,
    SocketServer,
    adapter_for,
    chat,
    hangs,
    http,
    sends,
    sends_json,
)

OTHER_PROXY = "http://127.0.0.1:9"
BODY = json.dumps(chat()).encode()


pytestmark = pytest.mark.usefixtures("no_proxies")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """A second request would be a second bill. The second server gets no connection."""

    async def redirected() -> tuple[AttemptResult, int]:
        async with SocketServer(sends_json(chat())) as second:
            location = f"{second.base_url}/chat/completions"
            async with (
                SocketServer(
                    sends_json({}, status=status, headers={"location": location})
                ) as first,
                adapter_for(first.base_url) as provider,
            ):
                answer = await provider.complete(
                    a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S
                )
                return AttemptResult(answer, first.received, first.connections), second.connections

    outcome, connections_of_second = asyncio.run(redirected())

    assert outcome.classification == ("redirected", False, Billing.UNBILLED)
    assert len(outcome.received) == 1
    assert connections_of_second == 0


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_the_sdk_retries_nothing(status: int) -> None:
    """Not even when the provider asks for it: a retry is an attempt with its own hold."""
    outcome = attempt(
        sends_json({}, status=status, headers={"x-should-retry": "true", "retry-after": "0.01"})
    )

    assert isinstance(outcome.answer, Failure)
    assert outcome.answer.retryable
    assert len(outcome.received) == 1


def test_a_closed_idle_connection_is_replaced() -> None:
    """The client knows that the server closed it, so the next attempt opens another."""

    async def two() -> tuple[list[object], int, int]:
        async with (
            SocketServer(sends(http(BODY), then_close=True)) as server,
            adapter_for(server.base_url) as provider,
        ):
            answers: list[object] = []
            for _ in range(2):
                answers.append(
                    await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
                )
                await asyncio.sleep(0.05)
            return answers, len(server.received), server.connections

    answers, received, connections = asyncio.run(two())

    assert all(isinstance(answer, ProviderReply) for answer in answers)
    assert (received, connections) == (2, 2)


@dataclass
class ClosingServer:
    """Answers one request, closes its connection on demand, and keeps the requests after that."""

    port: int
    close: threading.Event
    closed: threading.Event
    later: list[bytes]


@pytest.fixture
def closing_server() -> Iterator[ClosingServer]:
    """A server in its own thread, so that it can close while the client's loop is blocked."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(TIMEOUT_S)
    server = ClosingServer(listening.getsockname()[1], threading.Event(), threading.Event(), [])

    def serve() -> None:
        connection, _ = listening.accept()
        connection.settimeout(TIMEOUT_S)
        _read_whole(connection)
        connection.sendall(http(BODY))
        server.close.wait(TIMEOUT_S)
        connection.close()
        server.closed.set()
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            server.later.append(_read_whole(connection))
            connection.sendall(http(BODY))
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield server
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(TIMEOUT_S)


def test_a_request_on_a_dead_connection_is_not_sent_again(
    closing_server: ClosingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A race: the server has closed the connection, the client has not noticed and writes the request to it."""

    async def raced() -> ProviderReply | Failure:
        async with adapter_for(f"http://127.0.0.1:{closing_server.port}/v1") as provider:
            first = await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
            assert isinstance(first, ProviderReply)
            attempted = provider._attempt

            async def stands_still(*args: Any) -> ProviderReply | Failure:
                # Blocks on purpose: the loop must not see the FIN before the request is written.
                closing_server.close.set()
                assert closing_server.closed.wait(TIMEOUT_S)
                return await attempted(*args)

            monkeypatch.setattr(provider, "_attempt", stands_still)
            return await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)

    answer = asyncio.run(raced())

    assert isinstance(answer, Failure)
    assert (answer.code, answer.retryable, answer.billing) == (
        "connection_lost",
        True,
        Billing.UNKNOWN,
    )
    assert closing_server.later == []


def test_connections_are_reused() -> None:
    """Ten requests in a row make one connection."""

    async def ten() -> tuple[int, int]:
        async with (
            SocketServer(sends_json(chat())) as server,
            adapter_for(server.base_url) as provider,
        ):
            for _ in range(10):
                await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
            return len(server.received), server.connections

    assert asyncio.run(ten()) == (10, 1)


def test_the_sdks_environment_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, key and payer come from the catalogue and the credentials only."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Environment: environment")

    outcome = attempt(sends_json(chat()))

    (received,) = outcome.received
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert "environment" not in str(received)


def test_the_default_address_is_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_BASE_URL does not count, because prices are OpenAI's."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(b"", status=403))

    async def called() -> int:
        async with (
            SocketServer(sends_json(chat())) as elsewhere,
            SocketServer(hangs, refuses) as proxy,
            adapter_for(None) as provider,
        ):
            monkeypatch.setenv("OPENAI_BASE_URL", elsewhere.base_url)
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
            return elsewhere.connections

    asked: list[bytes] = []
    connections_elsewhere = asyncio.run(called())

    assert connections_elsewhere == 0
    assert asked[0].startswith(b"CONNECT api.openai.com:443 ")


def test_a_server_without_authentication_gets_no_key() -> None:
    """There is no Authorization header at all."""
    outcome = attempt(sends_json(chat()), key=None, needs_key=False)

    assert isinstance(outcome.answer, ProviderReply)
    assert "authorization" not in outcome.received[0].headers


def test_a_loopback_address_is_not_proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt for a local model does not travel through the company's proxy."""
    monkeypatch.setenv("HTTP_PROXY", OTHER_PROXY)

    outcome = attempt(sends_json(chat()))

    assert isinstance(outcome.answer, ProviderReply)


def test_a_proxy_from_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many companies have no other way out."""

    async def proxied() -> AttemptResult:
        async with SocketServer(sends_json(chat())) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            async with adapter_for("http://provider.invalid/v1") as provider:
                answer = await provider.complete(
                    a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S
                )
                return AttemptResult(answer, proxy.received, proxy.connections)

    outcome = asyncio.run(proxied())

    assert isinstance(outcome.answer, ProviderReply)
    assert outcome.received[0].head.startswith("POST http://provider.invalid/v1/chat/completions")


def test_an_unreachable_proxy_is_unbilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request did not reach the proxy."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{bound.getsockname()[1]}")

        outcome = attempt_at("https://provider.invalid/v1")

    assert outcome.classification == ("proxy_failed", True, Billing.UNBILLED)


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_proxy_that_refuses_connect_is_unbilled(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The request would have gone through the tunnel that CONNECT asks for."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(b"", status=status))

    async def proxied() -> AttemptResult:
        async with SocketServer(hangs, refuses) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            async with adapter_for("https://provider.invalid/v1") as provider:
                answer = await provider.complete(
                    a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S
                )
                return AttemptResult(answer, proxy.received, proxy.connections)

    asked: list[bytes] = []
    outcome = asyncio.run(proxied())

    assert outcome.classification == ("proxy_failed", True, Billing.UNBILLED)
    assert asked[0].startswith(b"CONNECT provider.invalid:443 ")
    assert KEY.encode() not in asked[0]
    assert outcome.received == []


def test_a_failure_quotes_neither_key_nor_prompt() -> None:
    """The provider puts both into its error."""

    async def echoes(received: Received, writer: asyncio.StreamWriter) -> None:
        key = received.headers["authorization"]
        error = {
            "code": key.removeprefix("Bearer "),
            "type": "invalid_request_error",
            "param": "messages.[0].content",
            "message": f"Incorrect key {key} (near {KEY[:12]}) for {PROMPT}; unexpected {PROMPT[5:20]} here",
        }
        writer.write(http(json.dumps({"error": error}).encode(), status=400))

    outcome = attempt(echoes)

    assert isinstance(outcome.answer, Failure)
    stored = outcome.answer.to_json()
    assert outcome.answer.provider_code == "invalid_request_error"
    assert "HTTP 400, invalid_request_error, param messages[0].content: " in outcome.answer.message
    for secret in ("Jane", "Doe", "4111", "1970", "sk-", KEY[3:11], "Bearer"):
        assert secret not in stored


def _read_whole(connection: socket.socket) -> bytes:
    """Read one request; empty if the connection was closed without one."""
    with connection.makefile("rb") as stream:
        head = b""
        length = 0
        while (line := stream.readline()).strip():
            head += line
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head + stream.read(length)
