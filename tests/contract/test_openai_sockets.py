"""
The OpenAI adapter with misbehaving servers: the code and the bill of each failure.

The server counts the requests that it reads: one attempt never makes two.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

from callgate.adapters.providers.http import reply_bounds
from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.support.openai_attempts import (
    ATTEMPT,
    TIMEOUT_S,
    a_request,
    attempt,
    attempt_at,
)
from tests.support.provider_worlds import (
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
    sends,
    sends_json,
)
from tests.support.waiting import until_async

BODY = json.dumps(chat()).encode()


pytestmark = pytest.mark.usefixtures("no_proxies")


def test_a_refused_connection_is_unbilled() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        outcome = attempt_at(f"http://127.0.0.1:{bound.getsockname()[1]}/v1")

    assert outcome.classification == ("connection_failed", True, Billing.UNBILLED)
    assert isinstance(outcome.answer, Failure)
    assert "ECONNREFUSED" in outcome.answer.message


def test_an_unresolved_host_name_is_unbilled() -> None:
    """`.invalid` never resolves (RFC 6761)."""
    outcome = attempt_at("http://provider.invalid/v1")

    assert outcome.classification == ("dns_failed", True, Billing.UNBILLED)


@pytest.mark.parametrize("base_url", ["ftp://127.0.0.1/v1", "http:///v1", "nonsense"])
def test_an_invalid_address_is_not_retried(base_url: str) -> None:
    """The catalogue has to be corrected first."""
    outcome = attempt_at(base_url)

    assert outcome.classification == ("invalid_address", False, Billing.UNBILLED)


async def _speaks_no_tls(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(http(b"{}", status=400))


@pytest.mark.parametrize(
    ("greeting", "codes"),
    [
        (_speaks_no_tls, {"tls_failed"}),
        (closes, {"connection_failed", "tls_failed"}),
        (resets, {"connection_failed", "tls_failed"}),
    ],
    ids=["no_tls", "closed", "reset"],
)
def test_a_failed_tls_handshake_is_unbilled(greeting: Greeting, codes: set[str]) -> None:
    """The request is sent after the handshake."""
    outcome = attempt(hangs, greeting, url="https://127.0.0.1:{}/v1".format)

    code, retryable, billing = outcome.classification
    assert code in codes
    assert (retryable, billing) == (True, Billing.UNBILLED)
    assert outcome.received == []


def test_a_connect_timeout_is_unbilled() -> None:
    """It ends before the deadline, so it is not mistaken for a silent provider."""
    outcome = attempt(hangs, hangs, url="https://127.0.0.1:{}/v1".format, timeout_s=2.0)

    assert outcome.classification == ("connect_timeout", True, Billing.UNBILLED)


def test_waiting_for_a_free_connection_is_unbilled() -> None:
    """With more requests than connections the last ones time out without being sent."""

    async def two() -> tuple[Failure | ProviderReply, int]:
        async with (
            SocketServer(hangs) as server,
            adapter_for(server.base_url, connections_max=1) as provider,
        ):
            first = asyncio.ensure_future(
                provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
            )
            await until_async(lambda: len(server.received) == 1)
            second = await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=1.0)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return second, len(server.received)

    second, received = asyncio.run(two())

    assert isinstance(second, Failure)
    assert (second.code, second.billing) == ("connect_timeout", Billing.UNBILLED)
    assert received == 1


def test_a_missing_key_sends_no_request() -> None:
    """The failure is not retryable."""
    outcome = attempt(sends_json(chat()), key=None)

    assert outcome.classification == ("missing_credentials", False, Billing.UNBILLED)
    assert outcome.connections == 0


@pytest.mark.parametrize("exchange", [closes, resets], ids=["closed", "reset"])
def test_a_connection_lost_after_the_request_has_an_unknown_bill(exchange: Exchange) -> None:
    """The provider read the request. It may process and bill it."""
    outcome = attempt(exchange)

    assert outcome.classification == ("connection_lost", True, Billing.UNKNOWN)
    assert (len(outcome.received), outcome.connections) == (1, 1)


@pytest.mark.parametrize("breaks", [closes, resets], ids=["closed", "reset"])
def test_a_connection_lost_during_the_request_has_an_unknown_bill(breaks: Exchange) -> None:
    """The client cannot know how much was read. It does not send the request again."""

    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        await breaks(Received("", {}, b""), writer)

    outcome = attempt(hangs, greeting)

    assert outcome.classification == ("connection_lost", True, Billing.UNKNOWN)
    assert (outcome.received, outcome.connections) == ([], 1)


def test_a_silent_provider_has_an_unknown_bill() -> None:
    started_at = time.monotonic()
    outcome = attempt(hangs, timeout_s=1.0)

    assert outcome.classification == ("timeout", True, Billing.UNKNOWN)
    assert time.monotonic() - started_at < 5
    assert len(outcome.received) == 1


def test_a_slow_reply_ends_at_the_deadline() -> None:
    """The deadline is for the whole reply, not for its next byte."""

    async def trickles(_received: Received, writer: asyncio.StreamWriter) -> None:
        for byte in http(BODY):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    outcome = attempt(trickles, timeout_s=1.0)

    assert outcome.classification == ("timeout", True, Billing.UNKNOWN)


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
        http(b"[" * 90),
        http(b"{}", headers={"content-encoding": "gzip"}),
    ],
    ids=lambda data: ascii(data[-24:]),
)
def test_an_unreadable_reply_has_an_unknown_bill(data: bytes) -> None:
    """The provider did the work, so it may bill it."""
    outcome = attempt(sends(data, then_close=True))

    assert outcome.classification == ("invalid_response", True, Billing.UNKNOWN)
    assert len(outcome.received) == 1


@pytest.mark.parametrize(
    "data",
    [
        http(b'{"error": {"code"', status=429, length=1000),
        b"HTTP/1.1 429 Slow down\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        http(b"no gzip", status=429, headers={"content-encoding": "gzip"}),
        http(b"x" * 2000, status=429),
    ],
    ids=["cut off", "cut chunk", "no gzip", "too large"],
)
def test_a_refusals_status_counts_without_a_readable_body(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """The status alone decides retry and bill."""
    monkeypatch.setattr(reply_bounds, "REPLY_MAX_BYTES", 1000)

    outcome = attempt(sends(data, then_close=True))

    assert outcome.classification == ("rate_limited", True, Billing.UNBILLED)
    assert len(outcome.received) == 1


def test_a_refusals_status_counts_when_its_body_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Waiting for the body until the deadline would lose the status."""
    monkeypatch.setattr(reply_bounds, "REFUSAL_MAX_S", 0.2)
    words = b'{"error": {"code": "slow_down", "message": "more'

    outcome = attempt(sends(http(words, status=429, length=1000)))

    assert outcome.classification == ("rate_limited", True, Billing.UNBILLED)


def test_a_reply_has_a_size_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that is too large is not retried."""
    monkeypatch.setattr(reply_bounds, "REPLY_MAX_BYTES", 1000)

    outcome = attempt(sends_json(chat("x" * 1000)))

    assert outcome.classification == ("reply_too_large", False, Billing.UNKNOWN)
