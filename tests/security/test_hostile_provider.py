"""
A provider that was taken over: what it sends stops no call but its own, is kept nowhere, and comes back to nobody.

Callers share one event loop, as in a worker: those of the hostile provider, those of an honest one, and a clock.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from callgate.adapters.providers.openai import transport as openai_transport
from callgate.adapters.providers.openai.openai_adapter import OpenAIAdapter
from callgate.domain.provider import Billing, Failure, ProviderReply
from tests.contract.openai_attempts import ATTEMPT, Outcome, a_request, attempt, forget_proxies
from tests.contract.provider_worlds import (
    Exchange,
    Received,
    SocketServer,
    adapter_for,
    chat,
    http,
    says,
    sends,
    until,
)

MIB = 2**20
PATIENCE_S = 30.0
LAG_MAX_S = 0.5
"""Far below what each of these attacks cost, far above what a busy machine's scheduler does."""
Answer = ProviderReply | Failure


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_proxies(monkeypatch)


async def ask(
    provider: OpenAIAdapter, org: str = "acme", timeout_s: float = PATIENCE_S, **fields: Any
) -> Answer:
    """One attempt of an organisation's."""
    request = a_request(**fields).model_copy(update={"org_id": org})
    return await provider.complete(request, attempt_id=ATTEMPT, timeout_s=timeout_s)


# Cookies, and whatever else could come back.

COOKIES = "".join(f"Set-Cookie: c{n}={'x' * 3_500}; Path=/; Max-Age=99999\r\n" for n in range(100))
"""As many and as long as one response may bring."""


def sets_cookies(status: int) -> Exchange:
    """Answer with a hundred cookies, other ones each time, and with everything else that clients are known to keep."""
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
def test_no_cookie_comes_back(monkeypatch: pytest.MonkeyPatch, way: str, status: int) -> None:
    """After 205 replies each request would carry as many cookies as a server takes, also another organisation's."""

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
        # The SDK tells the server how long it waits.
        kept = request.headers.items() - first.headers.items()
        assert {name for name, _ in kept} <= {"x-stainless-read-timeout"}


# What takes long to read.


@dataclass
class Lag:
    """The longest time in which the event loop ran nothing else."""

    longest_s: float = 0.0
    answered: list[float] = field(default_factory=list)
    """Seconds that each call of the honest provider took meanwhile."""


@asynccontextmanager
async def bystander() -> AsyncIterator[Lag]:
    """An honest provider that is called all the time by somebody else, and a clock beside it."""
    lag = Lag()

    async def watch() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            lag.longest_s = max(lag.longest_s, time.monotonic() - begun - 0.005)

    async def call(provider: OpenAIAdapter) -> None:
        while True:
            begun = time.monotonic()
            assert isinstance(await ask(provider, "globex"), ProviderReply)
            lag.answered.append(time.monotonic() - begun)

    async with SocketServer(says(chat())) as server, adapter_for(server.base_url) as provider:
        await ask(provider)
        tasks = [asyncio.create_task(watch()), asyncio.create_task(call(provider))]
        await asyncio.sleep(0)
        try:
            yield lag
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


def many(body: bytes) -> bytes:
    """A reply whose last member is a usage that can be true."""
    usage = b'"usage": {"prompt_tokens": 9, "completion_tokens": 1}'
    return b'{"choices": ' + body + b", " + usage + b"}"


