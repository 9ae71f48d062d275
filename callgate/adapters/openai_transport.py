"""
The HTTP client below the SDK: what it may use of the environment, what it hands out, and what it lets in.

`RequestBody` knows whether bytes of the request were handed to the transport. aiohttp asks for the body only once there
is a connection (name, proxy's CONNECT and TLS done), and keeps the headers until it has the first piece of it:
`ClientRequest.send`, `StreamWriter.write_headers` and `AsyncIterablePayload.write_with_length` of aiohttp 3.14.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import aiohttp
import httpx2
import openai

from callgate.adapters.openai_errors import ReplyTooLarge

KEEPALIVE_S = 3.0
"""
How long an idle connection is kept. Below the 5 s of uvicorn and Node.js, the shortest common ones.

A connection the server closes first can fail under a request, and nobody can tell then whether it was read.
"""
REPLY_BYTES_MAX = 8 * 2**20
"""
Twice what a million tokens come to, the most one answer may have.

More must not come in than the ledger can take within its deadline, in ASCII three times as much: else its record would
never come to an end.
"""
EXPLANATION_MAX_S = 2.0
"""How long the words of a refusal are waited for, lest the deadline takes the status along."""
CODINGS_MAX = 4
"""How many content codings of one reply are undone; more are nobody's honest answer."""
COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate"})
UNKNOWN_CODING = "x-callgate-unknown-coding"
"""A header of ours on a reply that was left as it came: the codings it names."""
GZIP_START = b"\x1f"
GZIP_WINDOW = 16 + zlib.MAX_WBITS
LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")

Undo = Callable[[bytes, int], bytes]
"""Undoes a coding piece by piece; never returns more bytes than asked for."""


def http_client(connections_max: int) -> httpx2.AsyncClient:
    """
    The client of one event loop.

    Raises:
        Exception: Of any kind, where a variable of the environment cannot be used.
    """
    return openai.DefaultAioHttpClient(
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=connections_max, keepalive_expiry=KEEPALIVE_S),
        mounts=dict.fromkeys(LOOPBACK),
        event_hooks={"response": [_bound_reply]},
    )


class RequestBody:
    """The body of one request, in one piece: handed out once at most."""

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._content: bytes | None = content
        self._is_sent = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content, self._content = self._content, None
        if content is None:
            raise RuntimeError("the request was sent or withdrawn before")
        self._is_sent = True
        yield content

    def withdraw(self) -> bool:
        """Ask whether no byte of the request was handed to the transport; then none will be."""
        self._content = None
        return not self._is_sent


async def _bound_reply(response: httpx2.Response) -> None:
    if isinstance(response.stream, httpx2.AsyncByteStream):
        # httpx would inflate a megabyte to a gigabyte, past every bound.
        stream: httpx2.AsyncByteStream = _BoundedStream(response.stream)
        codings = _codings(response.headers.pop("content-encoding", ""))
        if len(codings) <= CODINGS_MAX and COMPRESSIONS.issuperset(codings):
            for _ in codings:
                stream = _BoundedStream(stream, _Inflation().undo)
        else:
            # It may be plain all the same: some servers name a charset here.
            response.headers[UNKNOWN_CODING] = ", ".join(codings)
        response.stream = stream if response.is_success else _Explanation(stream)


def _codings(content_encoding: str) -> list[str]:
    """The codings of a reply in the order they were applied. Source: RFC 9110, 8.4."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    return [name for name in names if name not in ("", "identity")]


class _BoundedStream(httpx2.AsyncByteStream):
    """A reply's bytes, one coding undone if there is one, up to `REPLY_BYTES_MAX`."""

    def __init__(self, stream: httpx2.AsyncByteStream, undo: Undo | None = None) -> None:
        self._stream = stream
        self._undo = undo

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = REPLY_BYTES_MAX
        async for chunk in self._stream:
            plain = chunk if self._undo is None else self._undo(chunk, left + 1)
            left -= len(plain)
            if left < 0:
                raise ReplyTooLarge(f"more than {REPLY_BYTES_MAX} bytes")
            yield plain

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Explanation(httpx2.AsyncByteStream):
    """The body of a refusal, as far as it can be read: its status alone says what is billed."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = bytearray()
        with suppress(httpx2.HTTPError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(EXPLANATION_MAX_S):
                async for chunk in self._stream:
                    read += chunk
        yield bytes(read)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Inflation:
    """
    Undoes gzip, of any number of members, and deflate, with zlib's header or without.

    The bytes say which of them it is, because servers mix up the names. What follows the end and is no member of
    gzip is padding.

    Source: RFC 1950, 2.2; RFC 1951, 3.2.3; RFC 1952, 2.2.
    """

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None

    def undo(self, data: bytes, bytes_max: int) -> bytes:
        """Inflate the next piece, up to so many bytes; a caller that gets them all has had enough."""
        plain = bytearray()
        try:
            while data and len(plain) < bytes_max:
                if self._stream is None:
                    self._stream = zlib.decompressobj(_window(data[0]))
                elif self._stream.eof:
                    data = data.lstrip(b"\0")
                    if not data.startswith(GZIP_START):
                        break
                    self._stream = zlib.decompressobj(GZIP_WINDOW)
                plain += self._stream.decompress(data, bytes_max - len(plain))
                data = self._stream.unused_data or self._stream.unconsumed_tail
        except zlib.error as exc:
            raise httpx2.DecodingError(str(exc)) from exc
        return bytes(plain)


def _window(first: int) -> int:
    """zlib's `wbits` for a stream that starts with this byte."""
    if first == GZIP_START[0]:
        return GZIP_WINDOW
    return zlib.MAX_WBITS if first % 16 == zlib.DEFLATED else -zlib.MAX_WBITS
