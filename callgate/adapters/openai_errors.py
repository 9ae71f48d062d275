"""
Every way a request to an OpenAI-compatible endpoint can fail, and what each one means for the bill.

The SDK wraps httpx's errors, which wrap aiohttp's, and the wrapping loses the phase: a server that hangs up after
it has read the request arrives as `httpx2.ConnectTimeout`. So each row of `TABLE` is compared with the whole chain
of causes, aiohttp's rows come first, and within a library the most specific ones do. The first that fits decides.

Unbilled is only what failed before the request could leave, and what the provider refused with a status.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import aiohttp
import httpx2
import openai

from callgate.adapters.openai_redaction import Redactor
from callgate.adapters.openai_refusals import error_in, refusal_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.retry import Billing, Failure


class ReplyTooLarge(httpx2.ReadError):
    """The reply has more bytes than the adapter reads."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, and of whom: all a failure is judged by besides its exception."""

    entry: ProviderEntry
    secrets: Sequence[str]
    """The key and the texts of the request: no part of them gets into a failure."""


Row = Callable[[BaseException, Asked], Failure]


def failure_of(exc: Exception, asked: Asked) -> Failure:
    """Say why there is no reply and whether it may have been billed."""
    causes = tuple(_causes(exc))
    for kind, row in TABLE:
        for cause in causes:
            if isinstance(cause, kind):
                return row(cause, asked)
    raise AssertionError("the last row of TABLE fits every exception")


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
    def row(exc: BaseException, _asked: Asked) -> Failure:
        return Failure(code, f"{message} ({_named(exc)})", retryable, billing)

    return row


def _named(exc: BaseException) -> str:
    """The exception's class and errno. Never its text, which may hold addresses, headers or bodies."""
    name = type(exc).__name__
    number = errno.errorcode.get(exc.errno or 0) if isinstance(exc, OSError) else None
    return f"{name}, {number}" if number else name


def _status(exc: BaseException, asked: Asked) -> Failure:
    if not isinstance(exc, openai.APIStatusError):
        raise TypeError(f"{type(exc).__name__} has no status")
    return refusal_of(
        exc.status_code,
        error_in(exc.body),
        exc.response.headers,
        asked.entry,
        Redactor(asked.secrets),
    )


_UNEXPECTED = _unknown("unexpected_error", "an error nobody foresaw", retryable=False)
_BAD_ADDRESS = _unsent("invalid_address", "the base_url cannot be called", retryable=False)
_LOST = _unknown("connection_lost", "the connection broke after the request may have left")
_CUT = _unknown("invalid_response", "the reply broke off or is not HTTP")
_TIMEOUT = _unknown("timeout", "the reply was not complete in time")
_TLS = _unsent("tls_failed", "the TLS handshake failed")
_PROXY = _unsent("proxy_failed", "the proxy did not connect us")

TABLE: tuple[tuple[type[BaseException], Row], ...] = (
    (ReplyTooLarge, _unknown("reply_too_large", "the reply is too large", retryable=False)),
    # aiohttp, before a byte of the request left.
    (aiohttp.ClientConnectorDNSError, _unsent("dns_failed", "the host name was not resolved")),
    (aiohttp.ClientProxyConnectionError, _PROXY),
    (aiohttp.ClientHttpProxyError, _PROXY),
    (aiohttp.ClientSSLError, _TLS),
    (aiohttp.ServerFingerprintMismatch, _TLS),
    (aiohttp.ClientConnectorError, _unsent("connection_failed", "could not connect")),
    (aiohttp.ConnectionTimeoutError, _unsent("connect_timeout", "no connection in time")),
    (aiohttp.InvalidURL, _BAD_ADDRESS),
    (aiohttp.NonHttpUrlClientError, _BAD_ADDRESS),
    # aiohttp, after that.
    (aiohttp.ServerTimeoutError, _TIMEOUT),
    (aiohttp.ClientConnectionError, _LOST),
    (aiohttp.ClientPayloadError, _CUT),
    (aiohttp.ClientResponseError, _CUT),
    (aiohttp.ClientError, _LOST),
    # The SDK, with a status.
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
    # httpx, where no error of aiohttp is behind it.
    (httpx2.InvalidURL, _BAD_ADDRESS),
    (httpx2.UnsupportedProtocol, _BAD_ADDRESS),
    (httpx2.PoolTimeout, _unsent("connect_timeout", "no connection in time")),
    (httpx2.TimeoutException, _TIMEOUT),
    (httpx2.DecodingError, _CUT),
    (httpx2.ProtocolError, _CUT),
    (httpx2.TooManyRedirects, _LOST),
    (httpx2.RequestError, _LOST),
    (httpx2.HTTPError, _UNEXPECTED),
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
"""What each class of exception means; the first row that fits any exception in the chain of causes."""
