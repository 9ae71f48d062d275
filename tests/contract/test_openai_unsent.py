"""
The OpenAI adapter knows whether anything of a request was sent: what fails before costs nothing, whatever it is.

Each way to a provider is broken at each of its steps, and once after the last one, where the same failure costs.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from callgate.adapters.providers.openai.openai_adapter import OpenAIAdapter
from callgate.adapters.providers.openai.transport import RequestBody
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.contract.openai_attempts import (
    ATTEMPT,
    PATIENCE_S,
    Outcome,
    a_request,
    attempt,
    attempt_at,
    forget_proxies,
)
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
    resets,
    says,
    sends,
)
from tests.support.certificates import self_signed

ANYWHERE = "https://provider.invalid/v1"
BY_TLS = "https://localhost:{}/v1".format
NOTHING = Received("", {}, b"")
Proxied = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of the servers, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"), "localhost", "provider.invalid")


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Greeting:
    """A greeting with a TLS handshake, and a client that trusts the server."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    return _speaks_tls(certificate)


def _speaks_tls(certificate: Path) -> Greeting:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def greeting(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(context)

    return greeting


def _tunnel(then: Greeting | None = None) -> Greeting:
    """A proxy that accepts CONNECT; what follows in the tunnel is `then`."""

    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if then is not None:
            await then(reader, writer)

    return greeting


def _at_connect(exchange: Exchange) -> Greeting:
    """A proxy that does this with CONNECT."""

    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert KEY.encode() not in head
        await exchange(NOTHING, writer)

    return greeting


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Proxied:
    """Make one attempt through a proxy of ours."""

    def through(
        exchange: Exchange,
        greeting: Greeting | None = None,
        *,
        base_url: str = ANYWHERE,
        proxy: Callable[[int], str] = "http://127.0.0.1:{}".format,
        timeout_s: float = PATIENCE_S,
    ) -> Outcome:
        async def made() -> Outcome:
            async with SocketServer(exchange, greeting) as server:
                monkeypatch.setenv("ALL_PROXY", proxy(server.port))
                async with adapter_for(base_url) as provider:
                    answer = await provider.complete(
                        a_request(), attempt_id=ATTEMPT, timeout_s=timeout_s
                    )
                    return Outcome(answer, server.received, server.connections)

        return asyncio.run(made())

    return through


def told(outcome: Outcome) -> tuple[str, Billing]:
    """What a failure that can pass says."""
    code, retryable, billing = outcome.verdict
    assert retryable
    return code, billing


# A proxy at CONNECT.


@pytest.mark.parametrize(
    ("exchange", "code"),
    [
        (closes, "connection_failed"),
        (resets, "connection_failed"),
        (hangs, "connect_timeout"),
        (sends(b"SSH-2.0-OpenSSH_9.2\r\n", then_close=True), "proxy_failed"),
        (sends(b"HTTP/1.1 200 Conn", then_close=True), "connection_failed"),
        (sends(b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n"), "proxy_failed"),
        (sends(b"HTTP/1.1 407 Denied\r\nContent-Length: 0\r\n\r\n"), "proxy_failed"),
        (sends(b"HTTP/1.1 502 Bad Gateway\r\n\r\n", then_close=True), "proxy_failed"),
    ],
    ids=["closes", "resets", "hangs", "no_http", "half", "302", "407", "502"],
)
def test_a_proxy_that_makes_no_tunnel_is_free(
    proxied: Proxied, exchange: Exchange, code: str
) -> None:
    """The request would have gone through the tunnel; the line that asks for one costs nothing."""
    outcome = proxied(hangs, _at_connect(exchange), timeout_s=2.0)

    assert told(outcome) == (code, Billing.UNBILLED)
    assert outcome.received == []


async def _talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(1)
    writer.write(b"220 mail.invalid ESMTP\r\n")


async def _leaves(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _waits(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("then", "codes"),
    [
        (_talks, {"tls_failed"}),
        (_leaves, {"connection_failed", "tls_failed"}),
        (_waits, {"connect_timeout"}),
    ],
    ids=["no_tls", "closes", "hangs"],
)
def test_a_tunnel_that_leads_to_no_tls_is_free(
    proxied: Proxied, then: Greeting, codes: set[str]
) -> None:
    """The request follows the handshake."""
    code, billing = told(proxied(hangs, _tunnel(then), timeout_s=2.0))

    assert code in codes
    assert billing is Billing.UNBILLED


@pytest.mark.parametrize("is_proxied", [True, False], ids=["tunnel", "direct"])
def test_a_certificate_nobody_trusts_is_free(
    proxied: Proxied, certificate: Path, is_proxied: bool
) -> None:
    """Its server hears an alert, and no request."""
    greeting = _speaks_tls(certificate)

    outcome = (
        proxied(hangs, _tunnel(greeting)) if is_proxied else attempt(hangs, greeting, url=BY_TLS)
    )

    assert told(outcome) == ("tls_failed", Billing.UNBILLED)
    assert outcome.received == []


# The same ways, once the request was sent.


@pytest.mark.parametrize(
    ("exchange", "code"),
    [(closes, "connection_lost"), (resets, "connection_lost"), (hangs, "timeout")],
    ids=["closes", "resets", "hangs"],
)
@pytest.mark.parametrize("way", ["tls", "tunnel", "proxy"])
def test_what_breaks_after_the_request_costs(
    proxied: Proxied, tls: Greeting, way: str, exchange: Exchange, code: str
) -> None:
    """The provider, or the proxy, has read it whole."""
    if way == "tls":
        outcome = attempt(exchange, tls, url=BY_TLS, timeout_s=2.0)
    elif way == "tunnel":
        outcome = proxied(exchange, _tunnel(tls), timeout_s=2.0)
    else:
        outcome = proxied(exchange, base_url="http://provider.invalid/v1", timeout_s=2.0)

    assert told(outcome) == (code, Billing.UNKNOWN)
    assert (len(outcome.received), outcome.connections) == (1, 1)


@pytest.mark.parametrize("way", ["tunnel", "tls proxy"])
def test_the_way_that_is_broken_above_works(proxied: Proxied, tls: Greeting, way: str) -> None:
    """Both kinds of proxy that the worker lets pass at its start: spoken to in plain HTTP, or in TLS."""
    if way == "tunnel":
        outcome = proxied(says(chat()), _tunnel(tls))
    else:
        outcome = proxied(
            says(chat()),
            tls,
            base_url="http://provider.invalid/v1",
            proxy="https://localhost:{}".format,
        )

    assert isinstance(outcome.answer, ProviderReply)
    assert len(outcome.received) == 1


# Before there is a connection.


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSL_CERT_FILE", "/nonexistent/ca.pem"),
        ("SSL_CERT_FILE", "/dev/null"),
        ("ALL_PROXY", "socks://127.0.0.1:9/"),
        ("HTTPS_PROXY", "http://bob:secret#1@127.0.0.1:9"),
        ("NO_PROXY", "xn--"),
    ],
)
def test_a_client_that_cannot_be_made_is_free(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """It may be possible later: a certificate file is replaced, a mount comes back."""
    monkeypatch.setenv(variable, value)

    outcome = attempt_at(ANYWHERE)

    assert told(outcome) == ("client_failed", Billing.UNBILLED)
    assert isinstance(outcome.answer, Failure)
    assert "secret" not in outcome.answer.message


def test_a_client_is_made_once_it_can_be(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    """Nothing is left behind of those that could not."""

    async def made() -> list[object]:
        async with (
            SocketServer(says(chat()), _speaks_tls(certificate)) as server,
            adapter_for(BY_TLS(server.port)) as provider,
        ):
            answers: list[object] = []
            for file in ("/nonexistent/ca.pem", "/nonexistent/ca.pem", str(certificate)):
                monkeypatch.setenv("SSL_CERT_FILE", file)
                answers.append(
                    await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
                )
            return answers

    first, second, third = asyncio.run(made())

    assert isinstance(first, Failure)
    assert first == second
    assert isinstance(third, ProviderReply)


@pytest.mark.parametrize(
    "url",
    ["http://bob:secret@127.0.0.1:{}/v1", "http://xn--a:{}/v1"],
    ids=["with_a_password", "no_name"],
)
def test_an_address_that_no_request_can_be_made_of_is_free(url: str) -> None:
    """The transport refuses it in its own way."""
    outcome = attempt(hangs, url=url.format)

    assert outcome.verdict[2] is Billing.UNBILLED
    assert outcome.connections == 0


def test_credentials_that_fail_are_free() -> None:
    """A vault that is away is no reason to post anything."""

    class Away:
        def api_key(self, provider: str, org_id: str) -> str | None:
            raise ConnectionError("the vault has secrets in its words")

    async def asked() -> Failure | ProviderReply:
        adapter = OpenAIAdapter("openai", ProviderEntry(), Away())
        return await adapter.complete(a_request(), attempt_id=ATTEMPT, timeout_s=PATIENCE_S)

    answer = asyncio.run(asked())

    assert isinstance(answer, Failure)
    assert (answer.retryable, answer.billing) == (True, Billing.UNBILLED)
    assert "secrets" not in answer.message


# The body.


def test_a_body_is_handed_out_once() -> None:
    """Neither a second time, nor after somebody relied on its being unsent."""

    async def read(body: RequestBody) -> list[bytes]:
        return [piece async for piece in body]

    sent, withdrawn = RequestBody(b"{}"), RequestBody(b"{}")

    assert asyncio.run(read(sent)) == [b"{}"]
    assert not sent.withdraw()
    assert withdrawn.withdraw()
    for body in (sent, withdrawn):
        with pytest.raises(RuntimeError):
            asyncio.run(read(body))
        assert body.withdraw() == (body is withdrawn)
