"""
The OpenAI adapter against real sockets that misbehave: what each failure is called, and what it says of the bill.

In every test the server counts the requests it read: one attempt never makes two.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

from callgate.adapters.providers.openai import transport as openai_transport
from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.contract.openai_attempts import (
    ATTEMPT,
    PATIENCE_S,
    a_request,
    attempt,
    attempt_at,
    forget_proxies,
)
from tests.contract.provider_worlds import (
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

BODY = json.dumps(chat()).encode()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)


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


@pytest.mark.parametrize("breaks", [closes, resets], ids=["closed", "reset"])
def test_a_connection_that_breaks_before_it_was_read_is_unknown(breaks: Exchange) -> None:
    """Our side cannot know how much of what it wrote was read. It is not written again."""

    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        await breaks(Received("", {}, b""), writer)

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
        http(b"[" * 90),
        http(b"{}", headers={"content-encoding": "gzip"}),
    ],
    ids=lambda data: ascii(data[-24:]),
)
def test_a_reply_nobody_can_read_is_unknown(data: bytes) -> None:
    """Truncated, empty or garbage: it was made, so it may have been billed."""
    outcome = attempt(sends(data, then_close=True))

    assert outcome.verdict == ("invalid_response", True, Billing.UNKNOWN)
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
def test_a_status_counts_though_its_body_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """The provider has said what it did; the rest are words."""
    monkeypatch.setattr(openai_transport, "REPLY_BYTES_MAX", 1000)

    outcome = attempt(sends(data, then_close=True))

    assert outcome.verdict == ("rate_limited", True, Billing.UNBILLED)
    assert len(outcome.received) == 1


def test_a_status_counts_though_its_body_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words are not waited for until the deadline is over, and the status lost with it."""
    monkeypatch.setattr(openai_transport, "EXPLANATION_MAX_S", 0.2)
    words = b'{"error": {"code": "slow_down", "message": "more'

    outcome = attempt(sends(http(words, status=429, length=1000)))

    assert outcome.verdict == ("rate_limited", True, Billing.UNBILLED)


def test_a_reply_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that does not stop talking does not fill the memory, and is not asked again."""
    monkeypatch.setattr(openai_transport, "REPLY_BYTES_MAX", 1000)

    outcome = attempt(says(chat("x" * 1000)))

    assert outcome.verdict == ("reply_too_large", False, Billing.UNKNOWN)
