"""Which failure each exception becomes, and that none of them says what it should not."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import aiohttp
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.openai_errors import (
    SENT,
    UNSENT,
    Asked,
    NoClient,
    ReplyTooLarge,
    Table,
    failure_of,
)
from callgate.adapters.openai_redaction import WORDS_CHARS_MAX, Redactor
from callgate.adapters.openai_refusals import RETRY_AFTER_MAX_S, STATUSES, retry_after_s
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.retry import Billing, Failure

REQUEST = httpx2.Request("POST", "http://provider.invalid/v1/chat/completions")
ROWS = [kind for kind, _ in SENT]
CATCH_ALLS = (Exception, OSError)


def the_failure(
    exc: Exception, *, secrets: tuple[str, ...] = (), is_sent: bool = True, **entry: Any
) -> Failure:
    """What the exception becomes."""
    return failure_of(exc, Asked(ProviderEntry(**entry), secrets), is_sent=is_sent)


def refusal(
    status: int,
    error: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    secrets: tuple[str, ...] = (),
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
    return the_failure(raised.value, secrets=secrets, server_errors=server_errors)


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
    assert refusal(400, {"code": None, "type": "bad_type"}).provider_code == "bad_type"


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


@pytest.mark.parametrize("status", sorted({*STATUSES, 307, 500} - {400, 404, 413, 422}))
def test_most_statuses_need_no_words_of_the_provider(status: int) -> None:
    """The provider's own words are kept only where they help whoever wrote the request."""
    failure = refusal(status, {"message": "organisation Umbrella is out of luck"})

    assert "Umbrella" not in failure.message


def test_a_refusal_explains_itself() -> None:
    """The provider's words, without what they quote."""
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
        "HTTP 400, invalid_request_error, unsupported_value, param temperature, "
        "Unsupported value: *** does not support 0.2 with this model."
    )


@pytest.mark.parametrize(
    "words",
    [
        "You sent: my dog is called Rex and",
        "You sent 'x",
        'value "my dog"',
        "key sk-abcdefgh is wrong",
        "key sk-ab**********yz is wrong",
        "Authorization: Bearer abcdefgh",
        "\u72d7\u53eb\u96f7\u514b\u65af",
        "esc \\u72d7\\u53eb",
        "bXkgZG9nIGlzIGNhbGxlZCBSZXg9PT09",
    ],
)
def test_nothing_private_is_kept(words: str) -> None:
    """Neither plain nor quoted, escaped, encoded, foreign or half masked."""
    shown = Redactor(("my dog is called Rex and he bites", "sk-abcdefghijkl")).words(words)

    for private in ("dog", "Rex", "sk-", "abcdefgh", "\\u", "bXkg", "'", '"'):
        assert private not in shown
    assert shown.isascii()


@given(st.text(alphabet="abcdefgh ", min_size=8, max_size=60), st.integers(0, 50), st.integers())
def test_no_long_run_of_a_secret_is_kept(secret: str, start: int, cut: int) -> None:
    """Wherever in the words a piece of the secret stands."""
    piece = secret[start : start + max(8, cut % 40)]

    shown = Redactor((secret,)).words(f"It says {piece} there")

    line = " ".join(secret.split())
    assert not [i for i in range(len(line) - 7) if line[i : i + 8] in shown]


@given(st.text(), st.lists(st.text(max_size=30), max_size=3))
def test_words_are_bounded(words: str, secrets: list[str]) -> None:
    """Any words, any secrets: short, printable ASCII comes out."""
    shown = Redactor(secrets).words(words)

    assert len(shown) <= 3 * WORDS_CHARS_MAX
    assert shown.isascii()
    assert shown.isprintable()


@pytest.mark.parametrize(
    "name", ["", "two words", "sk-12345678", "x" * 65, "caf\u00e9", "1st", 400, None, ["a"]]
)
def test_an_identifier_is_short_and_plain(name: object) -> None:
    """A code that is no identifier is none, whatever it is instead."""
    assert Redactor(()).identifier(name) is None


def test_an_identifier_does_not_repeat_a_secret() -> None:
    """A provider can put a one-word prompt into its code."""
    assert Redactor(("my name is Rumpelstilzchen",)).identifier("Rumpelstilzchen") is None
    assert Redactor(("Rex1",)).identifier("Rex1") is None


def test_a_quotation_in_letters_of_another_size_is_one() -> None:
    """Headings and moderation verdicts are often written so."""
    shown = Redactor(("my dog is called Rex and he bites", "K7y")).words(
        "FLAGGED: My Dog Is Called REX"
    )

    assert "rex" not in shown.lower()
