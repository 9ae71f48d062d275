"""
The OpenAI adapter against real sockets that misbehave: what each failure is called, and what it says of the bill.

In every test the server counts the requests it read: one attempt never makes two.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from callgate.adapters import openai_adapter
from callgate.domain.models import LLMRequest, Message
from callgate.domain.ports import ProviderReply
from callgate.domain.retry import Billing, Failure
from tests.contract.provider_worlds import (
    KEY,
    Exchange,
    Greeting,
    Received,
    SocketServer,
    adapter_for,
    chat,
    closes,
    hangs,
    http,
    resets,
    says,
    sends,
    until,
)

ATTEMPT = UUID("01890000-0000-7000-8000-000000000001")
PATIENCE_S = 20.0
PROMPT = "The patient Jane Doe, born 1970-01-02, card 4111 1111 1111 1111"
OTHER_PROXY = "http://127.0.0.1:9"
BODY = json.dumps(chat()).encode()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies of the machine that runs the tests are none of their business."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


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
class Outcome:
    """An answer, and what the server saw."""

    answer: ProviderReply | Failure
    received: list[Received]
    connections: int

    @property
    def verdict(self) -> tuple[str, bool, Billing]:
        """What the failure says."""
        assert isinstance(self.answer, Failure), self.answer
        return self.answer.code, self.answer.retryable, self.answer.billing


def attempt(
    exchange: Exchange,
    greeting: Greeting | None = None,
    *,
    url: Callable[[int], str] = "http://127.0.0.1:{}/v1".format,
    timeout_s: float = PATIENCE_S,
    request: LLMRequest | None = None,
    **adapter: Any,
) -> Outcome:
    """Make one attempt against a server."""

    async def made() -> Outcome:
        async with (
            SocketServer(exchange, greeting) as server,
            adapter_for(url(server.port), **adapter) as provider,
        ):
            answer = await provider.complete(
                request or a_request(), attempt_id=ATTEMPT, timeout_s=timeout_s
            )
            return Outcome(answer, server.received, server.connections)

    return asyncio.run(made())


def attempt_at(base_url: str, *, timeout_s: float = PATIENCE_S) -> Outcome:
    """Make one attempt where no server of ours is."""

    async def made() -> Outcome:
        async with adapter_for(base_url) as provider:
            answer = await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=timeout_s)
            return Outcome(answer, [], 0)

    return asyncio.run(made())


# Before the request can leave.


def test_a_refused_connection_is_free() -> None:
    """Nobody listens: nothing was sent."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        outcome = attempt_at(f"http://127.0.0.1:{bound.getsockname()[1]}/v1")

    assert outcome.verdict == ("connection_failed", True, Billing.UNBILLED)
    assert isinstance(outcome.answer, Failure)
    assert "ECONNREFUSED" in outcome.answer.message


def test_a_name_nobody_knows_is_free() -> None:
    """`.invalid` never resolves (RFC 6761)."""
    outcome = attempt_at("http://provider.invalid/v1")

    assert outcome.verdict == ("dns_failed", True, Billing.UNBILLED)


@pytest.mark.parametrize("base_url", ["ftp://127.0.0.1/v1", "http:///v1", "nonsense"])
def test_an_address_that_is_none_is_not_tried_again(base_url: str) -> None:
    """A wrong catalogue stays wrong."""
    outcome = attempt_at(base_url)

    assert outcome.verdict == ("invalid_address", False, Billing.UNBILLED)


async def _speaks_no_tls(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http(b"{}", status=400))


async def _hangs_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _waits(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("greeting", "codes"),
    [
        (_speaks_no_tls, {"tls_failed"}),
        (_hangs_up, {"connection_failed", "tls_failed"}),
        (resets, {"connection_failed", "tls_failed"}),
    ],
    ids=["no_tls", "closed", "reset"],
)
def test_a_failed_tls_handshake_is_free(greeting: Greeting, codes: set[str]) -> None:
    """The request is sent after the handshake only."""
    outcome = attempt(hangs, greeting, url="https://127.0.0.1:{}/v1".format)

    code, retryable, billing = outcome.verdict
    assert code in codes
    assert (retryable, billing) == (True, Billing.UNBILLED)
    assert outcome.received == []


def test_a_connection_that_takes_too_long_is_free() -> None:
    """It is given up before the deadline, so that it is not mistaken for a silent provider."""
    outcome = attempt(hangs, _waits, url="https://127.0.0.1:{}/v1".format, timeout_s=2.0)

    assert outcome.verdict == ("connect_timeout", True, Billing.UNBILLED)


def test_waiting_for_a_free_connection_is_free() -> None:
    """More requests than connections: the last ones wait, and then were never sent."""

    async def two() -> tuple[Failure | ProviderReply, int]:
        async with (
            SocketServer(hangs) as server,
            adapter_for(server.base_url, connections_max=1) as provider,
        ):
            first = asyncio.ensure_future(
                provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
            )
            await until(lambda: len(server.received) == 1)
            second = await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=1.0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return second, len(server.received)

    second, received = asyncio.run(two())

    assert isinstance(second, Failure)
    assert (second.code, second.billing) == ("connect_timeout", Billing.UNBILLED)
    assert received == 1


