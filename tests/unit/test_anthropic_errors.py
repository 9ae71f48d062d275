"""Which failure each exception of Anthropic's SDK becomes."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import anthropic
import httpx2
import pytest

from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.providers.anthropic.anthropic_adapter import AnthropicAdapter
from callgate.adapters.providers.anthropic.sdk_errors import SENT, UNSENT
from callgate.adapters.providers.http.failures import Inexpressible, Table
from callgate.domain.provider import Billing, Failure
from tests.support.anthropic_preset import ENTRY
from tests.unit.test_openai_errors import errors_in, subclasses

REQUEST = httpx2.Request("POST", "http://provider.invalid/v1/messages")
ROWS = [kind for kind, _ in SENT]
CATCH_ALLS = (Exception, OSError)
KINDS = errors_in(anthropic)


def the_failure(exc: Exception, *, is_sent: bool = True) -> Failure:
    """The failure of an exception."""
    return AnthropicAdapter("anthropic", ENTRY, FileCredentials({}, None)).failure_of(
        exc, is_sent=is_sent
    )


def refusal(status: int, error: object = None, headers: dict[str, str] | None = None) -> Failure:
    """The failure of a response with this status and body, through the SDK's own exception."""
    response = httpx2.Response(
        status, headers=headers, content=json.dumps(error).encode(), request=REQUEST
    )
    transport = httpx2.MockTransport(lambda _request: response)
    with (
        httpx2.Client(transport=transport) as http,
        anthropic.Anthropic(api_key="any", max_retries=0, http_client=http) as client,
        pytest.raises(anthropic.APIStatusError) as raised,
    ):
        client.post("/", cast_to=httpx2.Response)
    return the_failure(raised.value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_exception_of_the_sdk_has_a_row(kind: type[Exception]) -> None:
    """A new class of a new SDK needs a decision about its bill, unless its status decides."""
    assert kind in ROWS or issubclass(kind, anthropic.APIStatusError)


@pytest.mark.parametrize(
    "kind",
    list(subclasses(anthropic.AnthropicError)),
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_every_class_behind_them_has_a_specific_row(kind: type[Exception]) -> None:
    row = next(row for row in ROWS if issubclass(kind, row))

    assert row not in CATCH_ALLS
    assert (row is anthropic.APIStatusError) is issubclass(kind, anthropic.APIStatusError)


@pytest.mark.parametrize("table", [SENT, UNSENT], ids=["sent", "unsent"])
def test_no_row_is_hidden_by_one_above_it(table: Table) -> None:
    """A subclass stands above its parents."""
    rows = [kind for kind, _ in table]
    for index, kind in enumerate(rows):
        assert not [above for above in rows[:index] if issubclass(kind, above)], kind


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_bill_depends_on_what_was_sent(kind: type[Exception]) -> None:
    exc = kind.__new__(kind)
    if isinstance(exc, anthropic.APIStatusError):
        return

    assert the_failure(exc, is_sent=False).billing is Billing.UNBILLED
    assert the_failure(exc, is_sent=True).billing is Billing.UNKNOWN


def test_the_innermost_cause_decides() -> None:
    """A server that hung up after the request arrives as a connect timeout."""
    wrapped = httpx2.ConnectTimeout("Server disconnected")
    wrapped.__cause__ = aiohttp.ServerDisconnectedError()
    raised = anthropic.APITimeoutError(REQUEST)
    raised.__cause__ = wrapped

    failure = the_failure(raised)

    assert (failure.code, failure.billing) == ("connection_lost", Billing.UNKNOWN)


def test_what_cannot_be_written_is_final_and_unbilled() -> None:
    failure = the_failure(Inexpressible("say it otherwise"), is_sent=False)

    assert (failure.code, failure.retryable, failure.billing) == (
        "inexpressible",
        False,
        Billing.UNBILLED,
    )
    assert failure.message.endswith("protocol: say it otherwise")


@pytest.mark.parametrize(
    ("status", "kind", "code", "billing"),
    [
        (400, "invalid_request_error", "bad_request", Billing.UNBILLED),
        (401, "authentication_error", "authentication_failed", Billing.UNBILLED),
        (402, "billing_error", "insufficient_quota", Billing.UNBILLED),
        (403, "permission_error", "permission_denied", Billing.UNBILLED),
        (404, "not_found_error", "not_found", Billing.UNBILLED),
        (409, "conflict_error", "conflict", Billing.UNBILLED),
        (413, "request_too_large", "request_too_large", Billing.UNBILLED),
        (429, "rate_limit_error", "rate_limited", Billing.UNBILLED),
        (500, "api_error", "server_error", Billing.UNKNOWN),
        (504, "timeout_error", "server_error", Billing.UNKNOWN),
        (529, "overloaded_error", "server_error", Billing.UNKNOWN),
    ],
)
def test_a_documented_error(status: int, kind: str, code: str, billing: Billing) -> None:
    """Its type is kept. Nothing documents a 5xx as free, so its bill is unknown."""
    failure = refusal(status, {"type": "error", "error": {"type": kind, "message": "no"}})

    assert (failure.code, failure.billing, failure.status) == (code, billing, status)
    assert failure.provider_code == kind


def test_a_spend_limit_is_no_rate_limit() -> None:
    """It comes with the type of a rate limit and without Retry-After, and lasts until the next month."""
    details = {"error_code": "enforced_spend_limit_reached"}
    failure = refusal(
        429, {"type": "error", "error": {"type": "rate_limit_error", "details": details}}
    )

    assert (failure.code, failure.retryable) == ("insufficient_quota", False)
    assert failure.provider_code == "enforced_spend_limit_reached"


def test_limits_and_waits_are_read_from_headers() -> None:
    """An exhausted limit is available again at its own time, by the server's clock."""
    headers = {
        "date": "Sun, 29 Nov 2026 12:00:00 GMT",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-29T12:00:30Z",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-output-tokens-remaining": "8000",
    }
    limits = [(limit.measure, limit.amount) for limit in refusal(429, None, headers).limits]

    assert limits == [("requests", 50), ("output_tokens", 8000)]
    assert refusal(429, None, headers).retry_after_s == 30
    assert refusal(429, None, {**headers, "retry-after": "7"}).retry_after_s == 7


@pytest.mark.parametrize("body", [None, [], "no", 7, {"error": []}, {"error": {"details": "x"}}])
def test_an_odd_body_changes_nothing(body: Any) -> None:
    assert refusal(529, body).code == "server_error"
