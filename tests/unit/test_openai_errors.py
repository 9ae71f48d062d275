"""Which failure each exception becomes, and that none of them says what it should not."""

from __future__ import annotations

import asyncio
import base64
import codecs
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast
from uuid import UUID

import aiohttp
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.providers.openai.errors import (
    SENT,
    UNSENT,
    NoClient,
    ReplyTooLarge,
    Table,
    failure_of,
)
from callgate.adapters.providers.openai.refusals import (
    KNOWN_NAMES,
    RETRY_AFTER_MAX_S,
    retry_after_s,
)
from callgate.adapters.providers.openai.words import HINTS, PARAMETERS, SENTENCES
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure

REQUEST = httpx2.Request("POST", "http://provider.invalid/v1/chat/completions")
ROWS = [kind for kind, _ in SENT]
CATCH_ALLS = (Exception, OSError)


def the_failure(exc: Exception, *, is_sent: bool = True, **entry: Any) -> Failure:
    """What the exception becomes."""
    return failure_of(exc, ProviderEntry(**entry), is_sent=is_sent)


def refusal(
    status: int,
    error: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    server_errors: Literal["unknown", "unbilled"] = "unknown",
) -> Failure:
    """What a response with this status and `error` becomes, as the SDK raises it."""
    body = json.dumps({"error": error}).encode()
    response = httpx2.Response(status, headers=headers, content=body, request=REQUEST)
    transport = httpx2.MockTransport(lambda _request: response)
    with (
        httpx2.Client(transport=transport) as http,
        openai.OpenAI(api_key="any", max_retries=0, http_client=http) as client,
        pytest.raises(openai.APIStatusError) as raised,
    ):
        client.post("/", cast_to=httpx2.Response)
    return the_failure(raised.value, server_errors=server_errors)


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
def test_a_status_says_what_is_billed(
    status: int, code: str, retryable: bool, billing: Billing
) -> None:
    """A refusal is free, a server's fault may not be (design, section 7)."""
    failure = refusal(status)

    assert (failure.code, failure.retryable, failure.billing) == (code, retryable, billing)
    assert failure.status == status


@pytest.mark.parametrize("status", [401, 408, 503])
def test_a_refusal_of_what_was_not_sent_is_free(status: int) -> None:
    """A server that is too busy to read answers at once; its words are kept, and nothing is billed."""
    response = httpx2.Response(status, request=REQUEST)
    exc = openai.APIStatusError("refused", response=response, body=None)

    failure = the_failure(exc, is_sent=False)

    assert (failure.status, failure.billing) == (status, Billing.UNBILLED)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_provider_may_promise_free_server_errors(status: int) -> None:
    """Only where the catalogue says so."""
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
def test_some_refusals_have_a_name_of_their_own(
    status: int, error: object, code: str, billing: Billing
) -> None:
    """No patience pays a bill or shortens a prompt, and a filtered prompt was read all the same."""
    failure = refusal(status, error)

    assert (failure.code, failure.retryable, failure.billing) == (code, False, billing)


@pytest.mark.parametrize("error", [None, [], "text", 7, {"code": {}, "type": [], "message": 1}])
def test_any_error_body_will_do(error: object) -> None:
    """Endpoints that are only nearly compatible send anything."""
    failure = refusal(400, error)

    assert (failure.code, failure.provider_code) == ("bad_request", None)


def test_the_code_is_kept_and_the_type_where_there_is_none() -> None:
    """What the provider calls it helps to group failures."""
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
def test_the_wait_a_provider_asks_for(headers: dict[str, str], expected: float | None) -> None:
    """Milliseconds, seconds or a date: finite, positive, and by the provider's own clock."""
    assert retry_after_s(headers) == expected


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_header_breaks_the_wait(retry_after: str, date: str) -> None:
    """Headers are what a stranger sends."""
    wait_s = retry_after_s({"retry-after": retry_after, "date": date})

    assert wait_s is None or 0 < wait_s <= RETRY_AFTER_MAX_S


