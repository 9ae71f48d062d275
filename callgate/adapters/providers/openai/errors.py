"""
Every way a request to an OpenAI-compatible endpoint can fail, and what each one means for the bill.

The SDK wraps httpx's errors, which wrap aiohttp's, and the wrapping loses the phase: a server that hangs up after
it has read the request arrives as `httpx2.ConnectTimeout`. So the adapter says whether anything of the request was
sent, which decides between the tables `UNSENT` and `SENT`. Each row is compared with the whole chain of causes,
aiohttp's rows come first, and within a library the most specific ones do. The first that fits decides.

Unbilled is only what was not sent, and what the provider refused with a status.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace

import aiohttp
import httpx2
import openai

from callgate.adapters.providers.openai.refusals import error_in, refusal_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure


class ReplyTooLarge(httpx2.ReadError):
    """The reply has more bytes than the adapter reads."""


class NoClient(Exception):
    """The HTTP client cannot be made; the cause says why."""


Row = Callable[[BaseException, ProviderEntry], Failure]
Table = tuple[tuple[type[BaseException], Row], ...]


def failure_of(exc: Exception, entry: ProviderEntry, *, is_sent: bool) -> Failure:
    """
    Say why there is no reply and whether it may have been billed.

    Args:
        is_sent: Whether bytes of the request were, or may have been, handed to the transport.
    """
    failure = _row_of(exc, entry, SENT if is_sent else UNSENT)
    return failure if is_sent else replace(failure, billing=Billing.UNBILLED)


def _row_of(exc: Exception, entry: ProviderEntry, table: Table) -> Failure:
    causes = tuple(_causes(exc))
    for kind, row in table:
        for cause in causes:
            if isinstance(cause, kind):
                return row(cause, entry)
    raise AssertionError("the last row of a table fits every exception")


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    while exc is not None and exc not in seen:
        seen.append(exc)
        yield exc
        exc = exc.__cause__


def _unsent(code: str, message: str, *, retryable: bool = True) -> Row:
    return _always(code, message, retryable, Billing.UNBILLED)


def _unknown(code: str, message: str, *, retryable: bool = True) -> Row:
    return _always(code, message, retryable, Billing.UNKNOWN)


def _always(code: str, message: str, retryable: bool, billing: Billing) -> Row:
    def row(exc: BaseException, _entry: ProviderEntry) -> Failure:
        return Failure(code, f"{message} ({_named(exc)})", retryable, billing)

    return row


def _named(exc: BaseException) -> str:
    """The exception's class and errno. Never its text, which may hold addresses, headers or bodies."""
    name = type(exc).__name__
    number = errno.errorcode.get(exc.errno or 0) if isinstance(exc, OSError) else None
    return f"{name}, {number}" if number else name


def _status(exc: BaseException, entry: ProviderEntry) -> Failure:
    if not isinstance(exc, openai.APIStatusError):
        raise TypeError(f"{type(exc).__name__} has no status")
    return refusal_of(exc.status_code, error_in(exc.body), exc.response.headers, entry)


_UNEXPECTED = _unknown("unexpected_error", "an error nobody foresaw", retryable=False)
_LOST = _unknown("connection_lost", "the connection broke after the request may have left")
_CUT = _unknown("invalid_response", "the reply broke off or is not HTTP")
_TIMEOUT = _unknown("timeout", "the reply was not complete in time")

_BAD_ADDRESS = _unsent("invalid_address", "the base_url cannot be called", retryable=False)
_TLS = _unsent("tls_failed", "the TLS handshake failed")
_PROXY = _unsent("proxy_failed", "the proxy did not connect us")
_NO_CONNECTION = _unsent("connection_failed", "could not connect")
_LATE_CONNECTION = _unsent("connect_timeout", "no connection in time")


def _no_client(exc: BaseException, _entry: ProviderEntry) -> Failure:
    why = _named(exc.__cause__ or exc)
    message = f"the HTTP client could not be made, see `callgate doctor` ({why})"
    return Failure("client_failed", message, True, Billing.UNBILLED)


