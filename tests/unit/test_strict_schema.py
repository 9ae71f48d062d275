"""Which JSON Schemas are sent to OpenAI with `strict`."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, create_model

from callgate.domain.strict_schema import KEYWORDS, allows_strict

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(KEYWORDS)), children, max_size=4)
    ),
    max_leaves=20,
)


def an_object(*properties: str, **changes: object) -> dict[str, Any]:
    """A strict schema with changes."""
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in properties},
        "required": list(properties),
        "additionalProperties": False,
        **changes,
    }


def with_type(**schema: object) -> dict[str, Any]:
    """A schema whose one property is this."""
    return an_object("a", properties={"a": schema})


def with_enum(*values: object) -> dict[str, Any]:
    """A schema whose one property has these values."""
    return with_type(type="string", enum=list(values))


def with_enums(*counts: int) -> dict[str, Any]:
    """A schema with one enum of so many short values for each count."""
    properties = {
        f"p{n}": {"type": "string", "enum": [f"{v}" for v in range(count)]}
        for n, count in enumerate(counts)
    }
    return an_object(*properties, properties=properties)


def objects(count: int, innermost: object = None) -> dict[str, Any]:
    """Nested objects."""
    node: dict[str, Any] = an_object("a", properties={"a": innermost or {"type": "string"}})
    for _ in range(count - 1):
        node = an_object("a", properties={"a": node})
    return node


def models(count: int) -> dict[str, Any]:
    """Nested Pydantic models, which refer to each other's definitions."""
    model: type[BaseModel] | type[str] = str
    for n in range(count):
        model = create_model(f"M{n}", __config__=ConfigDict(extra="forbid"), a=(model, ...))
    assert issubclass(model, BaseModel)
    return model.model_json_schema()


def definitions(count: int) -> dict[str, Any]:
    """The same by hand: each definition refers to the next one."""
    chain = {
        f"D{n}": an_object("a", properties={"a": {"$ref": f"#/$defs/D{n + 1}"}})
        for n in range(count)
    }
    last = {f"D{count}": {"type": "string"}}
    return an_object("a", properties={"a": {"$ref": "#/$defs/D0"}}) | {"$defs": chain | last}


class Tree(BaseModel):
    """A recursive model."""

    model_config = ConfigDict(extra="forbid")

    name: str
    branches: list[Tree]


class Forest(BaseModel):
    """A root object, as strict mode requires, around a recursive model."""

    model_config = ConfigDict(extra="forbid")

    trees: list[Tree]


LIST = {"type": "array", "items": {"type": "string"}}


@pytest.mark.parametrize(
    "schema",
    [
        an_object(),
        an_object("a", "b"),
        an_object("a", title="T", description="D"),
        an_object("a", properties={"a": {"type": ["string", "null"]}}),
        an_object("a", properties={"a": {"type": "array", "items": an_object("b")}}),
        an_object("a", properties={"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/X"}]}})
        | {"$defs": {"X": an_object("y")}},
        an_object("a", properties={"a": {"type": "string", "format": "date", "pattern": "^x"}}),
    ],
    ids=lambda schema: str(schema)[-60:],
)
def test_a_closed_schema_is_strict(schema: dict[str, Any]) -> None:
    assert allows_strict(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "string"},
        {"type": "object"},
        an_object("a", additionalProperties=True),
        an_object("a", additionalProperties={"type": "string"}),
        {"type": "object", "properties": {}, "required": []},
        an_object("a", "b", required=["a"]),
        an_object("a", required=["a", "b"]),
        an_object("a", required="a"),
        an_object("a", properties={"a": True}),
        an_object("a", properties={"a": {}}),
        an_object("a", properties={"a": {"type": "object"}}),
        an_object("a", properties={"a": {"type": "array"}}),
        an_object("a", properties={"a": {"type": "array", "items": {"type": "object"}}}),
        an_object("a", properties={"a": {"type": "string", "default": "x"}}),
        an_object("a", properties={"a": {"type": "string", "minLength": 1}}),
        an_object("a", properties={"a": {"type": "string", "format": "uri"}}),
        an_object("a", properties={"a": {"type": "string", "format": []}}),
        an_object("a", properties={"a": {"type": "string", "pattern": "(?!x)"}}),
        an_object("a", properties={"a": {"$ref": "#/$defs/X", "description": "d"}}),
        an_object("a", properties={"a": {"anyOf": [{"type": "object"}]}}),
        an_object("a", properties={"a": {"anyOf": {}}}),
        an_object("a", **{"$defs": {"X": {"type": "object"}}}),
        an_object("a", **{"$defs": []}),
        an_object("a", anyOf=[an_object("b")]),
        an_object("a", allOf=[]),
    ],
    ids=lambda schema: str(schema)[-60:],
)
def test_an_unsuitable_schema_is_not_strict(schema: object) -> None:
    """It is sent without `strict`, neither rewritten nor refused."""
    assert not allows_strict(schema)


