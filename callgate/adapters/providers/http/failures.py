"""
What an exception of the HTTP libraries means for retry and bill: aiohttp, httpx and the runtime.

The tables name no SDK. An adapter puts its SDK's own classes between them (see `openai/sdk_errors.py`) and calls
`classify`. A table is compared with the whole chain of causes, one row after the other, and the first match decides.
So rows of aiohttp stand first, because httpx's wrapping hides the phase: a server that hangs up after it has read the
request arrives as `httpx2.ConnectTimeout`. Within a library a subclass stands above its parents.

There are two kinds of tables, and the adapter says which one applies: nothing of the request was sent, or some of it
was or may have been. Only a request that was not sent, or was refused with a status, is unbilled.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace

import aiohttp
import httpx2

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.causes import NETWORK_CODES
from callgate.domain.provider import Billing, Failure


class ReplyTooLarge(httpx2.ReadError):
    """The reply has more bytes than are read."""


class NoClient(Exception):
    """The HTTP client cannot be made; the cause says why."""


class Inexpressible(Exception):
    """
    A request cannot be written in the provider's protocol. Gates refuse what a catalogue can declare; this is the rest.

    Args:
        reason: What is wrong, or what to do. It is stored with the call, so it quotes nothing of the request.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


Classifier = Callable[[BaseException, ProviderEntry], Failure]
Table = tuple[tuple[type[BaseException], Classifier], ...]
"""Rows of an exception class and what it means."""


def classify(exc: Exception, entry: ProviderEntry, table: Table) -> Failure:
    """
    The failure of the first row that matches the exception or one of its causes.

    Args:
        table: Its last row is for `Exception`.
    """
    causes = tuple(_causes(exc))
    for kind, classifier in table:
        for cause in causes:
            if isinstance(cause, kind):
                return classifier(cause, entry)
    raise AssertionError("the last row of a table matches every exception")


def at(where: str, failure: Failure) -> Failure:
    """The failure, with the host and port in front of its message if the way there failed."""
    if not where or failure.code not in NETWORK_CODES:
        return failure
    return replace(failure, message=f"{where}: {failure.message}")


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception and its causes; it ends also where causes form a circle."""
    seen: list[BaseException] = []
    while exc is not None and exc not in seen:
        seen.append(exc)
        yield exc
        exc = exc.__cause__


def unsent(code: str, message: str, *, retryable: bool = True) -> Classifier:
    """A classifier for a request that was not sent: unbilled."""
    return _fixed(code, message, retryable, Billing.UNBILLED)


def unknown(code: str, message: str, *, retryable: bool = True) -> Classifier:
    """A classifier for a request that may have been read: its bill is unknown."""
    return _fixed(code, message, retryable, Billing.UNKNOWN)


def _fixed(code: str, message: str, retryable: bool, billing: Billing) -> Classifier:
    """A classifier with a fixed result; only the exception's name is added to the message."""

    def classifier(exc: BaseException, _entry: ProviderEntry) -> Failure:
        return Failure(code, f"{message} ({_named(exc)})", retryable, billing)

    return classifier


def _named(exc: BaseException) -> str:
    """The exception's class and errno, never its text, which may hold addresses, headers or bodies."""
    name = type(exc).__name__
    number = exc.errno or 0 if isinstance(exc, OSError) else 0
    known = errno.errorcode.get(number)
    return f"{name}, {known}: {os.strerror(number).lower()}" if known else name


def _no_client(exc: BaseException, _entry: ProviderEntry) -> Failure:
    """The failure of `NoClient`, with the class of its cause."""
    message = (
        f"the HTTP client could not be made, see `callgate doctor` ({_named(exc.__cause__ or exc)})"
    )
    return Failure("client_failed", message, True, Billing.UNBILLED)


def _inexpressible(exc: BaseException, _entry: ProviderEntry) -> Failure:
    """The failure of `Inexpressible`, with its reason."""
    if not isinstance(exc, Inexpressible):
        raise TypeError(f"{type(exc).__name__} has no reason")
    message = f"the request cannot be written in the provider's protocol: {exc.reason}"
    return Failure("inexpressible", message, False, Billing.UNBILLED)


