"""JSON Schema checks name the path but not the text; they are bounded and offline."""

from __future__ import annotations

import json
import socket
import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError, create_model

from callgate.adapters.json_schema_validator import (
    COMPLAINTS_CHARS_MAX,
    DEPTH_MAX,
    TEXT_CHARS_MAX,
    JsonSchemaValidator,
)


class Line(BaseModel):
    """One line of an invoice, nested as pydantic nests."""

    text: str
    price: Decimal
    parts: list[Line] | None = None


LINE = json.dumps(Line.model_json_schema())
INVOICE = json.dumps(
    {
        "type": "object",
        "properties": {
            "total": {"type": "number"},
            "lines": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["total"],
        "additionalProperties": {"type": "string"},
    }
)


@pytest.fixture
def validator() -> JsonSchemaValidator:
    """A validator with nothing compiled yet."""
    return JsonSchemaValidator()


@pytest.mark.parametrize("schema", [INVOICE, LINE, "{}", '{"pattern": "^(?!-)[a-z]+$"}'])
def test_a_json_schema_is_accepted(validator: JsonSchemaValidator, schema: str) -> None:
    """Also Pydantic's schemas, and patterns with look-ahead."""
    assert validator.check_schema(schema) is None


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ('{"type": "objct"}', "$.type: breaks 'anyOf'"),
        ('{"properties": {"a": {"minLength": -1}}}', "$.properties.a.minLength: breaks 'minimum'"),
        ('{"properties": {"a": {"pattern": "("}}}', "$.properties.a.pattern: breaks 'pattern'"),
        ('{"pattern": "((x{999}){999}){999}"}', "$.pattern: breaks 'pattern'"),
        (
            '{"$ref": "#/$defs/none"}',
            "$: a $ref or $schema names something that is not in the schema",
        ),
        ("[1]", "$: breaks 'type'"),
        ("no schema", "is not a JSON Schema, or is nested too deeply"),
        ('{"items":' * 300 + "{}" + "}" * 300, "is not a JSON Schema, or is nested too deeply"),
    ],
)
def test_an_invalid_schema_is_refused_with_path_and_keyword(
    validator: JsonSchemaValidator, schema: str, says: str
) -> None:
    assert validator.check_schema(schema) == says


@pytest.mark.parametrize(
    "schema",
    [
        '{"$ref": "https://example.com/invoice.json"}',
        '{"$defs": {"unused": {"$ref": "http://example.com/x"}}}',
        '{"$ref": "file:///etc/passwd"}',
        '{"$id": "https://example.com/a", "$ref": "b.json"}',
        '{"$schema": "https://example.com/dialect"}',
    ],
)
def test_a_schema_that_needs_another_document_is_refused_not_fetched(
    validator: JsonSchemaValidator, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema could otherwise make a worker call any address or read any file."""

    def refuse(*_: object) -> None:
        raise AssertionError("the validator used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert validator.check_schema(schema) == (
        "$: a $ref or $schema names something that is not in the schema"
    )


def test_a_schema_that_refers_to_an_existing_file_is_refused(
    validator: JsonSchemaValidator, tmp_path: Path
) -> None:
    (tmp_path / "there.json").write_text("{}")
    schema = json.dumps({"$ref": (tmp_path / "there.json").as_uri()})

    assert validator.check_schema(schema) is not None


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (INVOICE, '{"total": 1.5, "lines": [1, 2], "note": "thanks"}'),
        (LINE, '{"text": "a", "price": "1.50", "parts": [{"text": "b", "price": 2}]}'),
        ('{"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}', '"x"'),
    ],
)
def test_a_valid_text_has_no_fault(validator: JsonSchemaValidator, schema: str, text: str) -> None:
    assert validator.check(schema, text) is None


@pytest.mark.parametrize(
    ("schema", "text", "says"),
    [
        (INVOICE, "{}", "$.total: breaks 'required'"),
        (INVOICE, '{"total": "secret"}', "$.total: breaks 'type'"),
        (INVOICE, '{"total": 1, "lines": [1, "secret"]}', "$.lines[1]: breaks 'type'"),
        (INVOICE, '{"total": 1, "Jane Secret": 5}', "$.*: breaks 'type'"),
        (LINE, '{"text": "a", "price": ["secret"]}', "$.price: breaks 'anyOf'"),
        (INVOICE, "secret", "is not JSON"),
        (INVOICE, '{"total": NaN}', "is not JSON"),
        (INVOICE, '{"total": 1' + "0" * 5_000 + "}", "is not JSON"),
        (INVOICE, '{"total": "\\ud800"}', "is JSON that cannot be checked"),
        ('{"type": "objct"}', "{}", "$.type: breaks 'anyOf'"),
    ],
)
def test_the_first_violation_is_a_path_and_a_keyword(
    validator: JsonSchemaValidator, schema: str, text: str, says: str
) -> None:
    """Messages are stored and shown, so they hold neither values nor names from the text."""
    assert validator.check(schema, text) == says


@pytest.mark.parametrize(
    "pattern", [r"^\w+$", r"^\W+$", r"^\d+$", r"^\D+$", r"^\s+$", r"^\S+$", r"\bx\b"]
)
@pytest.mark.parametrize("text", ["x", "7", " ", "é", "٣", "x é", "-", "\ufeff", "\x85", "x\n"])
def test_a_pattern_matches_as_in_pydantic(
    validator: JsonSchemaValidator, pattern: str, text: str
) -> None:
    """An answer that the caller's model accepts must not be paid for twice."""
    model = create_model("Model", text=(Annotated[str, Field(pattern=pattern)], ...))
    answer = json.dumps({"text": text})
    try:
        fits = bool(model.model_validate_json(answer))
    except ValidationError:
        fits = False

    broken = validator.check(json.dumps(model.model_json_schema()), answer)

    assert broken == (None if fits else "$.text: breaks 'pattern'")


@pytest.mark.parametrize(
    ("pattern", "fits", "breaks"),
    [("^(?!-)[a-z]+$", "ab", "-ab"), (r"^(.)\1$", "aa", "ab"), (r"^(?!x)\w$", "é", "x")],
)
def test_a_pattern_that_pydantic_lacks_uses_jsonschema_rs(
    validator: JsonSchemaValidator, pattern: str, fits: str, breaks: str
) -> None:
    """Look-around and back-references. Pydantic's own Decimal schema uses them."""
    schema = json.dumps({"pattern": pattern})

    assert validator.check(schema, json.dumps(fits)) is None
    assert validator.check(schema, json.dumps(breaks)) == "$: breaks 'pattern'"


def test_a_pattern_ignores_values_other_than_text(validator: JsonSchemaValidator) -> None:
    """As in JSON Schema. A property may also be called `pattern`."""
    assert validator.check('{"pattern": "^x$"}', "7") is None
    assert (
        validator.check('{"properties": {"pattern": {"type": "integer"}}}', '{"pattern": 7}')
        is None
    )


def test_nesting_beyond_the_limit_is_refused(validator: JsonSchemaValidator) -> None:
    """One level less passes."""
    assert validator.check("{}", "[" * DEPTH_MAX + "]" * DEPTH_MAX) is None
    for depth in (DEPTH_MAX + 1, 100_000):
        assert validator.check("{}", "[" * depth + "]" * depth) in {
            f"is nested deeper than {DEPTH_MAX}",
            "is not JSON",
        }


def test_a_value_at_the_deepest_level_is_not_too_deep(validator: JsonSchemaValidator) -> None:
    """Only an array or object would be one level more."""
    deep = "[" * (DEPTH_MAX - 1) + "1" + "]" * (DEPTH_MAX - 1)

    assert validator.check("{}", f'{{"deep": {deep}, "wide": [[]]}}') is None


def test_brackets_inside_strings_do_not_nest(validator: JsonSchemaValidator) -> None:
    assert validator.check("{}", json.dumps({"text": "[{" * 500})) is None


def test_many_brackets_side_by_side_do_not_nest(validator: JsonSchemaValidator) -> None:
    assert validator.check("{}", json.dumps([[] for _ in range(500)])) is None


def test_a_text_beyond_the_size_limit_is_refused(validator: JsonSchemaValidator) -> None:
    """It is not even parsed."""
    text = '"' + "x" * TEXT_CHARS_MAX + '"'

    assert validator.check("{}", text) == f"has {len(text)} characters, over {TEXT_CHARS_MAX}"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^(a+)+$", "a" * 50_000 + "!"),
        (r"^(\w+\s?)*(?<!x)$", "aaaa " * 50 + "!"),
        (r"^((?=a)a|a|aa)+$", "a" * 60 + "!"),
    ],
)
def test_a_catastrophic_pattern_ends_soon(
    validator: JsonSchemaValidator, pattern: str, text: str
) -> None:
    """Python's own engine would take years; 2 s is a thousand times what these need."""
    begun = time.monotonic()

    why = validator.check(json.dumps({"pattern": pattern}), json.dumps(text))

    assert why == "$: breaks 'pattern'"
    assert time.monotonic() - begun < 2