def test_a_refusal_explains_itself() -> None:
    """Codes and parameter by their names, and what its words are about in ours."""
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
    ("status", "words", "told"),
    [
        (400, "Invalid schema for response_format 'x': ...", "it is about the response schema"),
        (400, "'messages' must contain the word json_schema", "it is about the response schema"),
        (404, "The model `gpt-9` does not exist or you have no access", "it knows no such model"),
        (400, "Unrecognized request argument supplied: foo", "is not supported"),
        (422, "Extra inputs are not permitted", "is not supported"),
        (400, "Conversation roles must alternate user/assistant", "roles of the messages"),
        (400, "messages: text content blocks must be non-empty", "something is empty"),
        (400, "max_tokens is too large: 100000", "param max_tokens"),
        (400, "max_tokens is too large: 100000", "a value is out of bounds"),
        (400, "Field required", "something is missing"),
        (400, "nothing that anybody foresaw", "the request is not accepted"),
        (400, "maximum context length is 4096 tokens", "more than the model can have"),
        (429, "Request too large: limit 6000 tokens, requested 9000", "no waiting helps"),
        (401, "Incorrect API key provided: sk-x", "the API key is not accepted"),
        (402, "", "no credit"),
        (503, "overloaded", "the provider failed, or is overloaded"),
        (418, "tea", "the request is not accepted"),
        (302, "", "it was sent elsewhere"),
    ],
)
def test_what_a_refusal_is_about_is_said_in_our_words(status: int, words: str, told: str) -> None:
    """An operator need not see the provider's own to know what to do."""
    assert told in refusal(status, {"message": words}).message


@pytest.mark.parametrize(
    ("param", "told"),
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
def test_a_parameter_is_told_as_far_as_its_name_is_ours(param: str, told: str) -> None:
    """A place within a caller's schema, or a number that is no index, may be private."""
    failure = refusal(400, {"param": param})

    assert failure.message.startswith(f"HTTP 400, param {told}: ")


KEY = "sk-test-Zq3vXw9LmB7cRt5yUk2PdF8h"
PROMPT = "the patient Rumpelstilzchen has gout"


def spellings(secret: str) -> list[str]:
    """What a provider could make of a secret so that no filter finds it."""
    data = secret.encode()
    return [
        secret,
        secret[::-1],
        secret.upper(),
        secret.swapcase(),
        " ".join(secret),
        "-".join(secret),
        "_".join(c for c in secret if c.isalnum()),
        "".join(c for c in secret if c.isalnum()),
        "".join(c for c in secret if c.isalnum())[::-1],
        codecs.encode(secret, "rot13"),
        base64.b64encode(data).decode(),
        base64.b32encode(data).decode().rstrip("="),
        base64.urlsafe_b64encode(data[::-1]).decode().rstrip("="),
        data.hex(),
        data[:16].hex(),
        str(UUID(bytes=data[:16])),
        data[:16].hex()[::-1],
        "".join(f"\\u{ord(c):04x}" for c in secret),
        "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in secret),
        *(word for word in secret.split() if len(word) > 3),
        secret[:12],
        secret[-8:],
    ]


FIELDS = (
    *("message", "code", "type", "param", "status", "error_code", "detail", "request_id"),
    *("reason", "errors", "error", "metadata"),
)


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 413, 422, 429, 500])
@pytest.mark.parametrize("secret", [KEY, PROMPT], ids=["key", "prompt"])
def test_no_spelling_of_a_secret_is_kept(status: int, secret: str) -> None:
    """In no field of an error, and in none of its headers."""
    clean = refusal(status, {"message": "no"}).to_json()
    for spelling in spellings(secret):
        for error in (dict.fromkeys(FIELDS, spelling), {"message": [spelling]}, spelling):
            failure = refusal(status, error)
            assert failure.to_json() == clean, spelling


def test_the_message_of_a_refusal_has_few_forms() -> None:
    """Whatever a provider writes: sentences of ours, and names from lists."""
    words = set(re.findall(r"[A-Za-z_]+", " ".join([*SENTENCES.values(), *dict(HINTS).values()])))
    words |= {"HTTP", "param", *KNOWN_NAMES, *PARAMETERS}
    for spelling in [*spellings(KEY), *spellings(PROMPT)]:
        for name in ("invalid_value", "InvalidApiKey"):
            error = {"message": f"unsupported {spelling}", "code": name, "type": spelling}
            told = refusal(400, error).message
            assert set(re.findall(r"[A-Za-z_]+", told)) <= words


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("invalid_value", "invalid_value"),
        ("InvalidValue", "invalid_value"),
        ("Invalid Value", "invalid_value"),
        ("sk-12345678", None),
        ("Rumpelstilzchen", None),
        ("x" * 65, None),
        ("", None),
        (["invalid_value"], None),
        (1300, None),
    ],
)
def test_a_code_is_one_that_many_use(name: object, told: str | None) -> None:
    """A one-word prompt is an identifier too."""
    assert refusal(400, {"code": name}).provider_code == told
