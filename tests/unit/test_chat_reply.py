"""What is read from chat completions of OpenAI and of compatible servers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.providers.http.answer_wrapping import unwrapped
from callgate.adapters.providers.http.usage import (
    COUNT_FIELDS,
    TOKENS_MAX,
    WireUsage,
    usage_in,
    usage_of,
)
from callgate.adapters.providers.openai.chat_reply import reply_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Anomaly, Usage
from tests.support.openai_attempts import PROMPT, a_request

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["error", "stop", "429", "7", "length"])
    | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices", "message", "content", "text", "usage", "error", "errors", "code", "id", "status",
                    "type", "index", "finish_reason", "refusal", "service_tier", "retry_after",
                    *(name for row in COUNT_FIELDS for name in row.path.split(".")),
                ]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=20,
)  # fmt: skip
COUNTS = st.integers(0, 1_000)


def read(body: bytes, headers: dict[str, str] | None = None) -> ProviderReply | Failure:
    """The result of reading a body."""
    return reply_of(body, headers or {}, a_request(), ProviderEntry())


def a_reply(**fields: object) -> ProviderReply | Failure:
    """The reply read from a chat completion with these fields."""
    body = {"choices": [{"message": {"content": "pong"}, "finish_reason": "stop"}], **fields}
    return read(json.dumps(body).encode())


def test_an_answer_in_parts_is_joined() -> None:
    """Some servers send a list, with thinking in between."""
    parts = [{"type": "text", "text": "po"}, {"type": "thinking", "thinking": []}, {"text": "ng"}]

    reply = a_reply(choices=[{"message": {"content": parts}}])

    assert isinstance(reply, ProviderReply)
    assert reply.texts == ("pong",)


def test_an_answer_without_text_is_empty() -> None:
    reply = a_reply(choices=[{"message": {"content": None, "refusal": "no"}}])

    assert isinstance(reply, ProviderReply)
    assert (reply.texts, reply.refusal) == (("",), "no")


def test_a_lone_surrogate_is_replaced() -> None:
    """JSON can express it and UTF-8 cannot."""
    reply = read(b'{"choices": [{"message": {"content": "ok \\ud83d"}}]}')

    assert isinstance(reply, ProviderReply)
    assert reply.texts == ("ok ?",)


@pytest.mark.parametrize("name", ["model", "service_tier", "id"])
def test_names_are_short_and_printable(name: str) -> None:
    """Columns accept neither NUL nor long names."""
    reply = a_reply(**{name: "a\x00b" + "c" * 1000})

    assert isinstance(reply, ProviderReply)
    field = "provider_request_id" if name == "id" else name
    assert getattr(reply, field) == "a?b" + "c" * 125


def test_the_request_id_header_takes_precedence() -> None:
    body = b'{"id": "chatcmpl-1", "choices": [{"message": {}}]}'

    with_header = read(body, {"x-request-id": "req_1"})
    without = read(body)

    assert isinstance(with_header, ProviderReply)
    assert isinstance(without, ProviderReply)
    assert with_header.provider_request_id == "req_1"
    assert without.provider_request_id == "chatcmpl-1"


def test_a_missing_model_is_the_requested_one() -> None:
    reply = a_reply(model=None)

    assert isinstance(reply, ProviderReply)
    assert reply.model == a_request().model


@given(JSON | st.builds(lambda choice: {"choices": [choice], "usage": choice}, JSON))
def test_any_json_is_a_reply_or_a_failure(body: object) -> None:
    """Both can be stored and read back."""
    answer = read(json.dumps(body).encode())

    if isinstance(answer, Failure):
        assert Failure.from_json(answer.to_json()) == answer
    else:
        assert ProviderReply.from_json(answer.to_json()) == replace(answer, failure=None)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_failure(body: bytes) -> None:
    """Nothing is raised."""
    answer = read(body)

    assert isinstance(answer, Failure)
    assert answer.billing is Billing.UNKNOWN


def test_a_fence_with_many_spaces_is_matched_in_linear_time() -> None:
    for text in ("```" + " " * 10**6 + "x", "`" * 10**6, "```" + "a" * 10**5 + " " * 10**6 + "x"):
        assert unwrapped(text, ("fence", "think")) == text
    assert unwrapped('```  json   {"a": 1} ```', ("fence",)) == '{"a": 1}'


@pytest.mark.parametrize(
    ("depth", "code"),
    [(90, "invalid_response"), (100, "reply_too_large"), (100_000, "reply_too_large")],
)
def test_a_deeply_nested_error_is_read(depth: int, code: str) -> None:
    answer = read(b'{"error": ' * depth + b'{"code": 402}' + b"}" * depth)

    assert isinstance(answer, Failure)
    assert answer.code == code


def test_an_error_in_a_success_names_both_statuses() -> None:
    """And nothing that quotes the prompt or the key."""
    error = {"code": 400, "type": "invalid_request_error", "message": f"bad: {PROMPT}"}

    answer = a_reply(choices=None, error=error)

    assert isinstance(answer, Failure)
    assert answer.message.startswith(
        "HTTP 200 with an error: HTTP 400, invalid_request_error: the request"
    )
    assert (answer.status, answer.provider_code) == (400, "invalid_request_error")
    assert "Jane" not in answer.message


@pytest.mark.parametrize(
    ("headers", "error", "expected"),
    [
        ({}, {"code": 429, "retry_after": 7}, 7.0),
        ({}, {"code": 429, "retry_after": "2.5"}, 2.5),
        ({"retry-after": "3"}, {"code": 429, "retry_after": 7}, 3.0),
        ({}, {"code": 429, "retry_after": True}, None),
        ({}, {"code": 429, "retry_after": -1}, None),
        ({}, {"code": 429, "retry_after": [1]}, None),
        ({}, {"code": 429, "retry_after": float("nan")}, None),
        ({"retry-after": "3"}, {"message": "who knows"}, 3.0),
    ],
)
def test_an_error_in_a_success_can_ask_for_a_wait(
    headers: dict[str, str], error: dict[str, object], expected: float | None
) -> None:
    """By the header, else by the error itself."""
    answer = read(json.dumps({"error": error}).encode(), headers)

    assert isinstance(answer, Failure)
    assert answer.retry_after_s == expected


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.booleans(), st.booleans())
def test_usage_is_read_in_every_dialect(
    plain: int, cached: int, written: int, thought: int, in_in: bool, out_in: bool
) -> None:
    """The total shows which parts are included. Where two parts are equal only the sum is certain."""
    usage = {
        "prompt_tokens": plain + cached * in_in,
        "completion_tokens": written + thought * out_in,
        "cached_tokens": cached,
        "completion_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": plain + cached + written + thought,
    }

    reported = usage_of(usage)

    assert reported.usage is not None
    assert reported.anomalies == ()
    assert reported.usage.input_tokens + reported.usage.output_tokens == usage["total_tokens"]
    if cached != thought:
        assert reported.usage.input_tokens == plain + cached
        assert reported.usage.reasoning_tokens == thought


@given(
    st.dictionaries(
        st.sampled_from([row.path for row in COUNT_FIELDS if "." not in row.path]), COUNTS
    )
)
def test_contradictory_usage_is_read_at_the_highest_cost(usage: dict[str, int]) -> None:
    """At least the greatest input, the greatest output and the total."""
    reported = usage_of(usage)

    if reported.usage is None:
        return
    names = {row.path: row.kind for row in COUNT_FIELDS}
    for kind, posted in (
        ("input", reported.usage.input_tokens),
        ("output", reported.usage.output_tokens),
        ("total", reported.usage.input_tokens + reported.usage.output_tokens),
    ):
        named = [count for path, count in usage.items() if names[path] == kind]
        assert posted >= max(named, default=0) or not reported.anomalies
    assert (
        reported.usage.cached_input_tokens + reported.usage.cache_write_tokens
        <= reported.usage.input_tokens
    )
    assert reported.usage.reasoning_tokens <= reported.usage.output_tokens


def test_every_count_field_is_read_and_has_its_source() -> None:
    for row in COUNT_FIELDS:
        assert row.source
        parts: dict[str, object] = {"prompt_tokens": 500, "completion_tokens": 500}
        outer, _, inner = row.path.partition(".")
        usage = {**parts, outer: {inner: 400} if inner else 400}
        if row.kind in ("input", "output", "total"):
            usage = {outer: 400, **({"total_tokens": 700} if row.kind != "total" else parts)}
        read_as = usage_of(usage).usage
        assert read_as is not None, row
        if row.kind != "total":
            names = {"cached": "cached_input", "cache_write_5m": "cache_write"}
            field = names.get(row.kind, row.kind) + "_tokens"
            assert getattr(read_as, field) == 400, row


def test_an_empty_usage_is_skipped() -> None:
    """Some gateways send an empty one in the usual place."""
    reply = {"usage": {}, "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}

    assert usage_in(reply, has_text=True) == WireUsage(Usage(input_tokens=3, output_tokens=4))


@pytest.mark.parametrize(
    "count", [-1, 7.5, True, "nine", [], TOKENS_MAX + 1, float("inf"), "1" * 400]
)
def test_an_invalid_count_is_implausible(count: object) -> None:
    """Then the whole hold is posted; a guess could be too low."""
    assert usage_of(
        {"prompt_tokens": count, "completion_tokens": 1, "total_tokens": 9}
    ) == WireUsage(None, (Anomaly.USAGE_IMPLAUSIBLE,))
