"""
The HTTP client below the SDK: what it may use of the environment, what it hands out, and what it lets in.

`RequestBody` knows whether bytes of the request were handed to the transport. aiohttp asks for the body only once there
is a connection (name, proxy's CONNECT and TLS done), and keeps the headers until it has the first piece of it:
`ClientRequest.send`, `StreamWriter.write_headers` and `AsyncIterablePayload.write_with_length` of aiohttp 3.14.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from http.cookiejar import CookieJar
from typing import Any

import aiohttp
import httpcore2  # noqa: F401 - httpx imports it, for half a second of CPU, when the first client is made
import httpx2
import openai

from callgate.adapters.providers.openai.errors import ReplyTooLarge

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
SHORT_REPLY_BYTES = 64 * 1024
"""Of replies of this size a process may have one for each connection."""
LONG_REPLIES_MAX = 8
"""Of one provider, read at the same time: 64 MiB together."""
HEADERS_MAX = 128
HEADER_BYTES_MAX = 4096
"""Half of aiohttp's own bound: hundreds of requests may be in flight, and each can bring so many headers."""
EXPLANATION_MAX_S = 2.0
"""How long the words of a refusal are waited for, lest the deadline takes the status along."""
EXPLANATION_BYTES_MAX = 64 * 1024
"""A longer one is cut: its status says what is billed, and the SDK reads JSON of any number of values."""
RECEIVED_BYTES = 32 * 1024
"""
What a socket keeps until it is read; Linux doubles it.

aiohttp parses what it has got in one go, in which no other thread runs. A reply of a megabyte comes in two seconds at
the least, if it comes around the world.
"""
MEMBERS_MAX = 1_000
"""Of gzip in one reply. Each costs as much as thousands of bytes to begin, and twenty to send."""
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
    return _Client(
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=connections_max, keepalive_expiry=KEEPALIVE_S),
        mounts=dict.fromkeys(LOOPBACK),
        cookies=_NoCookies(),
        event_hooks={"response": [_bounds(asyncio.Semaphore(LONG_REPLIES_MAX))]},
    )


class _Client(openai.DefaultAioHttpClient):
    """The SDK's client, whose sessions and proxies' sessions keep no cookie and no long header."""

    def _init_transport(self, *args: Any, **kwargs: Any) -> httpx2.AsyncBaseTransport:
        return _with_own_session(super()._init_transport(*args, **kwargs))

    def _init_proxy_transport(self, *args: Any, **kwargs: Any) -> httpx2.AsyncBaseTransport:
        return _with_own_session(super()._init_proxy_transport(*args, **kwargs))


class _NoCookies(CookieJar):
    """httpx's jar, beside the one of aiohttp below it: nothing gets in."""

    def extract_cookies(self, *_: object) -> None:
        """Keep none of a response's cookies."""


def _with_own_session(transport: Any) -> httpx2.AsyncBaseTransport:
    transport.client = partial(_session, transport)
    own: httpx2.AsyncBaseTransport = transport
    return own


def _session(transport: Any) -> aiohttp.ClientSession:
    """What `AiohttpTransport.get_client` would make, with a jar that keeps nothing, and bounds."""
    connector = aiohttp.TCPConnector(
        limit=transport.limits.max_connections,
        keepalive_timeout=transport.limits.keepalive_expiry,
        ssl=transport.ssl_context,
        socket_factory=_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        max_headers=HEADERS_MAX,
    )


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
    return made


class RequestBody:
    """The body of one request, in one piece: handed out once at most, in whichever thread."""

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._content: bytes | None = content
        self._is_sent = False
        self._lock = threading.Lock()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._lock:
            content, self._content = self._content, None
            self._is_sent = self._is_sent or content is not None
        if content is None:
            raise RuntimeError("the request was sent or withdrawn before")
        yield content

    def withdraw(self) -> bool:
        """Ask whether no byte of the request was handed to the transport; then none will be."""
        with self._lock:
            self._content = None
            return not self._is_sent


def _bounds(long_replies: asyncio.Semaphore) -> Callable[[httpx2.Response], Awaitable[None]]:
    async def bound(response: httpx2.Response) -> None:
        # The charset of a provider's choice may take a second per kilobyte, as punycode does. JSON is UTF-8.
        response.encoding = "utf-8"
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _bounded(response, response.stream, long_replies)

    return bound


def _bounded(
    response: httpx2.Response, stream: httpx2.AsyncByteStream, long_replies: asyncio.Semaphore
) -> httpx2.AsyncByteStream:
    # httpx would inflate a megabyte to a gigabyte, past every bound.
    codings = _codings(response.headers.pop("content-encoding", ""))
    undos: list[Undo | None] = [None]
    if len(codings) <= CODINGS_MAX and COMPRESSIONS.issuperset(codings):
        undos += [_Inflation().undo for _ in codings]
    else:
        # It may be plain all the same: some servers name a charset here.
        response.headers[UNKNOWN_CODING] = ", ".join(codings)
    for undo in undos:
        stream = _BoundedStream(stream, undo)
    return _Whole(stream, long_replies) if response.is_success else _Explanation(stream)


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


class _Whole(httpx2.AsyncByteStream):
    """
    A reply in one piece: kept in a million pieces, it would be many times as large.

    Few long ones are read at a time, so that those of one provider do not fill the memory. The others wait, and their
    connections with them.
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
                    if len(read) > EXPLANATION_BYTES_MAX:
                        break
        yield bytes(read[:EXPLANATION_BYTES_MAX])

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
        self._members_left = MEMBERS_MAX

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
                    self._members_left -= 1
                    if self._members_left < 0:
                        raise ReplyTooLarge(f"more than {MEMBERS_MAX} members of gzip")
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