UNEXPECTED = unknown("unexpected_error", "an unexpected error", retryable=False)
CONNECTION_LOST = unknown("connection_lost", "the connection broke after the request may have left")
INVALID_RESPONSE = unknown("invalid_response", "the reply broke off or is not HTTP")
TIMEOUT = unknown("timeout", "the reply was not complete in time")

_INVALID_ADDRESS = unsent("invalid_address", "the base_url cannot be called", retryable=False)
_TLS_FAILED = unsent("tls_failed", "the TLS handshake failed")
_PROXY_FAILED = unsent("proxy_failed", "the proxy did not connect to the provider")
_CONNECTION_FAILED = unsent("connection_failed", "could not connect")
_CONNECT_TIMEOUT = unsent("connect_timeout", "no connection in time")

UNSENT_CLIENT: Table = (
    (NoClient, _no_client),
    (Inexpressible, _inexpressible),
)
"""Nothing was sent because there is no client, or no body. It stands above an SDK's rows."""
UNSENT_TRANSPORT: Table = (
    (aiohttp.ClientConnectorDNSError, unsent("dns_failed", "the host name was not resolved")),
    (aiohttp.ClientProxyConnectionError, _PROXY_FAILED),
    (aiohttp.ClientSSLError, _TLS_FAILED),
    (aiohttp.ServerFingerprintMismatch, _TLS_FAILED),
    (aiohttp.ClientConnectorError, _CONNECTION_FAILED),
    (aiohttp.InvalidURL, _INVALID_ADDRESS),
    (aiohttp.NonHttpUrlClientError, _INVALID_ADDRESS),
    # The reply to CONNECT: a status other than success, or not HTTP.
    (aiohttp.ClientResponseError, _PROXY_FAILED),
    (aiohttp.ServerTimeoutError, _CONNECT_TIMEOUT),
    # Also a proxy that hangs up at CONNECT.
    (aiohttp.ClientConnectionError, _CONNECTION_FAILED),
    (httpx2.InvalidURL, _INVALID_ADDRESS),
    (httpx2.UnsupportedProtocol, _INVALID_ADDRESS),
    (httpx2.TimeoutException, _CONNECT_TIMEOUT),
    (TimeoutError, _CONNECT_TIMEOUT),
    (ssl.SSLError, _TLS_FAILED),
    (OSError, _CONNECTION_FAILED),
    (Exception, unsent("not_sent", "the request could not be sent")),
)
"""Nothing was sent. It stands below an SDK's rows because it ends with `Exception`."""
SENT_AIOHTTP: Table = (
    (ReplyTooLarge, unknown("reply_too_large", "the reply is too large", retryable=False)),
    (aiohttp.ServerTimeoutError, TIMEOUT),
    (aiohttp.ClientConnectionError, CONNECTION_LOST),
    (aiohttp.ClientPayloadError, INVALID_RESPONSE),
    (aiohttp.ClientResponseError, INVALID_RESPONSE),
    (aiohttp.ClientError, CONNECTION_LOST),
)
"""The request may have been read. These rows stand above an SDK's rows for HTTP statuses."""
SENT_HTTPX: Table = (
    (httpx2.TimeoutException, TIMEOUT),
    (httpx2.DecodingError, INVALID_RESPONSE),
    (httpx2.ProtocolError, INVALID_RESPONSE),
    (httpx2.TooManyRedirects, CONNECTION_LOST),
    (httpx2.RequestError, CONNECTION_LOST),
    (httpx2.HTTPError, UNEXPECTED),
    (httpx2.InvalidURL, UNEXPECTED),
    (httpx2.StreamError, INVALID_RESPONSE),
    (httpx2.CookieConflict, UNEXPECTED),
    # The runtime.
    (TimeoutError, TIMEOUT),
    (asyncio.IncompleteReadError, INVALID_RESPONSE),
    (ssl.SSLError, CONNECTION_LOST),
    (OSError, CONNECTION_LOST),
)
"""The request may have been read, and no error of aiohttp is the cause. An SDK's other rows stand below these."""
ANY_ERROR: Table = ((Exception, UNEXPECTED),)
"""The last row where the request may have been read."""
