"""How response schemas are made strict before they are sent."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema_rs import validator_for
from pydantic import BaseModel, ConfigDict, Field

from callgate.domain.made_strict import made_closed, made_strict
from callgate.domain.strict_schema import KEYWORDS, allows_strict

pytestmark = pytest.mark.long

NAMES = ("a", "b", "c")
LEAVES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "default": 3},
        {"type": ["string", "null"]},
        {"type": "null"},
        {"type": "string", "enum": ["x", "y"]},
        {"type": ["string", "null"], "enum": ["x", None]},
        {"type": "number", "minimum": 0},
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        {"$ref": "#/$defs/D"},
        {"$ref": "#/$defs/D", "default": None},
        {"$ref": "#/$defs/N"},
    ]
)
OPEN: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"type": "object"}, {"type": "object", "additionalProperties": {"type": "integer"}}]
)


def objects(children: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects as people and Pydantic write them: open, closed or silent; what may be null is often optional."""
    return st.builds(
        lambda properties, required, more, is_lax: {
            "type": "object",
            "properties": properties,
            "required": [n for n, x in properties.items() if n in required or not is_lax(x)],
            **({} if more is None else {"additionalProperties": more}),
        },
        st.dictionaries(st.sampled_from(NAMES), children, min_size=1),
        st.sets(st.sampled_from(NAMES)),
        st.sampled_from([None] * 6 + [False] * 3 + [True]),
        st.sampled_from([_may_be_null] * 9 + [lambda _: True]),
    )


def _may_be_null(schema: dict[str, Any]) -> bool:
    """Only the definition N may be null."""
    if "anyOf" in schema or schema.get("$ref") == "#/$defs/N":
        return True
    return "null" in schema.get("type", [])


