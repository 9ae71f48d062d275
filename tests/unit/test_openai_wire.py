"""What is written to OpenAI's chat completions, and what is read from them."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from callgate.adapters.openai_wire import (
    TOKENS_MAX,
    reply_of,
    request_body,
    usage_of,
)
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.models import LLMRequest, Message, ServiceTier, Usage
from callgate.domain.ports import ProviderReply
from callgate.domain.retry import Billing, Failure

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "text", "usage", "error", "code", "id"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=20,
)


class Line(BaseModel):
    """A part of `Invoice`."""

    model_config = ConfigDict(extra="forbid")

    text: str
    amount: float | None


class Invoice(BaseModel):
    """A model whose schema satisfies strict mode as Pydantic writes it."""

    model_config = ConfigDict(extra="forbid")

    number: str
    currency: Literal["EUR", "USD"]
    lines: list[Line]


def a_request(**fields: Any) -> LLMRequest:
    """A request with everything that must be set."""
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "extraction",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "messages": (Message(role="user", content="ping"),),
            "max_output_tokens": 50,
            **fields,
        }
    )


def body_of(request: LLMRequest, **entry: Any) -> dict[str, Any]:
    """The request body, read back."""
    body: dict[str, Any] = json.loads(request_body(request, ProviderEntry(**entry)))
    return body


def a_reply(**fields: object) -> ProviderReply | Failure:
    """What a chat completion with these fields is read as."""
    body = {"choices": [{"message": {"content": "pong"}}], **fields}
    return reply_of(json.dumps(body).encode(), {}, "asked-model")


def test_only_what_is_set_is_sent() -> None:
    """A parameter nobody set is the provider's to choose, and unknown ones annoy small servers."""
    assert body_of(a_request()) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "ping"}],
        "max_completion_tokens": 50,
    }


def test_everything_that_is_set_is_sent() -> None:
    """Zero is a value too."""
    request = a_request(
        n=2, temperature=0, top_p=0.5, seed=0, stop=("END",), service_tier=ServiceTier.PRIORITY
    )

    assert body_of(request, sends_service_tier=True) == {
        **body_of(a_request()),
        "n": 2,
        "temperature": 0,
        "top_p": 0.5,
        "seed": 0,
        "stop": ["END"],
        "service_tier": "priority",
    }


def test_the_bound_of_the_output_goes_where_the_endpoint_reads_it() -> None:
    """An endpoint that ignores the bound could bill more than was held."""
    body = body_of(a_request(), output_bound_field="max_tokens")

    assert body["max_tokens"] == 50
    assert "max_completion_tokens" not in body


def test_the_schema_is_sent_in_its_own_order() -> None:
    """The very text: neither its keys nor its numbers are touched."""
    schema = '{"type":"object","z":1e2,"a":{"\u00fc":1.0,"b":2}}'

    body = request_body(a_request(response_schema=schema), ProviderEntry())

    assert body.endswith(
        '"response_format":{"type":"json_schema","json_schema":'
        '{"name":"response","strict":false,"schema":'
        '{"type":"object","z":100.0,"a":{"\u00fc":1.0,"b":2}}}}}'.encode()
    )
    assert json.loads(body)["model"] == "gpt-4o-mini"


def test_a_schema_that_allows_it_is_sent_as_strict() -> None:
    """Then the provider guarantees the shape."""
    body = body_of(a_request(response_schema=Invoice))

    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == Invoice.model_json_schema()


