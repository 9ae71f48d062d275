"""Identity: which requests are the same call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from callgate.domain.identity import (
    IN_IDENTITY,
    NOT_IN_IDENTITY,
    call_id,
    canonical_bytes,
    input_hash,
)
from callgate.domain.messages import later_fields
from callgate.domain.requests import LLMRequest, OnBudget

GOLDEN_BYTES = (
    b'{"call_type":"extraction","hash_version":1,"max_output_tokens":300,'
    b'"messages":[{"content":"You extract.","role":"system"},'
    b'{"content":"Rechnung \xc3\xbcber 7 \xe2\x82\xac","role":"user"}],'
    b'"model":"gpt-4o-mini","n":1,"prompt_version":"v3","provider":"openai",'
    b'"response_schema":"{\\"type\\":\\"object\\",\\"properties\\":{\\"total\\":{\\"type\\":\\"number\\"}}}",'
    b'"sample_index":0,"seed":null,"service_tier":"default","stop":[],"temperature":0.2,"top_p":null}'
)
GOLDEN_HASH = "469dc84a87cec5462303067630edc8cdc39b19e0be4b8814e1c926c15011c17e"
GOLDEN_CALL_ID = UUID("61705507-f5c2-8597-b4b9-0ac29306e9f7")

VECTORS = json.loads((Path(__file__).parent / "domain/identity_0_1_0.json").read_text("utf-8"))
"""Requests, and their hashes as release 0.1.0 computes them. They never change."""


TOOL = {"name": "add", "parameters": {"type": "object"}}


def a_request(**changes: Any) -> LLMRequest:
    """The request whose hash is pinned."""
    fields: dict[str, Any] = {
        "org_id": "acme",
        "call_type": "extraction",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You extract."},
            {"role": "user", "content": "Rechnung über 7 €"},
        ],
        "max_output_tokens": 300,
        "temperature": 0.2,
        "prompt_version": "v3",
        "response_schema": {"type": "object", "properties": {"total": {"type": "number"}}},
    }
    return LLMRequest.model_validate({**fields, **changes})


def id_of(request: LLMRequest) -> UUID:
    """The call id of a request."""
    return call_id(request.org_id, input_hash(request))


def test_the_canonical_bytes_are_pinned() -> None:
    """Sorted keys, no blanks, UTF-8 (RFC 8785). A change needs a new HASH_VERSION."""
    assert canonical_bytes(a_request()) == GOLDEN_BYTES


def test_the_hash_of_a_request_is_pinned() -> None:
    """Calls of one version answer for the next one, on any machine."""
    request = a_request()

    assert input_hash(request).hex() == GOLDEN_HASH
    assert id_of(request) == GOLDEN_CALL_ID


def test_the_key_order_of_a_message_does_not_matter() -> None:
    swapped = a_request(
        messages=[
            {"content": "You extract.", "role": "system"},
            {"content": "Rechnung über 7 €", "role": "user"},
        ]
    )

    assert input_hash(swapped) == input_hash(a_request())


def test_a_request_read_back_is_the_same_call() -> None:
    """Through JSON and back, as in a worker."""
    request = a_request()

    again = LLMRequest.model_validate_json(request.model_dump_json())

    assert input_hash(again) == input_hash(request)


@pytest.mark.parametrize(
    "changes",
    [{"document_pages": 9}, {"trace_id": "trace-1"}, {"on_budget": OnBudget.WAIT}],
    ids=lambda changes: next(iter(changes)),
)
def test_fields_that_do_not_change_the_answer_are_not_hashed(changes: dict[str, Any]) -> None:
    assert input_hash(a_request(**changes)) == input_hash(a_request())


@pytest.mark.parametrize(("written", "meant"), [(0, 0.0), (1, 1.0), (-0.0, 0.0)])
def test_numbers_are_compared_by_value(written: float, meant: float) -> None:
    """1 and 1.0 are the same."""
    one, other = a_request(temperature=written), a_request(temperature=meant)

    assert input_hash(one) == input_hash(other)


def test_blanks_in_a_schema_do_not_matter() -> None:
    """A schema is hashed as compact text."""
    spaced = '{ "type": "object",\n "properties": {"total": {"type": "number"}} }'

    assert input_hash(a_request(response_schema=spaced)) == input_hash(a_request())


@pytest.mark.parametrize(
    "changes",
    [
        {"call_type": "triage"},
        {"provider": "azure"},
        {"model": "gpt-4o"},
        {"messages": [{"role": "user", "content": "Rechnung über 7 €"}]},
        {"max_output_tokens": 301},
        {"max_output_tokens": None},
        {"n": 2},
        {"temperature": 0.3},
        {"temperature": None},
        {"top_p": 0.5},
        {"seed": 0},
        {"stop": ["."]},
        {"response_schema": None},
        {"prompt_version": "v4"},
        {"sample_index": 1},
        {"service_tier": "flex"},
        {"tools": [TOOL]},
        {"tools": [{**TOOL, "description": "adds"}]},
        {"tools": [{**TOOL, "cache": "5m"}]},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"name": "add"}},
        {"top_k": 1},
        {"reasoning_effort": "low"},
        {"thinking_tokens": 100},
        {"verbosity": "low"},
        {"prompt_cache_key": "k"},
        {"extra": {"a": 1, "b": 2}},
    ],
    ids=str,
)
def test_fields_that_change_the_answer_are_hashed(changes: dict[str, Any]) -> None:
    """Each counts, also None as a value."""
    assert input_hash(a_request(**changes)) != input_hash(a_request())


def test_every_field_is_in_one_list() -> None:
    """A new field must be put into one: it changes the answer, or it does not."""
    assert set(LLMRequest.model_fields) == IN_IDENTITY | NOT_IN_IDENTITY
    assert not IN_IDENTITY & NOT_IN_IDENTITY


def test_every_field_in_identity_is_hashed() -> None:
    """Those of 0.1.0 always, a later one when it is set."""
    later = {
        "tools": [TOOL], "tool_choice": "auto", "top_k": 1, "thinking_tokens": 1, "verbosity": "low",
        "prompt_cache_key": "k", "extra": {"a": 1},
    }  # fmt: skip
    hashed = json.loads(canonical_bytes(a_request()))
    all_hashed = json.loads(canonical_bytes(a_request(**later)))

    assert set(hashed) == IN_IDENTITY - later_fields(LLMRequest) | {"hash_version"}
    assert set(all_hashed) == IN_IDENTITY - {"reasoning_effort"} | {"hash_version"}


ANSWERED = {"role": "assistant", "content": "hm", "tool_calls": [], "reasoning": []}
THOUGHT = {"protocol": "anthropic", "text": "hm", "data": "{}"}
ASKED = {"id": "call_1", "name": "add", "arguments": "{}"}


@pytest.mark.parametrize(
    "changed",
    [
        {**ANSWERED, "tool_calls": [ASKED]},
        {**ANSWERED, "reasoning": [THOUGHT]},
        {**ANSWERED, "cache": "1h"},
        {"role": "tool", "content": "hm", "tool_call_id": "call_1"},
        {"role": "tool", "content": "hm", "tool_call_id": "call_2"},
    ],
    ids=["tool calls", "reasoning", "cache", "a tool's result", "another tool's result"],
)
def test_what_a_message_has_beside_its_text_is_hashed(changed: dict[str, Any]) -> None:
    plain = a_request(messages=[ANSWERED])

    assert input_hash(a_request(messages=[changed])) != input_hash(plain)
    assert b"tool_calls" not in canonical_bytes(plain)


@pytest.mark.parametrize("later", ["tools", "extra", "reasoning", "tool_call_id", "top_k", "cache"])
def test_a_plain_request_is_stored_without_later_fields(later: str) -> None:
    """A worker of 0.1.0 refuses fields that it does not know."""
    assert f'"{later}"' not in a_request().model_dump_json()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_hashes_are_those_of_0_1_0(vector: dict[str, Any]) -> None:
    """Otherwise a new release would pay again for results that it has."""
    request = LLMRequest.model_validate_json(json.dumps(vector["request"]))

    assert input_hash(request).hex() == vector["input_hash"]


def test_the_vectors_use_every_field() -> None:
    used = {name for vector in VECTORS for name in vector["request"]}

    assert used == (IN_IDENTITY | NOT_IN_IDENTITY) - later_fields(LLMRequest)


def test_the_order_of_messages_matters() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]

    assert input_hash(a_request(messages=turns)) != input_hash(a_request(messages=turns[::-1]))


def test_the_key_order_of_a_schema_matters() -> None:
    """Models write keys in the order they are shown."""
    one = '{"properties": {"a": {}, "b": {}}}'
    other = '{"properties": {"b": {}, "a": {}}}'

    assert input_hash(a_request(response_schema=one)) != input_hash(
        a_request(response_schema=other)
    )


def test_a_model_class_is_hashed_by_its_schema() -> None:
    """A Pydantic class, its schema as a dict and its schema as text are one request."""

    class Invoice(BaseModel):
        total: float
        currency: str

    schema = Invoice.model_json_schema()

    assert input_hash(a_request(response_schema=Invoice)) == input_hash(
        a_request(response_schema=schema)
    )


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_texts_are_different_calls(one: str, other: str) -> None:
    """Also if they look alike: nothing is normalized."""
    hashes = {
        input_hash(a_request(messages=[{"role": "user", "content": text}])) for text in (one, other)
    }

    assert len(hashes) == len({one, other})


def deep(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema inside as many levels as JSON can be written with."""
    for _ in range(450):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize("field", ["temperature", "top_p"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(field: str, number: float) -> None:
    """JSON does not have them."""
    with pytest.raises(ValidationError):
        a_request(**{field: number})


@pytest.mark.parametrize(
    "schema",
    [
        {"minimum": float("nan")},
        {"maximum": float("inf")},
        '{"minimum": NaN}',
        '{"maximum": -Infinity}',
    ],
    ids=str,
)
def test_a_schema_that_is_not_json_is_refused(schema: object) -> None:
    """Python's JSON is more tolerant than other parsers."""
    with pytest.raises(ValidationError):
        a_request(response_schema=schema)


class Gap(BaseModel):
    """A model with a default that Pydantic accepts and JSON does not have."""

    value: float = float("nan")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (Gap, r"\$\.properties\.value\.default is nan"),
        ({"properties": {"a": {"maximum": float("-inf")}}}, r"\$\.properties\.a\.maximum is -inf"),
        ('{"anyOf": [{}, {"enum": [0, 1e999]}]}', r"\$\.anyOf\[1\]\.enum\[1\] is inf"),
        (
            {"properties": {"a": {"default": "\ud800"}}},
            r"\$\.properties\.a\.default has a lone surrogate",
        ),
        (
            {"properties": {"\ud800": {}}},
            r"a name in \$\.properties has a lone surrogate.* '\\ud800'",
        ),
        ({"properties": {"a": {"default": {1}}}}, r"\$\.properties\.a\.default is a set"),
        ({(1, 2): 3}, "keys must be str"),
        (deep({"minimum": float("nan")}), "is nan|nested too deeply"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_that_is_not_json_is_named_with_its_path(schema: object, says: str) -> None:
    """For a model class this is the field."""
    with pytest.raises(ValidationError, match=says):
        a_request(response_schema=schema)


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": [{"role": "user", "content": "half a pair: \ud83d"}]},
        {"stop": ["\ud800"]},
        {"trace_id": "\udfff"},
        {"response_schema": {"title": "\ud800"}},
        {"response_schema": '{"title": "\\ud800"}'},
        {"tools": [{**TOOL, "description": "\ud800"}]},
        {"messages": [{**ANSWERED, "tool_calls": [{**ASKED, "arguments": "\ud800"}]}]},
        {"messages": [{**ANSWERED, "reasoning": [{**THOUGHT, "text": "\ud800"}]}]},
        {"extra": {"a": "\ud800"}},
    ],
    ids=[
        "message",
        "stop",
        "trace_id",
        "schema",
        "schema text",
        "tool",
        "arguments",
        "thoughts",
        "extra",
    ],
)
def test_lone_surrogates_are_refused(changes: dict[str, Any]) -> None:
    """They can be neither stored nor sent."""
    with pytest.raises(ValidationError):
        a_request(**changes)


def test_a_call_belongs_to_its_organisation() -> None:
    """The organisation is part of the id, not of the hash."""
    acme, zeta = a_request(), a_request(org_id="zeta")

    assert input_hash(acme) == input_hash(zeta)
    assert id_of(acme) != id_of(zeta)


HASHES = st.binary(min_size=32, max_size=32)


@given(st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True), HASHES, HASHES)
def test_a_call_id_is_a_uuid_of_version_8(org_id: str, one: bytes, other: bytes) -> None:
    """Derived from organisation and hash."""
    made = call_id(org_id, one)

    assert (made.version, made.variant) == (8, RFC_4122)
    assert (made == call_id(org_id, other)) == (one == other)