def test_a_missing_key_is_not_sent_for() -> None:
    """Without a key there is no request, and no use in trying again."""
    outcome = attempt(says(chat()), key=None)

    assert outcome.verdict == ("missing_credentials", False, Billing.UNBILLED)
    assert outcome.connections == 0


# After it may have left.


@pytest.mark.parametrize("exchange", [closes, resets], ids=["closed", "reset"])
def test_a_connection_that_breaks_after_the_request_is_unknown(exchange: Exchange) -> None:
    """The provider read the request: it may work, and bill, without us."""
    outcome = attempt(exchange)

    assert outcome.verdict == ("connection_lost", True, Billing.UNKNOWN)
    assert (len(outcome.received), outcome.connections) == (1, 1)


@pytest.mark.parametrize("greeting", [_hangs_up, resets], ids=["closed", "reset"])
def test_a_connection_that_breaks_before_it_was_read_is_unknown(greeting: Greeting) -> None:
    """Our side cannot know how much of what it wrote was read. It is not written again."""
    outcome = attempt(hangs, greeting)

    assert outcome.verdict == ("connection_lost", True, Billing.UNKNOWN)
    assert (outcome.received, outcome.connections) == ([], 1)


def test_a_silent_provider_is_unknown() -> None:
    """The deadline holds to a fraction of a second."""
    started_at = time.monotonic()
    outcome = attempt(hangs, timeout_s=1.0)

    assert outcome.verdict == ("timeout", True, Billing.UNKNOWN)
    assert time.monotonic() - started_at < 5
    assert len(outcome.received) == 1


def test_a_trickling_reply_does_not_outlive_the_deadline() -> None:
    """The deadline is for the whole reply, not for the next byte of it."""

    async def trickles(_received: Received, writer: asyncio.StreamWriter) -> None:
        for byte in http(BODY):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    outcome = attempt(trickles, timeout_s=1.0)

    assert outcome.verdict == ("timeout", True, Billing.UNKNOWN)


@pytest.mark.parametrize(
    "data",
    [
        http(BODY[:40], length=len(BODY)),
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"cho',
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"\x00\x16\x03 this is not HTTP\r\n\r\n",
        http(b""),
        http(b"", status=204),
        http(b"<html>Welcome</html>"),
        http(b"\xff\xfe\x00"),
        http(b"[1, 2]"),
        http(b"null"),
        http(b'{"choices": []}'),
        http(b'{"choices": [{"text": "old style"}]}'),
        http(b'{"error": {"code": "overloaded", "message": "sorry"}}'),
        http(b"[" * 100_000),
        http(b"{}", headers={"content-encoding": "gzip"}),
    ],
    ids=lambda data: ascii(data[-24:]),
)
def test_a_reply_nobody_can_read_is_unknown(data: bytes) -> None:
    """Truncated, empty or garbage: it was made, so it may have been billed."""
    outcome = attempt(sends(data, then_close=True))

    assert outcome.verdict == ("invalid_response", True, Billing.UNKNOWN)
    assert len(outcome.received) == 1


def test_a_reply_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that does not stop talking does not fill the memory, and is not asked again."""
    monkeypatch.setattr(openai_adapter, "REPLY_BYTES_MAX", 1000)

    outcome = attempt(says(chat("x" * 1000)))

    assert outcome.verdict == ("reply_too_large", False, Billing.UNKNOWN)


# One attempt, one request.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """A second request would be a second bill; the second server never hears of it."""

    async def redirected() -> tuple[Outcome, int]:
        async with SocketServer(says(chat())) as second:
            location = f"{second.base_url}/chat/completions"
            async with (
                SocketServer(says({}, status=status, headers={"location": location})) as first,
                adapter_for(first.base_url) as provider,
            ):
                answer = await provider.complete(
                    a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S
                )
                return Outcome(answer, first.received, first.connections), second.connections

    outcome, connections_of_second = asyncio.run(redirected())

    assert outcome.verdict == ("redirected", False, Billing.UNBILLED)
    assert len(outcome.received) == 1
    assert connections_of_second == 0


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_the_sdk_retries_nothing(status: int) -> None:
    """Not even if the provider asks for it: a retry is an attempt, with a hold of its own."""
    outcome = attempt(
        says({}, status=status, headers={"x-should-retry": "true", "retry-after": "0.01"})
    )

    assert isinstance(outcome.answer, Failure)
    assert outcome.answer.retryable
    assert len(outcome.received) == 1


def test_a_connection_closed_in_the_meantime_is_replaced() -> None:
    """The server closed the idle connection and we know it: the next attempt opens another."""

    async def two() -> tuple[list[object], int, int]:
        async with (
            SocketServer(sends(http(BODY), then_close=True)) as server,
            adapter_for(server.base_url) as provider,
        ):
            answers: list[object] = []
            for _ in range(2):
                answers.append(
                    await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
                )
                await asyncio.sleep(0.05)
            return answers, len(server.received), server.connections

    answers, received, connections = asyncio.run(two())

    assert all(isinstance(answer, ProviderReply) for answer in answers)
    assert (received, connections) == (2, 2)


@dataclass
class ClosingServer:
    """Answers one request, closes that connection when told to, and counts what comes afterwards."""

    port: int
    close: threading.Event
    closed: threading.Event
    later: list[bytes]


@pytest.fixture
def closing_server() -> Iterator[ClosingServer]:
    """A server in a thread of its own, so that it can close while the client's loop is not looking."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(PATIENCE_S)
    server = ClosingServer(listening.getsockname()[1], threading.Event(), threading.Event(), [])

    def serve() -> None:
        connection, _ = listening.accept()
        connection.settimeout(PATIENCE_S)
        _read_whole(connection)
        connection.sendall(http(BODY))
        server.close.wait(PATIENCE_S)
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
    thread.join(PATIENCE_S)


