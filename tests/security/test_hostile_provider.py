"""Nothing that a hostile provider sends is kept for the next request, or logged."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from callgate.domain.provider import Failure
from tests.support.hostile_provider import ask
from tests.support.openai_attempts import AttemptResult, attempt
from tests.support.provider_worlds import (
    Exchange,
    Received,
    SocketServer,
    adapter_for,
    chat,
    http,
    sends,
)

pytestmark = pytest.mark.usefixtures("no_proxies")


COOKIES = "".join(f"Set-Cookie: c{n}={'x' * 3_500}; Path=/; Max-Age=99999\r\n" for n in range(100))
"""As many and as long as the header limits allow."""


def sets_cookies(status: int) -> Exchange:
    """Answer with a hundred new cookies, and with every other header that clients may remember."""
    numbers = iter(range(10**6))

    async def exchange(_received: Received, writer: asyncio.StreamWriter) -> None:
        body = json.dumps(chat()).encode()
        head = COOKIES.replace("Set-Cookie: c", f"Set-Cookie: c{next(numbers)}_")
        writer.write(
            f"HTTP/1.1 {status} Status\r\nContent-Length: {len(body)}\r\n{head}"
            "Set-Cookie2: old=1; Version=1\r\n"
            'Alt-Svc: h2="127.0.0.1:1"; ma=99999\r\n'
            "Strict-Transport-Security: max-age=99999; includeSubDomains\r\n"
            'WWW-Authenticate: Basic realm="x"\r\n'
            "Location: http://127.0.0.1:1/elsewhere\r\n"
            "Refresh: 0; url=http://127.0.0.1:1/\r\n\r\n".encode()
            + body
        )
        await writer.drain()

    return exchange


@pytest.mark.parametrize("status", [200, 307, 401, 500])
@pytest.mark.parametrize("way", ["direct", "proxy"])
def test_no_cookie_is_sent_back(monkeypatch: pytest.MonkeyPatch, way: str, status: int) -> None:
    """With cookies kept, requests would become too large after 205 replies, also for another organisation."""

    rounds = 205 if (way, status) == ("direct", 200) else 3

    async def run() -> list[Received]:
        async with SocketServer(sets_cookies(status)) as server:
            url = server.base_url
            if way == "proxy":
                monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
                url = "http://provider.invalid/v1"
            async with adapter_for(url) as provider:
                for number in range(rounds):
                    await ask(provider, f"org-{number % 2}")
            return server.received

    first, *later = asyncio.run(run())

    assert len(later) == rounds - 1, "a request was too large for the server"
    for request in later:
        assert request.head == first.head
        # The SDK sends its timeout.
        kept = request.headers.items() - first.headers.items()
        assert {name for name, _ in kept} <= {"x-stainless-read-timeout"}


KEY = "sk-test-Zq3vXw9LmB7cRt5yUk2PdF8h"
FORMS = (KEY, KEY[::-1], KEY.encode().hex(), " ".join(KEY))


def quotes(form: str, status: int) -> bytes:
    """A response with this text in every field and header."""
    error = dict.fromkeys(("message", "code", "type", "param", "status"), form)
    names = dict.fromkeys(("id", "model", "service_tier", "system_fingerprint", "object"), form)
    choice: dict[str, Any] = {"message": {"content": "x"}, "finish_reason": form}
    body = {**names, "error": error} if status != 200 else {**names, "choices": [choice]}
    headers = dict.fromkeys(
        ("x-request-id", "set-cookie", "retry-after", "content-type", "server", "location"), form
    )
    return http(json.dumps(body).encode(), status=status, headers=headers)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_nothing_a_provider_quotes_is_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    """Neither by a library at a worker's log levels, nor in a failure."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx2", "httpcore2", "openai"):
        caplog.set_level(logging.WARNING, name)

    for form in FORMS:
        data = quotes(form, status)
        outcomes: list[AttemptResult] = [
            attempt(sends(data, then_close=True), key=KEY),
            attempt(sends(data.replace(b"HTTP/1.1", b"HTTP/" + form.encode())), key=KEY),
            attempt(sends(b"%s\r\n\r\n" % form.encode(), then_close=True), key=KEY),
        ]
        for outcome in outcomes:
            if isinstance(outcome.answer, Failure):
                assert form not in outcome.answer.to_json()

    written = caplog.text + "".join(capfd.readouterr())
    assert not [form for form in FORMS if form in written]
