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
from callgate.domain.provider import Billing
from tests.support.openai_failures import REQUEST, the_failure

ROWS = [kind for kind, _ in SENT]
CATCH_ALLS = (Exception, OSError)


def subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Every loaded subclass, direct or indirect."""
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def errors_in(module: object) -> list[type[Exception]]:
    """The public exceptions of a module. Only types are compared: touching the SDK's proxies would load half of it."""
    return [
        kind
        for name, kind in vars(module).items()
        if not name.startswith("_")
        and type(kind) is type
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
    ]


def row_of(kind: type[BaseException]) -> type[BaseException]:
    """The class of the first row that matches an exception without a cause."""
    return next(row for row in ROWS if issubclass(kind, row))


@pytest.mark.parametrize("kind", errors_in(openai), ids=lambda kind: kind.__name__)
def test_every_exception_of_the_sdk_has_a_row(kind: type[Exception]) -> None:
    """A new class of a new SDK needs a decision about its bill. Of those with a status the status decides."""
    assert kind in ROWS or issubclass(kind, openai.APIStatusError)


@pytest.mark.parametrize(
    "kind",
    [*errors_in(aiohttp), *errors_in(httpx2), *subclasses(openai.OpenAIError)],
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_every_transport_exception_has_a_specific_row(kind: type[Exception]) -> None:
    if issubclass(kind, (aiohttp.ClientError, httpx2.HTTPError, openai.OpenAIError)):
        assert row_of(kind) not in CATCH_ALLS


@pytest.mark.parametrize("table", [SENT, UNSENT], ids=["sent", "unsent"])
def test_no_row_is_hidden_by_one_above_it(table: Table) -> None:
    """A subclass stands above its parents."""
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
def test_the_bill_depends_on_what_was_sent(kind: type[Exception]) -> None:
    """Not on the class: a proxy that hangs up at CONNECT and a provider that hangs up raise the same."""
    exc = kind.__new__(kind)
    if isinstance(exc, openai.APIStatusError):
        return

    assert the_failure(exc, is_sent=False).billing is Billing.UNBILLED
    assert the_failure(exc, is_sent=True).billing is Billing.UNKNOWN


def test_the_last_row_matches_everything() -> None:
    """A bug becomes a failure too: the port raises on cancellation only. Its bill is unknown. It is not retried."""
    failure = the_failure(RuntimeError("Session is closed"))

    assert (failure.code, failure.retryable, failure.billing) == (
        "unexpected_error",
        False,
        Billing.UNKNOWN,
    )


def test_the_innermost_cause_decides() -> None:
    """The SDK's transport reports a server that hung up after the request as a connect timeout."""
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
def test_a_wrapped_cause_is_classified_like_the_bare_one(
    cause: Exception, code: str, billing: Billing
) -> None:
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
def test_an_unsent_request_has_its_own_codes(cause: Exception, code: str) -> None:
    """It is retryable, unless the address is wrong."""
    wrapped = openai.APIConnectionError(request=REQUEST)
    wrapped.__cause__ = cause

    for failure in (the_failure(cause, is_sent=False), the_failure(wrapped, is_sent=False)):
        assert (failure.code, failure.billing) == (code, Billing.UNBILLED)
        assert failure.retryable == (code != "invalid_address")


def test_a_client_failure_names_class_and_errno() -> None:
    """The cause's text may hold a path or a password and is not shown."""
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
    """Exceptions can be each other's cause."""
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one

    assert the_failure(one).code == "unexpected_error"