def test_a_request_on_a_dead_connection_is_not_sent_again(closing_server: ClosingServer) -> None:
    """The race of a stale connection: the server closed it, our loop has not noticed, the request is written to it."""

    async def raced() -> ProviderReply | Failure:
        async with adapter_for(f"http://127.0.0.1:{closing_server.port}/v1") as provider:
            first = await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
            assert isinstance(first, ProviderReply)
            closing_server.close.set()
            # The loop stands still on purpose: it must not see the goodbye before the request is written.
            assert closing_server.closed.wait(PATIENCE_S)
            return await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)

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
        async with SocketServer(says(chat())) as server, adapter_for(server.base_url) as provider:
            for _ in range(10):
                await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
            return len(server.received), server.connections

    assert asyncio.run(ten()) == (10, 1)


# What goes over the wire.


def test_the_environment_of_the_sdk_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither address nor key nor payer comes from a variable somebody forgot."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Environment: environment")

    outcome = attempt(says(chat()))

    (received,) = outcome.received
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert "environment" not in str(received)


def test_the_default_address_is_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one of OPENAI_BASE_URL: what is priced as OpenAI's is asked of OpenAI."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(b"", status=403))

    async def called() -> int:
        async with (
            SocketServer(says(chat())) as elsewhere,
            SocketServer(hangs, refuses) as proxy,
            adapter_for(None) as provider,
        ):
            monkeypatch.setenv("OPENAI_BASE_URL", elsewhere.base_url)
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
            return elsewhere.connections

    asked: list[bytes] = []
    connections_elsewhere = asyncio.run(called())

    assert connections_elsewhere == 0
    assert asked[0].startswith(b"CONNECT api.openai.com:443 ")


def test_a_server_without_authentication_gets_no_key() -> None:
    """No Authorization header at all, rather than an invented one."""
    outcome = attempt(says(chat()), key=None, needs_key=False)

    assert isinstance(outcome.answer, ProviderReply)
    assert "authorization" not in outcome.received[0].headers


def test_a_loopback_address_is_not_proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt for a local model does not travel through the company's proxy."""
    monkeypatch.setenv("HTTP_PROXY", OTHER_PROXY)

    outcome = attempt(says(chat()))

    assert isinstance(outcome.answer, ProviderReply)


def test_a_proxy_from_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many companies have no other way out."""

    async def proxied() -> Outcome:
        async with SocketServer(says(chat())) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            async with adapter_for("http://provider.invalid/v1") as provider:
                answer = await provider.complete(
                    a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S
                )
                return Outcome(answer, proxy.received, proxy.connections)

    outcome = asyncio.run(proxied())

    assert isinstance(outcome.answer, ProviderReply)
    assert outcome.received[0].head.startswith("POST http://provider.invalid/v1/chat/completions")


def test_a_proxy_that_is_away_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request did not even get to the proxy."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{bound.getsockname()[1]}")

        outcome = attempt_at("https://provider.invalid/v1")

    assert outcome.verdict == ("proxy_failed", True, Billing.UNBILLED)


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_proxy_that_refuses_is_free(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """It was asked for a tunnel; the request would have gone through that."""

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(b"", status=status))

    async def proxied() -> Outcome:
        async with SocketServer(hangs, refuses) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            async with adapter_for("https://provider.invalid/v1") as provider:
                answer = await provider.complete(
                    a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S
                )
                return Outcome(answer, proxy.received, proxy.connections)

    asked: list[bytes] = []
    outcome = asyncio.run(proxied())

    assert outcome.verdict == ("proxy_failed", True, Billing.UNBILLED)
    assert asked[0].startswith(b"CONNECT provider.invalid:443 ")
    assert KEY.encode() not in asked[0]
    assert outcome.received == []


def test_a_provider_that_quotes_us_is_not_quoted() -> None:
    """Neither the key nor the prompt gets into the failure, wherever the provider puts them."""

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
    assert "HTTP 400, invalid_request_error, param messages.[0].content" in outcome.answer.message
    for secret in ("Jane", "Doe", "4111", "1970", "sk-", KEY[3:11], "Bearer"):
        assert secret not in stored


def _read_whole(connection: socket.socket) -> bytes:
    """Read one request; empty if the connection was closed without any."""
    with connection.makefile("rb") as stream:
        head = b""
        length = 0
        while (line := stream.readline()).strip():
            head += line
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head + stream.read(length)