@given(JSON)
def test_any_schema_is_classified(schema: object) -> None:
    assert allows_strict({**an_object("a"), "properties": {"a": schema}}) in (True, False)


@pytest.mark.parametrize(
    "schema",
    [
        an_object(*map(str, range(5_000))),
        an_object("n" * 119_997, properties={"n" * 119_997: {"$ref": "#/$defs/xyz"}})
        | {"$defs": {"xyz": {"type": "string"}}},
        with_type(type="string", const="c" * 119_999),
        with_enum("v" * 119_999),
        with_enums(500, 500),
        with_enum(*(f"{n:060}" for n in range(250))),
        with_enum(*(f"{n:050}" for n in range(300))),
        with_enum(*(f"{n:060}" for n in range(250))) | {"title": "t" * 200_000},
        objects(10),
        objects(9, LIST),
        models(10),
        Forest.model_json_schema(),
    ],
    ids=lambda schema: json.dumps(schema)[-60:],
)
def test_a_schema_at_every_size_limit_is_strict(schema: dict[str, Any]) -> None:
    """Titles and descriptions do not count."""
    assert allows_strict(schema)


@pytest.mark.parametrize(
    "schema",
    [
        an_object(*map(str, range(5_001))),
        an_object("n" * 119_998, properties={"n" * 119_998: {"$ref": "#/$defs/xyz"}})
        | {"$defs": {"xyz": {"type": "string"}}},
        with_type(type="string", const="c" * 120_000),
        with_enum("v" * 120_000),
        with_enums(500, 501),
        with_enum(*(f"{n:051}" for n in range(300))),
        with_enum(*(f"{n:060}" for n in range(251))),
        objects(11),
        objects(10, LIST),
        objects(9, {"anyOf": [{"type": "null"}, LIST]}),
        objects(400),
        models(11),
        definitions(3_000),
        an_object("a", properties={"a": {"$ref": "#/properties/a"}}),
    ],
    ids=lambda schema: json.dumps(schema)[-60:],
)
def test_a_schema_over_a_size_limit_is_not_strict(schema: dict[str, Any]) -> None:
    """OpenAI would refuse it with a 400."""
    assert not allows_strict(schema)


def test_recursive_references_are_counted_in_bounded_time() -> None:
    """Every definition is counted once, although the paths through them are countless."""
    names = [f"D{n}" for n in range(200)]
    definitions = {
        name: an_object(*names, properties={other: {"$ref": f"#/$defs/{other}"} for other in names})
        for name in names[:20]
    }
    leaves = {name: {"type": "string"} for name in names[20:]}
    schema = an_object("a", properties={"a": {"$ref": "#/$defs/D0"}})

    assert allows_strict({**schema, "$defs": {**definitions, **leaves}}) in (True, False)


def test_a_definition_with_many_spellings_is_counted_once() -> None:
    """A schema of 170 kB once blocked its worker for seven seconds."""
    name = "abcdefghijkl"
    spellings = [
        "".join(f"%{ord(char):x}" if n >> place & 1 else char for place, char in enumerate(name))
        for n in range(2_000)
    ]
    wide = {"type": "array", "items": {"anyOf": [{"type": "null"}] * 3_500}}
    properties = {f"p{n}": {"$ref": f"#/$defs/{spelled}"} for n, spelled in enumerate(spellings)}
    begun = time.process_time()

    assert allows_strict({**an_object(*properties, properties=properties), "$defs": {name: wide}})
    assert time.process_time() - begun < 1
