"""
The OpenAI adapter knows whether a request was sent. A failure before that is unbilled.

Each path to a provider (TLS, tunnel, proxy) is broken at each step, and once after the request, where the bill is
unknown.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from callgate.adapters.providers.http.request_body import RequestBody
from callgate.adapters.providers.openai.openai_adapter import OpenAIAdapter
from callgate.domain.access import Access
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.support.certificates import self_signed
from tests.support.openai_attempts import (
    ATTEMPT,
    TIMEOUT_S,
    AttemptResult,
    a_request,
    attempt,
    attempt_at,
)
from tests.support.provider_worlds import (
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
    sends,
    sends_json,
)

ANYWHERE = "https://provider.invalid/v1"
BY_TLS = "https://localhost:{}/v1".format
NOTHING = Received("", {}, b"")
Proxied = Callable[..., AttemptResult]


pytestmark = pytest.mark.usefixtures("no_proxies")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The servers' certificate with its key."""
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
    """A proxy that accepts CONNECT. `then` runs inside the tunnel."""

    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        if then is not None:
            await then(reader, writer)

    return greeting


def _at_connect(exchange: Exchange) -> Greeting:
    """A proxy that answers CONNECT with this exchange."""

    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert KEY.encode() not in head
        await exchange(NOTHING, writer)

    return greeting


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Proxied:
    """Makes one attempt through a proxy server of the test."""

    def through(
        exchange: Exchange,
        greeting: Greeting | None = None,
        *,
        base_url: str = ANYWHERE,
        proxy: Callable[[int], str] = "http://127.0.0.1:{}".format,
        timeout_s: float = TIMEOUT_S,
    ) -> AttemptResult:
        async def made() -> AttemptResult:
            async with SocketServer(exchange, greeting) as server:
                monkeypatch.setenv("ALL_PROXY", proxy(server.port))
                async with adapter_for(base_url) as provider:
                    answer = await provider.complete(
                        a_request(), attempt_id=ATTEMPT, timeout_s=timeout_s
                    )
                    return AttemptResult(answer, server.received, server.connections)

        return asyncio.run(made())

    return through


def code_and_billing(outcome: AttemptResult) -> tuple[str, Billing]:
    """Code and billing of a retryable failure."""
    code, retryable, billing = outcome.classification
    assert retryable
    return code, billing


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
def test_a_failed_connect_is_unbilled(proxied: Proxied, exchange: Exchange, code: str) -> None:
    """The CONNECT line itself costs nothing."""
    outcome = proxied(hangs, _at_connect(exchange), timeout_s=2.0)

    assert code_and_billing(outcome) == (code, Billing.UNBILLED)
    assert outcome.received == []


async def _talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(1)
    writer.write(b"220 mail.invalid ESMTP\r\n")


@pytest.mark.parametrize(
    ("then", "codes"),
    [
        (_talks, {"tls_failed"}),
        (closes, {"connection_failed", "tls_failed"}),
        (hangs, {"connect_timeout"}),
    ],
    ids=["no_tls", "closes", "hangs"],
)
def test_a_failed_tls_handshake_in_a_tunnel_is_unbilled(
    proxied: Proxied, then: Greeting, codes: set[str]
) -> None:
    """The request is sent after the handshake."""
    code, billing = code_and_billing(proxied(hangs, _tunnel(then), timeout_s=2.0))

    assert code in codes
    assert billing is Billing.UNBILLED


@pytest.mark.parametrize("is_proxied", [True, False], ids=["tunnel", "direct"])
def test_an_untrusted_certificate_is_unbilled(
    proxied: Proxied, certificate: Path, is_proxied: bool
) -> None:
    """The server gets a TLS alert and no request."""
    greeting = _speaks_tls(certificate)

    outcome = (
        proxied(hangs, _tunnel(greeting)) if is_proxied else attempt(hangs, greeting, url=BY_TLS)
    )

    assert code_and_billing(outcome) == ("tls_failed", Billing.UNBILLED)
    assert outcome.received == []


@pytest.mark.parametrize(
    ("exchange", "code"),
    [(closes, "connection_lost"), (resets, "connection_lost"), (hangs, "timeout")],
    ids=["closes", "resets", "hangs"],
)
@pytest.mark.parametrize("way", ["tls", "tunnel", "proxy"])
def test_a_failure_after_the_request_has_an_unknown_bill(
    proxied: Proxied, tls: Greeting, way: str, exchange: Exchange, code: str
) -> None:
    """The provider, or the proxy, has read the whole request."""
    if way == "tls":
        outcome = attempt(exchange, tls, url=BY_TLS, timeout_s=2.0)
    elif way == "tunnel":
        outcome = proxied(exchange, _tunnel(tls), timeout_s=2.0)
    else:
        outcome = proxied(exchange, base_url="http://provider.invalid/v1", timeout_s=2.0)

    assert code_and_billing(outcome) == (code, Billing.UNKNOWN)
    assert (len(outcome.received), outcome.connections) == (1, 1)


@pytest.mark.parametrize("way", ["tunnel", "tls proxy"])
def test_both_kinds_of_proxy_work(proxied: Proxied, tls: Greeting, way: str) -> None:
    """The control for the tests above: the same paths without a fault, with a proxy over HTTP and over TLS."""
    if way == "tunnel":
        outcome = proxied(sends_json(chat()), _tunnel(tls))
    else:
        outcome = proxied(
            sends_json(chat()),
            tls,
            base_url="http://provider.invalid/v1",
            proxy="https://localhost:{}".format,
        )

    assert isinstance(outcome.answer, ProviderReply)
    assert len(outcome.received) == 1


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
def test_a_client_that_cannot_be_made_is_unbilled(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """It is retryable: a certificate file can be replaced, a mount can come back."""
    monkeypatch.setenv(variable, value)

    outcome = attempt_at(ANYWHERE)

    assert code_and_billing(outcome) == ("client_failed", Billing.UNBILLED)
    assert isinstance(outcome.answer, Failure)
    assert "secret" not in outcome.answer.message


def test_a_client_is_made_when_the_fault_is_gone(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    """Failed tries leave nothing behind."""

    async def made() -> list[object]:
        async with (
            SocketServer(sends_json(chat()), _speaks_tls(certificate)) as server,
            adapter_for(BY_TLS(server.port)) as provider,
        ):
            answers: list[object] = []
            for file in ("/nonexistent/ca.pem", "/nonexistent/ca.pem", str(certificate)):
                monkeypatch.setenv("SSL_CERT_FILE", file)
                answers.append(
                    await provider.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)
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
def test_an_address_that_the_transport_refuses_is_unbilled(url: str) -> None:
    outcome = attempt(hangs, url=url.format)

    assert outcome.classification[2] is Billing.UNBILLED
    assert outcome.connections == 0


def test_failing_credentials_are_unbilled() -> None:
    """An unreachable vault is retryable, and its error text is not shown."""

    class Away:
        def access(self, provider: str, org_id: str) -> Access:
            raise ConnectionError("the vault has secrets in its words")

    async def asked() -> Failure | ProviderReply:
        adapter = OpenAIAdapter("openai", ProviderEntry(), Away())
        return await adapter.complete(a_request(), attempt_id=ATTEMPT, timeout_s=TIMEOUT_S)

    answer = asyncio.run(asked())

    assert isinstance(answer, Failure)
    assert (answer.retryable, answer.billing) == (True, Billing.UNBILLED)
    assert "secrets" not in answer.message


def test_a_request_body_is_sent_at_most_once() -> None:
    """Not twice, and not after `withdraw` has reported it as unsent."""

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