def test_a_long_path_is_cut(validator: JsonSchemaValidator) -> None:
    schema = json.dumps({"type": ["array", "integer"], "items": {"$ref": "#"}})

    why = validator.check(schema, "[" * 50 + '"secret"' + "]" * 50)

    assert why == "$" + "[0]" * 20 + "...: breaks 'type'"


def complaints(schema: str, text: str, most: int = 10) -> list[str]:
    """What is wrong with a text."""
    validator = JsonSchemaValidator()
    first = validator.check(schema, text)
    assert first is not None
    return validator.complaints(schema, text, first, most).splitlines()


LINES = json.dumps(
    {
        "type": "object",
        "properties": {
            "lines": {
                "type": "array",
                "items": {"properties": {"sku": {"type": "string"}}, "required": ["sku", "n"]},
            }
        },
        "additionalProperties": False,
    }
)


def test_complaints_are_paths_and_keywords() -> None:
    """A missing property is named, because its name is the caller's; one too many is the model's text."""
    text = '{"lines": [{"sku": 1}, {}], "Jane Secret": {}}'

    assert sorted(complaints(LINES, text)) == [
        "$.lines[0].n: breaks 'required'",
        "$.lines[0].sku: breaks 'type'",
        "$.lines[1].n: breaks 'required'",
        "$.lines[1].sku: breaks 'required'",
        "$: breaks 'additionalProperties'",
    ]


def test_the_first_violation_is_the_first_complaint() -> None:
    text = '{"lines": [{"sku": 1}, {}]}'

    found = complaints(LINES, text, 3)

    assert found[0] == JsonSchemaValidator().check(LINES, text)
    assert len(found) == len(set(found)) == 3
    assert complaints(LINES, text, 1) == found[:1]


def test_a_long_text_has_one_complaint() -> None:
    text = json.dumps({"lines": [{}] * (COMPLAINTS_CHARS_MAX // 4)})

    assert len(complaints(LINES, text)) == 1


def test_what_is_no_json_has_one_complaint() -> None:
    assert complaints(LINES, "secret") == ["is not JSON"]


def test_a_name_with_a_line_end_is_one_complaint() -> None:
    schema = json.dumps({"properties": {"a\nb": {"type": "string"}}})

    assert complaints(schema, '{"a\\nb": 1}') == ["$.a b: breaks 'type'"]