def test_a_fine_tuned_model_is_asked_by_its_own_rules() -> None:
    """It takes fewer keywords with `strict`."""

    class Code(BaseModel):
        model_config = ConfigDict(extra="forbid")
        code: str = Field(pattern="^[A-Z]+$")

    asked = [
        body_of(a_request(model=model, response_schema=Code))
        for model in ("gpt-4o-mini", "ft:gpt-4o-mini-2024-07-18:acme::7")
    ]

    strict = [body["response_format"]["json_schema"]["strict"] for body in asked]
    assert strict == [True, False]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, Usage(input_tokens=9, output_tokens=4)),
        ({"prompt_tokens": 9, "completion_tokens": 4}, Usage(input_tokens=9, output_tokens=4)),
        (
            USAGE | {"prompt_tokens_details": None, "completion_tokens_details": {}},
            Usage(input_tokens=9, output_tokens=4),
        ),
        (
            USAGE
            | {
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
            Usage(
                input_tokens=9,
                cached_input_tokens=5,
                cache_write_tokens=4,
                output_tokens=4,
                reasoning_tokens=4,
            ),
        ),
    ],
)
def test_usage_is_read(usage: object, expected: Usage) -> None:
    """Cached tokens are part of the input, reasoning is part of the output."""
    assert usage_of(usage) == expected


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        {"prompt_tokens": 9},
        USAGE | {"prompt_tokens": -1, "total_tokens": 3},
        USAGE | {"prompt_tokens": 9.0},
        USAGE | {"prompt_tokens": True, "total_tokens": 5},
        USAGE | {"prompt_tokens": "9"},
        USAGE | {"completion_tokens": None},
        {"prompt_tokens": TOKENS_MAX + 1, "completion_tokens": 0},
        USAGE | {"prompt_tokens_details": {"cached_tokens": 10}},
        USAGE | {"prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 5}},
        USAGE | {"prompt_tokens_details": {"cached_tokens": -1}},
        USAGE | {"prompt_tokens_details": "none"},
        USAGE | {"completion_tokens_details": {"reasoning_tokens": 5}},
        USAGE | {"total_tokens": 99},
    ],
    ids=str,
)
def test_usage_that_cannot_be_true_is_none(usage: object) -> None:
    """Then nobody knows the cost; a guess could be too low. A total above the sum hides tokens that are billed."""
    assert usage_of(usage) is None


def test_an_answer_in_parts_is_put_together() -> None:
    """Some servers send a list, with thinking in between."""
    parts = [{"type": "text", "text": "po"}, {"type": "thinking", "thinking": []}, {"text": "ng"}]

    reply = a_reply(choices=[{"message": {"content": parts}}])

    assert isinstance(reply, ProviderReply)
    assert reply.texts == ("pong",)


def test_an_answer_without_text_is_empty() -> None:
    """A refusal has no content."""
    reply = a_reply(choices=[{"message": {"content": None, "refusal": "no"}}])

    assert isinstance(reply, ProviderReply)
    assert (reply.texts, reply.refusal) == (("",), "no")


def test_half_a_character_can_be_stored() -> None:
    """A model may be cut off within a surrogate pair; JSON can say so and UTF-8 cannot."""
    reply = reply_of(b'{"choices": [{"message": {"content": "ok \\ud83d"}}]}', {}, "m")

    assert isinstance(reply, ProviderReply)
    assert reply.texts == ("ok ?",)


@pytest.mark.parametrize("name", ["model", "service_tier", "id"])
def test_names_are_short_and_printable(name: str) -> None:
    """They go into columns that take neither NUL nor novels."""
    reply = a_reply(**{name: "a\x00b" + "c" * 1000})

    assert isinstance(reply, ProviderReply)
    field = "provider_request_id" if name == "id" else name
    assert getattr(reply, field) == "a?b" + "c" * 125


def test_the_request_id_of_the_header_comes_first() -> None:
    """It is the one the provider's support asks for."""
    body = b'{"id": "chatcmpl-1", "choices": [{"message": {}}]}'

    with_header = reply_of(body, {"x-request-id": "req_1"}, "m")
    without = reply_of(body, {}, "m")

    assert isinstance(with_header, ProviderReply)
    assert isinstance(without, ProviderReply)
    assert with_header.provider_request_id == "req_1"
    assert without.provider_request_id == "chatcmpl-1"


def test_a_reply_that_names_no_model_has_the_one_asked_for() -> None:
    """Something must be priced."""
    reply = a_reply(model=None)

    assert isinstance(reply, ProviderReply)
    assert reply.model == "asked-model"


@given(JSON | st.builds(lambda choice: {"choices": [choice], "usage": choice}, JSON))
def test_any_json_is_a_reply_or_a_failure(body: object) -> None:
    """And what it is can be stored."""
    answer = reply_of(json.dumps(body).encode(), {}, "m")

    if isinstance(answer, Failure):
        assert (answer.code, answer.billing) == ("invalid_response", Billing.UNKNOWN)
    else:
        assert all(text.encode() is not None for text in answer.texts)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_failure(body: bytes) -> None:
    """Nothing is raised."""
    assert isinstance(reply_of(body, {}, "m"), Failure)
