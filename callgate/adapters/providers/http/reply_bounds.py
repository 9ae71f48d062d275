"""
Limits on what one reply of a provider may cost this process: bytes, memory, time and decoding.

`bound_replies` is an httpx response hook. It replaces the response's stream before anything is read from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import aiohttp
import httpx2

from callgate.adapters.providers.http.decompression import Inflater
from callgate.adapters.providers.http.failures import ReplyTooLarge

REPLY_MAX_BYTES = 8 * 2**20
"""
Twice the size of a million tokens, the most that one answer may have.

The ledger must be able to store a reply within its deadline. A reply stored as ASCII JSON can be three times as large.
"""
SHORT_REPLY_BYTES = 64 * 1024
"""Replies up to this size are read without a limit on their number."""
LONG_REPLIES_MAX = 8
"""Longer replies of one provider that are read at the same time: 64 MiB together."""
REFUSAL_MAX_S = 2.0
"""How long the body of a refusal is waited for. Its status is known already and must not be lost to the deadline."""
REFUSAL_MAX_BYTES = 64 * 1024
"""A longer body of a refusal is cut: the status decides the bill, and the SDK parses the body without limits."""
CODINGS_MAX = 4
"""Content codings that are undone in one reply."""
COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate"})
UNKNOWN_CODING = "x-callgate-unknown-coding"
"""callgate's own header on a reply whose Content-Encoding was not undone: the codings that it named."""

Decode = Callable[[bytes, int], bytes]
"""Decodes the next piece of a reply, to at most the given number of bytes."""


def bound_replies() -> Callable[[httpx2.Response], Awaitable[None]]:
    """Return a response hook that limits the replies of one provider, each alone and all together."""
    long_replies = asyncio.Semaphore(LONG_REPLIES_MAX)

    async def bound(response: httpx2.Response) -> None:
        # A provider could choose a charset that takes a second per kilobyte, as punycode does. JSON is UTF-8.
        response.encoding = "utf-8"
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _bounded(response, response.stream, long_replies)

    return bound


def _bounded(
    response: httpx2.Response, stream: httpx2.AsyncByteStream, long_replies: asyncio.Semaphore
) -> httpx2.AsyncByteStream:
    """The stream of a response, decoded here: httpx would inflate a megabyte to a gigabyte without a limit."""
    codings = _codings(response.headers.pop("content-encoding", ""))
    decoders: list[Decode | None] = [None]
    if len(codings) <= CODINGS_MAX and COMPRESSIONS.issuperset(codings):
        decoders += [Inflater().inflate for _ in codings]
    else:
        # The body may be plain anyway: some servers write a charset into this header.
        response.headers[UNKNOWN_CODING] = ", ".join(codings)
    for decode in decoders:
        stream = _LimitedStream(stream, decode)
    return _WholeReply(stream, long_replies) if response.is_success else _RefusalBody(stream)


def _codings(content_encoding: str) -> list[str]:
    """The names in a Content-Encoding header, lower case, in the order applied. Source: RFC 9110, 8.4."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    return [name for name in names if name not in ("", "identity")]


class _LimitedStream(httpx2.AsyncByteStream):
    """A reply's bytes after one decoder, or none. It raises `ReplyTooLarge` above `REPLY_MAX_BYTES`."""

    def __init__(self, stream: httpx2.AsyncByteStream, decode: Decode | None = None) -> None:
        self._stream = stream
        self._decode = decode

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = REPLY_MAX_BYTES
        async for chunk in self._stream:
            plain = chunk if self._decode is None else self._decode(chunk, left + 1)
            left -= len(plain)
            if left < 0:
                raise ReplyTooLarge(f"more than {REPLY_MAX_BYTES} bytes")
            yield plain

    async def aclose(self) -> None:
        await self._stream.aclose()


class _WholeReply(httpx2.AsyncByteStream):
    """
    A successful reply, yielded as one piece: a list of a million chunks would need many times its size.

    At most `LONG_REPLIES_MAX` long replies are read at the same time. The others wait and keep their connections.
    """

    def __init__(self, stream: httpx2.AsyncByteStream, long_replies: asyncio.Semaphore) -> None:
        self._stream = stream
        self._long_replies = long_replies
        self._is_long = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = bytearray()
        async for chunk in self._stream:
            if not self._is_long and len(read) + len(chunk) > SHORT_REPLY_BYTES:
                await self._long_replies.acquire()
                self._is_long = True
            read += chunk
        yield bytes(read)

    async def aclose(self) -> None:
        if self._is_long:
            self._is_long = False
            self._long_replies.release()
        await self._stream.aclose()


class _RefusalBody(httpx2.AsyncByteStream):
    """The body of a refusal, as far as it can be read in time and size. It never raises: the status is enough."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = bytearray()
        with suppress(httpx2.HTTPError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(REFUSAL_MAX_S):
                async for chunk in self._stream:
                    read += chunk
                    if len(read) > REFUSAL_MAX_BYTES:
                        break
        yield bytes(read[:REFUSAL_MAX_BYTES])

    async def aclose(self) -> None:
        await self._stream.aclose()