DEAR: dict[str, bytes] = {
    "lists": many(b"[" + b"[]," * (2 * MIB) + b"[]]"),
    "mappings": many(b"[" + b"{}," * (2 * MIB) + b"{}]"),
    "texts": many(b"[" + b'"",' * (2 * MIB) + b'""]'),
    "names": many(b"{" + b",".join(b'"%x":1' % n for n in range(MIB // 2)) + b"}"),
    "a nest": many(b"[" * MIB + b"]" * MIB),
    "quotes": many(b"[" + b'""' * (2 * MIB) + b"]"),
    "ends": b"]" * (7 * MIB),
    "choices": many(b"[" + b'{"message":{"content":"x"}},' * (MIB // 4) + b"{}]"),
    "UTF-16": b"\xff\xfe" + ("[" + '"\u2222",' * MIB + "0]").encode("utf-16-le"),
}


@pytest.mark.parametrize("what", DEAR)
def test_a_reply_that_is_dear_to_read_stops_nobody_else(what: str) -> None:
    """Four at a time: the loop goes on, another provider's calls are answered, and no gigabyte is needed."""

    async def run() -> tuple[list[Answer], Lag]:
        async with (
            SocketServer(sends(http(DEAR[what]))) as server,
            adapter_for(server.base_url) as hostile,
            bystander() as lag,
        ):
            return await asyncio.gather(*(ask(hostile) for _ in range(4))), lag

    answers, lag = asyncio.run(run())

    assert lag.longest_s < LAG_MAX_S
    assert len(lag.answered) > 3
    for answer in answers:
        failure = answer.failure if isinstance(answer, ProviderReply) else answer
        assert failure is not None
        assert failure.code in ("reply_too_large", "invalid_response")


@pytest.mark.parametrize("what", ["lists", "a nest", "choices"])
def test_a_reply_that_is_dear_to_read_is_paid_by_its_usage(what: str) -> None:
    """It was made, and says what it cost; it is not asked for again."""
    answer = attempt(sends(http(DEAR[what]))).answer

    assert isinstance(answer, ProviderReply)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (9, 1)
    assert answer.failure is not None
    assert answer.failure.billing is Billing.BY_USAGE
    assert not answer.failure.retryable


@pytest.mark.parametrize(
    "usage", [b"", b'"usage": 7', b'"usage": {"prompt_tokens": ', b'"usage":{"a":' * 9999]
)
def test_a_reply_that_is_dear_to_read_and_names_no_usage_costs_its_hold(usage: bytes) -> None:
    """Nobody knows what it cost."""
    body = b'{"choices": [' + b"[]," * MIB + b"[]], " + usage + b"}"

    assert attempt(sends(http(body))).verdict == ("reply_too_large", False, Billing.UNKNOWN)


def test_reading_does_not_build_what_it_refuses() -> None:
    """Six megabytes of lists are two hundred as objects."""
    body = DEAR["lists"]
    tracemalloc.start()
    try:
        attempt(sends(http(body)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 12 * len(body)


def _wrapped(text: str) -> bytes:
    return json.dumps(chat(text)).encode()


WRAPPED: dict[str, bytes] = {
    "spaces": _wrapped("```" + " " * MIB + "x"),
    "ticks": _wrapped("`" * MIB),
    "a name": _wrapped("```" + "a" * MIB + " " * MIB + "x"),
    "thoughts": _wrapped("<think>" * (MIB // 8)),
    "ends of thoughts": _wrapped("</think>" * (MIB // 8)),
}


@pytest.mark.parametrize("what", WRAPPED)
def test_an_answer_is_unwrapped_in_no_time(what: str) -> None:
    """A megabyte of spaces behind a fence was tried in a trillion ways."""

    async def run() -> tuple[Answer, Lag]:
        async with (
            SocketServer(sends(http(WRAPPED[what]))) as server,
            adapter_for(server.base_url, unwraps=["think", "fence"]) as hostile,
            bystander() as lag,
        ):
            request = a_request(response_schema={"type": "object"})
            answer = await hostile.complete(request, attempt_id=ATTEMPT, timeout_s=PATIENCE_S)
            return answer, lag

    answer, lag = asyncio.run(run())

    assert isinstance(answer, ProviderReply)
    assert lag.longest_s < LAG_MAX_S


@pytest.mark.parametrize(
    "data",
    [
        http(b"a" * 500_000, status=400, headers={"content-type": "text/plain; charset=punycode"}),
        http(b"[" * MIB, status=400),
        http(b"[]," * MIB, status=500),
        http(
            gzip.compress(gzip.compress(b"") * 10**5),
            status=429,
            headers={"content-encoding": "gzip, gzip"},
        ),
        http(
            gzip.compress(gzip.compress(b"") * 300_000),
            headers={"content-encoding": "gzip, gzip"},
        ),
        http(b"", status=429, headers={"retry-after": "1" * 4_000, "date": "1 " * 2_000}),
    ],
    ids=["punycode", "a nest", "lists", "members of a refusal", "members", "a wait"],
)
def test_other_bytes_that_are_dear_to_read_stop_nobody_else(data: bytes) -> None:
    """Charsets, words of refusals, compressed nothing, headers."""

    async def run() -> tuple[Answer, Lag]:
        async with (
            SocketServer(sends(data, then_close=True)) as server,
            adapter_for(server.base_url) as hostile,
            bystander() as lag,
        ):
            return await ask(hostile), lag

    answer, lag = asyncio.run(run())

    assert isinstance(answer, Failure)
    assert lag.longest_s < LAG_MAX_S


# What is large, or does not end.


async def _headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10**6):
        writer.write(b"X-%d: %s\r\n" % (number, b"x" * 3_000))
        await writer.drain()


async def _one_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x" * 4_000)
        await writer.drain()


async def _trailers(writer: asyncio.StreamWriter) -> None:
    body = json.dumps(chat()).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"%x\r\n%s\r\n0\r\n" % (len(body), body))
    for number in range(10**6):
        writer.write(b"X-%d: %s\r\n" % (number, b"x" * 3_000))
        await writer.drain()


async def _chunk_extension(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=")
    while True:
        writer.write(b"x" * 4_000)
        await writer.drain()


async def _small_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"2\r\n  \r\n" * 500)
        await writer.drain()


async def _continues(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        await writer.drain()


async def _hints(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: a=" + b"x" * 3_000 + b"\r\n\r\n")
        await writer.drain()


async def _body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 64 * 1024)
        await writer.drain()


async def _words(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
    while True:
        writer.write(b" " * 64 * 1024)
        await writer.drain()


async def _bytes(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await asyncio.sleep(0.02)


ENDLESS: dict[str, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {
    "headers": _headers,
    "one header": _one_header,
    "trailers": _trailers,
    "a chunk's extension": _chunk_extension,
    "small chunks": _small_chunks,
    "continues": _continues,
    "early hints": _hints,
    "a body": _body,
    "words of a refusal": _words,
    "a byte at a time": _bytes,
}


@contextmanager
def endless(what: str) -> Iterator[str]:
    """The address of a server that does not end, in a thread of its own: what it costs is not the worker's."""
    started: Future[str] = Future()
    loop = asyncio.new_event_loop()

    async def exchange(_received: Received, writer: asyncio.StreamWriter) -> None:
        await ENDLESS[what](writer)

    async def serve() -> None:
        async with SocketServer(exchange) as server:
            started.set_result(server.base_url)
            await over.wait()

    over = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield started.result(10)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


async def endured(url: str, timeout_s: float = 1.0) -> tuple[list[Answer], Lag]:
    """Eight calls to such a server, beside somebody else's."""
    async with adapter_for(url) as hostile, bystander() as lag:
        return await asyncio.gather(*(ask(hostile, timeout_s=timeout_s) for _ in range(8))), lag


@pytest.mark.parametrize("what", ENDLESS)
def test_what_does_not_end_is_given_up_on(what: str) -> None:
    """At its deadline at the latest, and others are answered meanwhile."""
    begun = time.monotonic()
    with endless(what) as url:
        answers, lag = asyncio.run(endured(url))

    assert time.monotonic() - begun < 10
    assert lag.longest_s < 3 * LAG_MAX_S
    assert len(lag.answered) > 1
    assert all(isinstance(answer, Failure) for answer in answers)


@pytest.mark.parametrize("what", ["headers", "trailers", "small chunks", "a body"])
def test_what_does_not_end_does_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Of eight calls not even what three replies may have."""
    monkeypatch.setattr(openai_transport, "REPLY_BYTES_MAX", MIB)
    with endless(what) as url:
        tracemalloc.start()
        try:
            asyncio.run(endured(url, timeout_s=2.0))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 24 * MIB


def test_few_long_replies_are_read_at_a_time() -> None:
    """The others wait for them and fail for nothing; short ones pass, and other providers' calls too."""
    sent, gathered = 0, asyncio.Event()

    async def exchange(received: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        is_long = b"long" in received.body
        body = http(json.dumps(chat("x" * MIB if is_long else "short")).encode())
        writer.write(body[:-1])
        await writer.drain()
        sent += is_long
        if is_long:
            await gathered.wait()
        writer.write(body[-1:])
        await writer.drain()

    async def run() -> tuple[list[Answer], Answer, Lag]:
        async with (
            SocketServer(exchange) as server,
            adapter_for(server.base_url) as hostile,
            bystander() as lag,
        ):
            asked = [asyncio.create_task(ask(hostile, prompt="long")) for _ in range(20)]
            await until(lambda: sent >= openai_transport.LONG_REPLIES_MAX)
            short = await ask(hostile)
            gathered.set()
            return await asyncio.gather(*asked), short, lag

    answers, short, lag = asyncio.run(run())

    assert all(isinstance(answer, ProviderReply) for answer in (*answers, short))
    assert len(lag.answered) > 1


# What it says, and where that goes.

KEY = "sk-test-Zq3vXw9LmB7cRt5yUk2PdF8h"
FORMS = (KEY, KEY[::-1], KEY.encode().hex(), " ".join(KEY))


def quotes(form: str, status: int) -> bytes:
    """A response that has this wherever there is room for it."""
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
    """By no library, at the levels that a worker logs at; nor is it in a failure."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx2", "httpcore2", "openai"):
        caplog.set_level(logging.WARNING, name)

    for form in FORMS:
        data = quotes(form, status)
        outcomes: list[Outcome] = [
            attempt(sends(data, then_close=True), key=KEY),
            attempt(sends(data.replace(b"HTTP/1.1", b"HTTP/" + form.encode())), key=KEY),
            attempt(sends(b"%s\r\n\r\n" % form.encode(), then_close=True), key=KEY),
        ]
        for outcome in outcomes:
            if isinstance(outcome.answer, Failure):
                assert form not in outcome.answer.to_json()

    written = caplog.text + "".join(capfd.readouterr())
    assert not [form for form in FORMS if form in written]