STATUS_ROWS: Table = (
    (openai.BadRequestError, _status),
    (openai.OAuthError, _status),
    (openai.AuthenticationError, _status),
    (openai.PermissionDeniedError, _status),
    (openai.NotFoundError, _status),
    (openai.ConflictError, _status),
    (openai.UnprocessableEntityError, _status),
    (openai.RateLimitError, _status),
    (openai.InternalServerError, _status),
    (openai.APIStatusError, _status),
)
UNSENT: Table = (
    (NoClient, _no_client),
    # A server may refuse before it has read anything.
    *STATUS_ROWS,
    (aiohttp.ClientConnectorDNSError, _unsent("dns_failed", "the host name was not resolved")),
    (aiohttp.ClientProxyConnectionError, _PROXY),
    (aiohttp.ClientSSLError, _TLS),
    (aiohttp.ServerFingerprintMismatch, _TLS),
    (aiohttp.ClientConnectorError, _NO_CONNECTION),
    (aiohttp.InvalidURL, _BAD_ADDRESS),
    (aiohttp.NonHttpUrlClientError, _BAD_ADDRESS),
    # The answer to CONNECT: a status that is none of success, or no HTTP.
    (aiohttp.ClientResponseError, _PROXY),
    (aiohttp.ServerTimeoutError, _LATE_CONNECTION),
    # A proxy that hangs up at CONNECT, too.
    (aiohttp.ClientConnectionError, _NO_CONNECTION),
    (httpx2.InvalidURL, _BAD_ADDRESS),
    (httpx2.UnsupportedProtocol, _BAD_ADDRESS),
    (httpx2.TimeoutException, _LATE_CONNECTION),
    (TimeoutError, _LATE_CONNECTION),
    (ssl.SSLError, _TLS),
    (OSError, _NO_CONNECTION),
    (Exception, _unsent("not_sent", "the request could not be sent")),
)
"""What each class of exception means where nothing was sent; the first row that fits any cause."""
SENT: Table = (
    (ReplyTooLarge, _unknown("reply_too_large", "the reply is too large", retryable=False)),
    (aiohttp.ServerTimeoutError, _TIMEOUT),
    (aiohttp.ClientConnectionError, _LOST),
    (aiohttp.ClientPayloadError, _CUT),
    (aiohttp.ClientResponseError, _CUT),
    (aiohttp.ClientError, _LOST),
    *STATUS_ROWS,
    # httpx, where no error of aiohttp is behind it.
    (httpx2.TimeoutException, _TIMEOUT),
    (httpx2.DecodingError, _CUT),
    (httpx2.ProtocolError, _CUT),
    (httpx2.TooManyRedirects, _LOST),
    (httpx2.RequestError, _LOST),
    (httpx2.HTTPError, _UNEXPECTED),
    (httpx2.InvalidURL, _UNEXPECTED),
    (httpx2.StreamError, _CUT),
    (httpx2.CookieConflict, _UNEXPECTED),
    # The runtime.
    (TimeoutError, _TIMEOUT),
    (asyncio.IncompleteReadError, _CUT),
    (ssl.SSLError, _LOST),
    (OSError, _LOST),
    # The SDK, where nothing below it says more.
    (openai.APITimeoutError, _TIMEOUT),
    (openai.APIConnectionError, _LOST),
    (openai.APIResponseValidationError, _CUT),
    (openai.LengthFinishReasonError, _CUT),
    (openai.ContentFilterFinishReasonError, _CUT),
    (openai.APIError, _UNEXPECTED),
    (openai.WebSocketConnectionClosedError, _UNEXPECTED),
    (openai.WebSocketQueueFullError, _UNEXPECTED),
    (openai.OpenAIError, _UNEXPECTED),
    (openai.InvalidWebhookSignatureError, _UNEXPECTED),
    (Exception, _UNEXPECTED),
)
"""What each class of exception means where the request may have been read; the first row that fits any cause."""
