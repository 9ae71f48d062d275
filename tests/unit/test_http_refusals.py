"""What each HTTP status, and the error in its body, means for retry, bill and wait."""

from __future__ import annotations

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.provider import Billing
from callgate.domain.retry_after import RETRY_AFTER_MAX_S, retry_after_s
from tests.support.openai_failures import REQUEST, refusal, the_failure


@pytest.mark.parametrize(
    ("status", "code", "retryable", "billing"),
    [
        (304, "redirected", False, Billing.UNBILLED),
        (307, "redirected", False, Billing.UNBILLED),
        (400, "bad_request", False, Billing.UNBILLED),
        (401, "authentication_failed", False, Billing.UNBILLED),
        (403, "permission_denied", False, Billing.UNBILLED),
        (404, "not_found", False, Billing.UNBILLED),
        (408, "request_timeout", True, Billing.UNKNOWN),
        (409, "conflict", True, Billing.UNBILLED),
        (418, "rejected", False, Billing.UNBILLED),
        (422, "unprocessable", False, Billing.UNBILLED),
        (429, "rate_limited", True, Billing.UNBILLED),
        (500, "server_error", True, Billing.UNKNOWN),
        (529, "server_error", True, Billing.UNKNOWN),
    ],
)
def test_a_status_decides_the_bill(
    status: int, code: str, retryable: bool, billing: Billing
) -> None:
    """A refusal is unbilled; a server error may be billed (design, section 7)."""
    failure = refusal(status)

    assert (failure.code, failure.retryable, failure.billing) == (code, retryable, billing)
    assert failure.status == status


@pytest.mark.parametrize("status", [401, 408, 503])
def test_a_refusal_before_the_request_is_unbilled(status: int) -> None:
    """A busy server may answer before it reads the request."""
    response = httpx2.Response(status, request=REQUEST)
    exc = openai.APIStatusError("refused", response=response, body=None)

    failure = the_failure(exc, is_sent=False)

    assert (failure.status, failure.billing) == (status, Billing.UNBILLED)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_are_unbilled_where_the_catalogue_says_so(status: int) -> None:
    failure = refusal(status, server_errors="unbilled")

    assert (failure.billing, failure.retryable) == (Billing.UNBILLED, True)


@pytest.mark.parametrize(
    ("status", "error", "code", "billing"),
    [
        (429, {"code": "insufficient_quota"}, "insufficient_quota", Billing.UNBILLED),
        (429, {"type": "insufficient_quota"}, "insufficient_quota", Billing.UNBILLED),
        (400, {"code": "billing_hard_limit_reached"}, "insufficient_quota", Billing.UNBILLED),
        (400, {"code": "context_length_exceeded"}, "context_length_exceeded", Billing.UNBILLED),
        (400, {"type": "exceed_context_size_error"}, "context_length_exceeded", Billing.UNBILLED),
        (
            400,
            {"code": 400, "message": "This model's maximum context length is 4096 tokens."},
            "context_length_exceeded",
            Billing.UNBILLED,
        ),
        (400, {"code": "content_filter"}, "content_filtered", Billing.UNKNOWN),
        (403, {"code": 403, "metadata": {"reasons": ["x"]}}, "content_filtered", Billing.UNBILLED),
        (403, {"code": 403, "metadata": {}}, "permission_denied", Billing.UNBILLED),
    ],
)
def test_some_refusals_have_their_own_code(
    status: int, error: object, code: str, billing: Billing
) -> None:
    """None of them is retryable. A filtered prompt was read, so it may be billed."""
    failure = refusal(status, error)

    assert (failure.code, failure.retryable, failure.billing) == (code, False, billing)


@pytest.mark.parametrize("error", [None, [], "text", 7, {"code": {}, "type": [], "message": 1}])
def test_any_error_body_is_accepted(error: object) -> None:
    """Nearly compatible endpoints send anything."""
    failure = refusal(400, error)

    assert (failure.code, failure.provider_code) == ("bad_request", None)


def test_the_provider_code_is_the_code_or_else_the_type() -> None:
    assert refusal(400, {"code": "invalid_value", "type": "x"}).provider_code == "invalid_value"
    assert refusal(400, {"code": None, "type": "invalid_type"}).provider_code == "invalid_type"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "1e400"}, RETRY_AFTER_MAX_S),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:27:00 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            None,
        ),
    ],
    ids=str,
)
def test_retry_after_is_read(headers: dict[str, str], expected: float | None) -> None:
    """Milliseconds, seconds or a date by the provider's own clock; the result is finite and positive."""
    assert retry_after_s(headers) == expected


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_retry_after_header_is_accepted(retry_after: str, date: str) -> None:
    wait_s = retry_after_s({"retry-after": retry_after, "date": date})

    assert wait_s is None or 0 < wait_s <= RETRY_AFTER_MAX_S


def test_a_refusals_message_has_codes_parameter_and_hint() -> None:
    failure = refusal(
        400,
        {
            "message": "Unsupported value: 'temperature' does not support 0.2 with this model.",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "unsupported_value",
        },
    )

    assert failure.message == (
        "HTTP 400, unsupported_value, invalid_request_error, param temperature: "
        "the request is not accepted: a parameter, or its value, is not supported"
    )


@pytest.mark.parametrize(
    ("status", "words", "shown"),
    [
        (400, "Invalid schema for response_format 'x': ...", "it seems to be the response schema"),
        (400, "'messages' must contain the word json_schema", "it seems to be the response schema"),
        (404, "The model `gpt-9` does not exist or you have no access", "the model does not exist"),
        (400, "Unrecognized request argument supplied: foo", "is not supported"),
        (422, "Extra inputs are not permitted", "is not supported"),
        (400, "Conversation roles must alternate user/assistant", "roles of the messages"),
        (400, "messages: text content blocks must be non-empty", "a value is empty"),
        (400, "max_tokens is too large: 100000", "param max_tokens"),
        (400, "max_tokens is too large: 100000", "a value is out of bounds"),
        (400, "Field required", "a value is missing"),
        (400, "nothing that anybody foresaw", "the request is not accepted"),
        (400, "maximum context length is 4096 tokens", "exceed the model's context window"),
        (429, "Request too large: limit 6000 tokens, requested 9000", "a retry cannot help"),
        (401, "Incorrect API key provided: sk-x", "the API key is not accepted"),
        (402, "", "no credit"),
        (503, "overloaded", "the provider failed, or is overloaded"),
        (418, "tea", "the request is not accepted"),
        (302, "", "a redirect"),
    ],
)
def test_the_providers_message_selects_a_sentence(status: int, words: str, shown: str) -> None:
    assert shown in refusal(status, {"message": words}).message


@pytest.mark.parametrize(
    ("param", "shown"),
    [
        ("messages[3].content", "messages[3].content"),
        ("messages.[0].content", "messages[0].content"),
        ("messages.12.role", "messages[12].role"),
        ("response_format.json_schema.schema", "response_format.json_schema.schema"),
        ("response_format.json_schema.schema.properties.ssn", "response_format.json_schema.schema"),
        ("messages[4111].content", "messages"),
        ("max_completion_tokens", "max_completion_tokens"),
    ],
)
def test_a_parameter_path_is_shown_as_far_as_it_is_known(param: str, shown: str) -> None:
    """The rest may be private: a name in the caller's schema, or a number that is not an index."""
    failure = refusal(400, {"param": param})

    assert failure.message.startswith(f"HTTP 400, param {shown}: ")
