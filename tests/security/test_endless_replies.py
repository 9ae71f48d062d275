"""Replies without an end, and many long ones: they cost a bounded time and memory."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from callgate.adapters.providers.http import reply_bounds
from callgate.domain.provider import Failure, ProviderReply
from tests.support.hostile_provider import LAG_MAX_S, MIB, Answer, Lag, ask, bystander
from tests.support.provider_worlds import (
    Received,
    SocketServer,
    adapter_for,
    chat,
    http,
)
from tests.support.waiting import until_async

pytestmark = pytest.mark.usefixtures("no_proxies")


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
    """The address of a server with an endless reply. It runs in its own thread, so that its cost is not measured."""
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


async def call_endless(url: str, timeout_s: float = 1.0) -> tuple[list[Answer], Lag]:
    """Make eight calls to such a server, beside calls to an honest one."""
    async with adapter_for(url) as hostile, bystander() as lag:
        return await asyncio.gather(*(ask(hostile, timeout_s=timeout_s) for _ in range(8))), lag


@pytest.mark.parametrize("what", ENDLESS)
def test_an_endless_reply_ends_at_its_deadline(what: str) -> None:
    """Other calls are answered meanwhile."""
    begun = time.monotonic()
    with endless(what) as url:
        answers, lag = asyncio.run(call_endless(url))

    assert time.monotonic() - begun < 10
    assert lag.longest_s < 3 * LAG_MAX_S
    assert len(lag.answered) > 1
    assert all(isinstance(answer, Failure) for answer in answers)


@pytest.mark.parametrize("what", ["headers", "trailers", "small chunks", "a body"])
def test_endless_replies_use_bounded_memory(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Eight of them use less than 24 MiB with a limit of 1 MiB per reply."""
    monkeypatch.setattr(reply_bounds, "REPLY_MAX_BYTES", MIB)
    with endless(what) as url:
        tracemalloc.start()
        try:
            asyncio.run(call_endless(url, timeout_s=2.0))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < 24 * MIB


def test_long_replies_wait_for_each_other() -> None:
    """None fails. Short replies and other providers' calls are not delayed."""
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
            await until_async(lambda: sent >= reply_bounds.LONG_REPLIES_MAX)
            short = await ask(hostile)
            gathered.set()
            return await asyncio.gather(*asked), short, lag

    answers, short, lag = asyncio.run(run())

    assert all(isinstance(answer, ProviderReply) for answer in (*answers, short))
    assert len(lag.answered) > 1
