"""
The HTTP client that providers' SDKs run on: which parts of the environment it uses, and what it keeps and accepts.

The aiohttp transport under httpx comes with OpenAI's SDK (`openai.DefaultAioHttpClient`). Nothing else of that SDK is
used here.
"""

from __future__ import annotations

import socket
from functools import partial
from http.cookiejar import CookieJar
from typing import Any

import aiohttp
import httpcore2  # noqa: F401 - httpx imports it, for half a second of CPU, when the first client is made
import httpx2
import openai

from callgate.adapters.providers.http.reply_bounds import bound_replies

CONNECT_MAX_S = 10.0
"""
The longest wait for a connection, including the pool and TLS. It is never more than half of an attempt's time.

It ends before the attempt's deadline. So an unreachable server is distinguished from one that read the request.
"""
KEEPALIVE_S = 3.0
"""
How long an idle connection is kept: less than 5 s, the default of uvicorn and Node.js and the shortest common one.

If the server closes a connection first, a request on it can fail, and it is unknown whether the request was read.
"""
HEADERS_MAX = 128
HEADER_MAX_BYTES = 4096
"""Half of aiohttp's own limit: hundreds of requests may be in flight, and each reply can bring `HEADERS_MAX`."""
RECEIVE_BUFFER_BYTES = 32 * 1024
"""
The receive buffer of a socket. Linux doubles it.

aiohttp parses everything in the buffer at once, and no other thread runs meanwhile. The price: a reply of a megabyte
from the other side of the world takes at least two seconds.
"""
LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")
"""Addresses that no proxy is used for."""


def http_client(connections_max: int) -> httpx2.AsyncClient:
    """
    Make the client for one event loop.

    Raises:
        Exception: Any class, if a variable of the environment cannot be used.
    """
    return _Client(
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=connections_max, keepalive_expiry=KEEPALIVE_S),
        mounts=dict.fromkeys(LOOPBACK),
        cookies=_NoCookies(),
        event_hooks={"response": [bound_replies()]},
    )


def request_timeout(timeout_s: float) -> httpx2.Timeout:
    """The timeouts of one request that has `timeout_s` seconds left; see `CONNECT_MAX_S`."""
    connect_s = min(CONNECT_MAX_S, timeout_s / 2)
    return httpx2.Timeout(timeout_s, connect=connect_s, pool=connect_s)


class _Client(openai.DefaultAioHttpClient):
    """An httpx client on aiohttp whose sessions, also those for proxies, keep no cookies and limit headers."""

    def _init_transport(self, *args: Any, **kwargs: Any) -> httpx2.AsyncBaseTransport:
        return _with_own_session(super()._init_transport(*args, **kwargs))

    def _init_proxy_transport(self, *args: Any, **kwargs: Any) -> httpx2.AsyncBaseTransport:
        return _with_own_session(super()._init_proxy_transport(*args, **kwargs))


class _NoCookies(CookieJar):
    """The cookie jar of httpx, which is separate from aiohttp's: it stays empty."""

    def extract_cookies(self, *_: object) -> None:
        """Keep none of a response's cookies."""


def _with_own_session(transport: Any) -> httpx2.AsyncBaseTransport:
    """Make the transport create its aiohttp session with `_session`."""
    transport.client = partial(_session, transport)
    own: httpx2.AsyncBaseTransport = transport
    return own


def _session(transport: Any) -> aiohttp.ClientSession:
    """The session that `AiohttpTransport.get_client` would make, but without cookies and with limits."""
    connector = aiohttp.TCPConnector(
        limit=transport.limits.max_connections,
        keepalive_timeout=transport.limits.keepalive_expiry,
        ssl=transport.ssl_context,
        socket_factory=_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=HEADER_MAX_BYTES,
        max_field_size=HEADER_MAX_BYTES,
        max_headers=HEADERS_MAX,
    )


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for this address with a receive buffer of `RECEIVE_BUFFER_BYTES`."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return made
