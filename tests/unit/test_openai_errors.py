"""Which failure each exception of the SDK and the HTTP libraries becomes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any, cast

import aiohttp
import httpx2
import openai
import pytest

from callgate.adapters.providers.http.failures import NoClient, ReplyTooLarge, Table
from callgate.adapters.providers.openai.sdk_errors import SENT, UNSENT
from callgate.domain.retry import Billing
from tests.support.openai_failures import REQUEST, the_failure

ROWS = [kind for kind, _ in SENT]
CATCH_ALLS = (Exception, OSError)


def subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Every class below one, as far as it is loaded."""
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def errors_in(module: object) -> list[type[Exception]]:
    """The exceptions a module shows. Asked by their type alone: the SDK's proxies load half of it when touched."""
    return [
        kind
        for name, kind in vars(module).items()
        if not name.startswith("_")
        and type(kind) is type
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
    ]


def row_of(kind: type[BaseException]) -> type[BaseException]:
    """The row that decides about an exception of this class, if nothing is behind it."""
    return next(row for row in ROWS if issubclass(kind, row))


@pytest.mark.parametrize("kind", errors_in(openai), ids=lambda kind: kind.__name__)
def test_every_exception_of_the_sdk_has_a_row(kind: type[Exception]) -> None:
    """A class a new SDK brings along has no row until somebody has thought about its bill."""
    assert kind in ROWS


@pytest.mark.parametrize(
    "kind",
    [*errors_in(aiohttp), *errors_in(httpx2), *subclasses(openai.OpenAIError)],
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_no_exception_below_the_sdk_is_unforeseen(kind: type[Exception]) -> None:
    """Whatever the transports can raise has a row better than "some error"."""
    if issubclass(kind, (aiohttp.ClientError, httpx2.HTTPError, openai.OpenAIError)):
        assert row_of(kind) not in CATCH_ALLS


@pytest.mark.parametrize("table", [SENT, UNSENT], ids=["sent", "unsent"])
def test_no_row_is_hidden_by_one_above_it(table: Table) -> None:
    """A row for a class stands above every row for its parents."""
    rows = [kind for kind, _ in table]
    for index, kind in enumerate(rows):
        assert not [above for above in rows[:index] if issubclass(kind, above)], kind


@pytest.mark.parametrize(
    "kind",
    [
        *errors_in(aiohttp),
        *errors_in(httpx2),
        *subclasses(openai.OpenAIError),
        *(OSError, TimeoutError, RuntimeError, ValueError, UnicodeError, ssl.SSLError),
    ],
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_the_bill_hangs_on_what_was_sent_and_not_on_the_class(kind: type[Exception]) -> None:
    """No class can say it: a proxy that hangs up at CONNECT and a provider that hangs up raise the same."""
    exc = kind.__new__(kind)
    if isinstance(exc, openai.APIStatusError):
        return

    assert the_failure(exc, is_sent=False).billing is Billing.UNBILLED
    assert the_failure(exc, is_sent=True).billing is Billing.UNKNOWN


def test_the_last_row_takes_everything() -> None:
    """A bug is a failure too: the port raises on cancellation only. Its bill is unknown, and it is not tried again."""
    failure = the_failure(RuntimeError("Session is closed"))

    assert (failure.code, failure.retryable, failure.billing) == (
        "unexpected_error",
        False,
        Billing.UNKNOWN,
    )


def test_the_transport_decides_and_not_its_wrapping() -> None:
    """The SDK's transport calls a server that hung up after the request a connect timeout."""
    wrapped = httpx2.ConnectTimeout("Server disconnected")
    wrapped.__cause__ = aiohttp.ServerDisconnectedError()
    raised = openai.APITimeoutError(REQUEST)
    raised.__cause__ = wrapped

    failure = the_failure(raised)

    assert (failure.code, failure.billing) == ("connection_lost", Billing.UNKNOWN)


@pytest.mark.parametrize(
    ("cause", "code", "billing"),
    [
        (aiohttp.SocketTimeoutError(), "timeout", Billing.UNKNOWN),
        (aiohttp.ClientConnectionResetError(), "connection_lost", Billing.UNKNOWN),
        (aiohttp.ClientOSError(104, "reset"), "connection_lost", Billing.UNKNOWN),
        (aiohttp.ClientPayloadError(), "invalid_response", Billing.UNKNOWN),
        (httpx2.ConnectTimeout("who knows"), "timeout", Billing.UNKNOWN),
        (httpx2.ReadError("read"), "connection_lost", Billing.UNKNOWN),
        (ReplyTooLarge("large"), "reply_too_large", Billing.UNKNOWN),
        (ssl.SSLError("mid-stream"), "connection_lost", Billing.UNKNOWN),
        (TimeoutError(), "timeout", Billing.UNKNOWN),
        (asyncio.IncompleteReadError(b"", 1), "invalid_response", Billing.UNKNOWN),
        (ConnectionResetError(104, "reset"), "connection_lost", Billing.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_wrapped_cause_is_judged_as_itself(cause: Exception, code: str, billing: Billing) -> None:
    """The same failure, raised bare or wrapped by the SDK."""
    wrapped = openai.APIConnectionError(request=REQUEST)
    wrapped.__cause__ = cause

    for failure in (the_failure(cause), the_failure(wrapped)):
        assert (failure.code, failure.billing) == (code, billing)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (aiohttp.ConnectionTimeoutError(), "connect_timeout"),
        (aiohttp.ServerDisconnectedError(), "connection_failed"),
        (aiohttp.ClientOSError(104, "reset"), "connection_failed"),
        (aiohttp.ClientResponseError(cast(Any, None), ()), "proxy_failed"),
        (aiohttp.InvalidURL("nonsense"), "invalid_address"),
        (httpx2.PoolTimeout("pool"), "connect_timeout"),
        (TimeoutError(), "connect_timeout"),
        (ssl.SSLError("handshake"), "tls_failed"),
        (ConnectionResetError(104, "reset"), "connection_failed"),
        (ValueError("a key that no header can hold"), "not_sent"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_was_not_sent_has_a_code_of_its_own(cause: Exception, code: str) -> None:
    """It can be tried again, unless the address itself is wrong."""
    wrapped = openai.APIConnectionError(request=REQUEST)
    wrapped.__cause__ = cause

    for failure in (the_failure(cause, is_sent=False), the_failure(wrapped, is_sent=False)):
        assert (failure.code, failure.billing) == (code, Billing.UNBILLED)
        assert failure.retryable == (code != "invalid_address")


def test_a_client_that_cannot_be_made_says_why() -> None:
    """The class and the errno of the cause; a path or a password in its text stays there."""
    exc = NoClient()
    exc.__cause__ = FileNotFoundError(2, "No such file", "/secret/ca.pem")

    failure = the_failure(exc, is_sent=False)

    assert (failure.code, failure.retryable, failure.billing) == (
        "client_failed",
        True,
        Billing.UNBILLED,
    )
    assert "FileNotFoundError, ENOENT" in failure.message
    assert "secret" not in failure.message


def test_a_circle_of_causes_ends() -> None:
    """Exceptions can name each other as their cause."""
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one

    assert the_failure(one).code == "unexpected_error"