def nodes(leaves: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas in schemas."""
    return st.recursive(
        leaves,
        lambda children: (
            objects(children)
            | st.builds(lambda items: {"type": "array", "items": items}, children)
            | st.builds(lambda x: {"anyOf": [x, {"type": "null"}]}, children)
        ),
        max_leaves=6,
    )


def schemas(leaves: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Whole schemas, with two definitions."""
    return st.builds(
        lambda root, d, n: {**root, "$defs": {"D": d, "N": {"anyOf": [n, {"type": "null"}]}}},
        objects(nodes(leaves)),
        objects(leaves),
        objects(leaves),
    )


SCALARS = st.sampled_from(["x", "y", "", 0, -1, 3, 0.5, None, True])


def values_of(schema: dict[str, Any], root: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    """Values near a schema: mostly what it allows, at times something else."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if depth == 0:
        return SCALARS
    if "anyOf" in schema:
        return st.one_of([values_of(branch, root, depth - 1) for branch in schema["anyOf"]])
    if schema.get("type") == "array":
        return st.lists(values_of(schema["items"], root, depth - 1), max_size=2)
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return st.fixed_dictionaries(
            {name: values_of(x, root, depth - 1) for name, x in properties.items()},
            optional={"z": SCALARS},
        )
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    fitting = {"string": st.sampled_from(["x", "y", "z"]), "null": st.none()}
    return st.one_of([fitting.get(t, st.sampled_from([0, 3, -1])) for t in types])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_answer_that_the_strict_schema_allows_is_allowed_by_the_callers(
    data: st.DataObject,
) -> None:
    schema = data.draw(schemas(LEAVES))
    sent = made_strict(json.dumps(schema))
    assume(sent.is_strict)
    values = data.draw(st.lists(values_of(schema, schema, 4), min_size=3, max_size=10))
    strict, callers = validator_for(sent.text), validator_for(json.dumps(schema))

    assert [v for v in values if strict.is_valid(v) and not callers.is_valid(v)] == []


@settings(max_examples=100, deadline=None)
@given(schemas(LEAVES | OPEN))
def test_what_is_called_strict_satisfies_the_rules(schema: dict[str, Any]) -> None:
    """And what is not is sent as the caller wrote it, with a reason."""
    sent = made_strict(text := json.dumps(schema))

    assert allows_strict(json.loads(sent.text)) is sent.is_strict
    assert (sent.why_not is None) is sent.is_strict
    assert sent.is_strict or sent.text == text


@given(
    st.dictionaries(
        st.sampled_from(sorted(KEYWORDS)), st.none() | st.text() | st.lists(st.integers())
    )
)
def test_a_broken_schema_is_sent_as_it_is(schema: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"a": schema}, "default": {}}
    sent = made_strict(json.dumps(schema))

    assert sent.is_strict or json.loads(sent.text) == schema


class Line(BaseModel):
    """A plain model."""

    sku: str
    note: str | None = None


class Invoice(BaseModel):
    """A plain model that refers to another one."""

    number: str
    lines: list[Line]
    first: Line | None = None


def test_a_plain_pydantic_model_is_made_strict() -> None:
    schema = json.dumps(Invoice.model_json_schema())

    sent = made_strict(schema)

    assert sent.is_strict
    changed = json.loads(sent.text)
    assert changed["additionalProperties"] is False
    assert changed["required"] == ["number", "lines", "first"]
    assert changed["$defs"]["Line"]["required"] == ["sku", "note"]
    assert '"default"' not in sent.text
    assert list(changed) == [*json.loads(schema), "additionalProperties"]


def test_a_strict_schema_is_sent_as_it_is() -> None:
    schema = '{"type":"object","properties":{},"required":[],"additionalProperties":false}'

    assert made_strict(schema).text is schema


class Limited(BaseModel):
    """Its limits are no words of strict."""

    tags: set[str]


class Defaulted(BaseModel):
    """An answer without the property is allowed, and one with null is not."""

    lang: str = "en"


class Closed(BaseModel):
    """A property called like a keyword."""

    model_config = ConfigDict(extra="forbid")

    default: Literal["x"] = Field(description="no keyword")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Limited, "$.properties.tags: strict knows no 'uniqueItems'"),
        (Defaulted, "$: its properties are not all required, or others are allowed"),
    ],
)
def test_what_strict_cannot_say_is_named_with_its_place(model: type[BaseModel], why: str) -> None:
    sent = made_strict(schema := json.dumps(model.model_json_schema()))

    assert (sent.text, sent.is_strict, sent.why_not) == (schema, False, why)


def test_a_property_named_default_stays() -> None:
    sent = made_strict(json.dumps(Closed.model_json_schema()))

    assert sent.is_strict
    assert json.loads(sent.text)["properties"]["default"]["const"] == "x"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": True},
        {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "anyOf": [{"type": "object", "properties": {"b": {"type": "string"}}}],
        },
    ],
    ids=str,
)
def test_an_open_object_is_not_closed(part: dict[str, Any]) -> None:
    """Closed, it would allow next to nothing."""
    schema = {"type": "object", "properties": {"x": part}, "required": ["x"]}

    assert not made_strict(json.dumps(schema)).is_strict


def test_a_plain_pydantic_model_is_closed_for_anthropic() -> None:
    """What is optional stays optional."""
    schema = Invoice.model_json_schema()

    sent = made_closed(json.dumps(schema))

    assert sent.is_strict
    changed = json.loads(sent.text)
    assert changed["required"] == schema["required"]
    assert (
        changed["additionalProperties"] is changed["$defs"]["Line"]["additionalProperties"] is False
    )


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_answer_that_the_closed_schema_allows_is_allowed_by_the_callers(
    data: st.DataObject,
) -> None:
    schema = data.draw(schemas(LEAVES))
    sent = made_closed(json.dumps(schema))
    values = data.draw(st.lists(values_of(schema, schema, 4), min_size=3, max_size=10))
    closed, callers = validator_for(sent.text), validator_for(json.dumps(schema))

    assert [v for v in values if closed.is_valid(v) and not callers.is_valid(v)] == []


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "integer", "minimum": 1}, "knows no 'minimum'"),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2}, "no minItems above 1"),
        ({"type": "string", "format": "regex"}, "does not know its format"),
        ({"enum": [{"a": 1}]}, "values of enum"),
        ({"type": "object"}, "other properties are allowed"),
        ({"type": "object", "additionalProperties": {"type": "null"}}, "other properties"),
        ({"type": "array"}, "items are not described"),
        ({"$ref": "#", "title": "x"}, "beside $ref"),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a", "b"]},
            "requires a property",
        ),
        ({}, "it has no type"),
        ({"anyOf": {}}, "no schema that Anthropic knows"),
        (True, "no schema that Anthropic knows"),
    ],
    ids=str,
)
def test_what_anthropic_cannot_be_asked_for_is_named_with_its_place(part: object, why: str) -> None:
    schema = json.dumps({"type": "object", "properties": {"x": part}, "required": ["x"]})

    sent = made_closed(schema)

    assert (sent.text, sent.is_strict) == (schema, False)
    assert sent.why_not is not None
    assert sent.why_not.startswith("$.properties.x: ")
    assert why in sent.why_not
