"""The cost of schemas: ordinary ones pass, however many models they have; those that multiply do not."""

from __future__ import annotations

import json
import random
import time
from decimal import Decimal
from enum import Enum
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, create_model

from callgate.adapters.json_schema_validator import JsonSchemaValidator
from callgate.domain import schema_cost
from callgate.domain.json_text import TEXT_MAX_BYTES
from callgate.domain.requests import LLMRequest
from callgate.domain.schema_cost import (
    DEPTH_MAX,
    PATTERNS_MAX,
    VISITS_MAX,
    pattern_steps,
    why_too_costly,
)

pytestmark = pytest.mark.long

TOO_MANY = f"checking one value takes more than {VISITS_MAX} steps: branches and $ref multiply"
ENDLESS = "a $ref leads back to its start, so a check would never end"
UNRESOLVED = "a $ref or $schema names something that is not in the schema"
TOO_DEEP = f"more than {DEPTH_MAX} schemas are nested in each other or linked by $ref"


def doubling(levels: int, keyword: str = "allOf") -> dict[str, Any]:
    """Definitions that refer to the next one twice."""
    definitions: dict[str, Any] = {
        f"a{n}": {keyword: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)
    }
    definitions[f"a{levels}"] = {"type": "integer"}
    return {"$defs": definitions, "$ref": "#/$defs/a0"}


def why(schema: object) -> str | None:
    """The rule's answer for a schema."""
    return why_too_costly(json.dumps(schema))


@pytest.mark.parametrize("levels", range(11, 60))
@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_branches_that_double_are_refused(levels: int, keyword: str) -> None:
    """From 2^11 visits of one value on; forty levels take 2.8 kB."""
    assert why(doubling(levels, keyword)) in (TOO_MANY, TOO_DEEP)
    assert len(json.dumps(doubling(40))) < 2_900


def test_a_few_branches_that_double_pass() -> None:
    """A thousand visits are cheap."""
    assert why(doubling(9)) is None


REF = {"$ref": "#/$defs/big"}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [REF, REF]},
        {"not": {"not": {"anyOf": [REF, REF]}}},
        {"if": REF, "then": REF},
        {"if": True, "then": REF, "else": REF},
        {"dependentSchemas": {"a": REF, "b": REF}},
        {"dependencies": {"a": REF, "b": REF}},
        {"dependencies": {"a": ["b"], "b": REF, "c": REF}},
        {"properties": {"deep": {"items": {"oneOf": [REF, REF]}}}},
        {"items": [{}, {"allOf": [REF, REF]}]},
        {"prefixItems": [{"allOf": [REF, REF]}]},
        {"contains": {"allOf": [REF, REF]}},
        {"additionalProperties": {"allOf": [REF, REF]}},
        {"propertyNames": {"allOf": [REF, REF]}},
        {"patternProperties": {"^a": {"allOf": [REF, REF]}}},
        {"unevaluatedItems": {"allOf": [REF, REF]}},
        {"unevaluatedProperties": {"allOf": [REF, REF]}},
        {"$defs": {"used": {"allOf": [REF, REF]}}},
        {"definitions": {"used": {"allOf": [REF, REF]}}},
        {"x-elsewhere": {"a": [0, {"allOf": [REF, REF]}]}, "$ref": "#/x-elsewhere/a/1"},
        {"allOf": [{"$ref": "#big"}, {"$ref": "#big"}]},
        {"$ref": "#/$defs/big", "allOf": [{"$dynamicRef": "#dynamic"}]},
        {"$id": "https://example.com/root", "allOf": [{"$ref": "big.json"}, REF]},
        {"$id": "https://example.com/root", "allOf": [{"$ref": "/big.json#"}, REF]},
        {"allOf": [{"$ref": "#/%24defs/big"}, REF]},
        {"unevaluatedProperties": False, "$ref": "#/$defs/big"},
    ],
)
def test_every_way_to_visit_a_value_twice_counts(schema: dict[str, Any]) -> None:
    """In any keyword and any draft."""
    half = {
        "$anchor": "big",
        "$id": "https://example.com/big.json",
        "$dynamicAnchor": "dynamic",
        "allOf": [{"type": "object"} for _ in range(VISITS_MAX * 2 // 3)],
    }
    definitions = {**schema.get("$defs", {}), "big": half}

    assert why({**schema, "$defs": definitions}) == TOO_MANY


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"type": "integer"}, {"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}},
        {"properties": {"a": {"if": {"$ref": "#/properties/a"}}}},
        {"$dynamicAnchor": "node", "allOf": [{"$dynamicRef": "#node"}]},
        {"$recursiveAnchor": True, "allOf": [{"$recursiveRef": "#"}]},
        {"$id": "https://example.com/a", "allOf": [{"$ref": "https://example.com/a"}]},
        {"id": "https://example.com/a", "allOf": [{"$ref": "a#"}]},
        {"$defs": {"a": {"$id": "#self", "anyOf": [{"$ref": "#self"}]}}},
    ],
)
def test_a_reference_that_returns_to_its_start_is_refused(schema: dict[str, Any]) -> None:
    """JSON Schema forbids it."""
    assert why(schema) == ENDLESS


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {"anyOf": [{"type": "null"}, {"items": {"$ref": "#"}}]},
        {"$dynamicAnchor": "node", "properties": {"next": {"$dynamicRef": "#node"}}},
        {"$recursiveAnchor": True, "items": {"$recursiveRef": "#"}},
        {"additionalProperties": {"$ref": "#"}},
        {"$defs": {"é/~": {"type": "integer"}}, "$ref": "#/$defs/é~1~0"},
        {"enum": [{"$ref": "nowhere", "allOf": [{"$ref": "#"}]}]},
        {"const": {"$ref": "#"}, "default": {"$ref": "#"}, "examples": [{"$ref": "#"}]},
        {"properties": {"$ref": {"type": "string"}, "allOf": {"type": "array"}}},
        {"allOf": 5, "properties": 7, "$ref": 3, "items": None, "pattern": 1},
        {"allOf": [True, False], "not": False},
    ],
)
def test_ordinary_and_invalid_schemas_pass(schema: dict[str, Any]) -> None:
    """A tree of nodes continues with smaller values. The validator reports invalid schemas."""
    assert why(schema) is None


@pytest.mark.parametrize(
    "reference", ["#/$defs/none", "#none", "other.json", "http://[", "#/enum/9", "#/enum/x"]
)
def test_an_unresolved_reference_is_refused(reference: str) -> None:
    """Its cost cannot be bounded."""
    assert why({"enum": [1], "anyOf": [{"$ref": reference}]}) == UNRESOLVED


@pytest.mark.parametrize(
    ("anchor", "reference"),
    [
        ({"$dynamicAnchor": "x"}, {"$dynamicRef": "#x"}),
        ({"$recursiveAnchor": True}, {"$recursiveRef": "#"}),
    ],
)
def test_many_references_with_many_targets_are_counted_in_linear_time(
    anchor: dict[str, Any], reference: dict[str, Any]
) -> None:
    """Two thousand with two thousand targets: four million if each were followed."""
    definitions = {f"d{n}": {**anchor, "type": "string"} for n in range(2_000)}
    schema = json.dumps({"$defs": definitions, "items": {"anyOf": [reference] * 2_000}})
    begun = time.process_time()

    assert why_too_costly.__wrapped__(schema) is None
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("schema", "why_not"),
    [
        (
            {
                "prefixItems": [{"$anchor": "a"}] * 7_000,
                "$defs": {f"{n}": {"$id": f"{n}", "$ref": "#a"} for n in range(3_000)},
            },
            "its $refs may lead to more than 20000 places together",
        ),
        (
            {"$id": "a/" * 50_000, "prefixItems": [{"$id": f"{n:x}"} for n in range(4_000)]},
            "an $id has more than 500 characters, the enclosing $id included",
        ),
        (
            {"pattern": "\\p{" * 60_000},
            "its patterns are too long when their repetitions are written out",
        ),
    ],
    ids=["anchors", "addresses", "classes"],
)
def test_a_schema_that_is_expensive_to_count_is_refused_at_once(
    schema: dict[str, Any], why_not: str
) -> None:
    """Each took seconds before, and the second 400 MB. All are within the size limit of a schema."""
    text = json.dumps(schema, separators=(",", ":"))
    assert len(text) < TEXT_MAX_BYTES
    begun = time.process_time()

    assert why_too_costly.__wrapped__(text) == why_not
    assert time.process_time() - begun < 1


def test_a_long_chain_of_references_is_refused() -> None:
    """A validator recurses along references of a few bytes each."""
    chain: dict[str, Any] = {
        f"a{n}": {"items": {}, "$ref": f"#/$defs/a{n + 1}"} for n in range(DEPTH_MAX)
    }
    last: dict[str, Any] = {f"a{DEPTH_MAX}": {}}

    assert why({"$defs": {**chain, **last}}) == TOO_DEEP
    del chain["a0"]
    assert why({"$defs": {**chain, **last}}) is None


@pytest.mark.parametrize("text", ["", "no schema", "[1]", "5", "[" * 100_000])
def test_a_schema_that_is_not_an_object_passes(text: str) -> None:
    """The validator reports it."""
    assert why_too_costly(text) is None


def visits(schema: Any, root: dict[str, Any]) -> int:
    """Count the visits of one number as a validator without shortcuts makes them."""
    if not isinstance(schema, dict):
        return 1
    count = 1
    for keyword in ("allOf", "anyOf", "oneOf"):
        count += sum(visits(branch, root) for branch in schema.get(keyword, ()))
    for keyword in ("not", "if", "then", "else"):
        count += visits(schema[keyword], root) if keyword in schema else 0
    if "$ref" in schema:
        count += visits(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    return count


@st.composite
def layered(draw: st.DrawFn) -> dict[str, Any]:
    """Definitions that refer to later ones, in every keyword that stays at the same value."""
    count = draw(st.integers(1, 7))
    definitions: dict[str, Any] = {}
    for n in range(count):
        later = [{"$ref": f"#/$defs/d{m}"} for m in range(n + 1, count)]
        leaf = st.sampled_from([True, {"type": "integer"}, {"minimum": 3}, *later])
        branch = st.one_of(leaf, leaf.map(lambda schema: {"not": schema}))
        keyword = draw(st.sampled_from(["allOf", "anyOf", "oneOf", "if"]))
        branches = draw(st.lists(branch, min_size=1, max_size=3))
        definitions[f"d{n}"] = {keyword: branches[0] if keyword == "if" else branches}
        if keyword == "if":
            definitions[f"d{n}"]["then"] = branches[-1]
    return {"$defs": definitions, "$ref": "#/$defs/d0"}


@settings(max_examples=300, deadline=None)
@given(schema=layered(), limit=st.integers(1, 200))
def test_the_count_equals_the_visits_of_a_validator(schema: dict[str, Any], limit: int) -> None:
    """A schema is refused exactly if one of its definitions needs more visits than the limit."""
    most = max(visits(node, schema) for node in (schema, *schema["$defs"].values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema_cost, "VISITS_MAX", limit)
        refusal = why_too_costly.__wrapped__(json.dumps(schema))

    assert (refusal is not None) == (most > limit)


@settings(max_examples=100, deadline=None)
@given(schema=layered(), value=st.sampled_from(["1", "0", '"x"', "[]", "{}", "null"]))
def test_a_schema_that_passes_is_checked_quickly(schema: dict[str, Any], value: str) -> None:
    """By the engine that workers use, within half a second."""
    if why(schema) is None:
        begun = time.process_time()
        JsonSchemaValidator().check(json.dumps(schema), value)
        assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("pattern", "steps"),
    [
        ("abc", 3),
        ("a{3}", 3),
        ("a{2,5}b", 6),
        ("(ab){10}", 20),
        ("((a{9}){9}){9}", 729),
        ("((x{999}){999}){999}", 999**3),
        (r"\{3}", 3),
        ("[a-z]{10}", 40),
        (r"[]\]{3}]{2}", 2 * (7 + 500)),
        (r"\w{2}", 1_000),
        (r"\p{L}{3}", 1_500),
        (".{4}", 100),
        ("a{,3}b{x}(", 7),
        ("a{9999999999999}", 999_999_999),
        ("a{0000000000000012}", 12),
        ("", 0),
    ],
)
def test_counted_repetitions_are_multiplied(pattern: str, steps: int) -> None:
    """As engines do when they compile a pattern."""
    assert pattern_steps(pattern) == steps


def test_patterns_that_take_long_to_compile_are_refused() -> None:
    """Three thousand of them took gigabytes. Equal patterns are compiled once."""
    each = pattern_steps(r"^(\w{1,90}){1,9}0$")
    costly = {f"p{n}": {"pattern": rf"^(\w{{1,90}}){{1,9}}{n % 10}$"} for n in range(10)}
    alike = {f"p{n}": {"pattern": r"^(\w{1,90}){1,4}$"} for n in range(3_000)}

    assert 10 * each > PATTERNS_MAX
    assert (
        why({"properties": costly})
        == "its patterns are too long when their repetitions are written out"
    )
    assert why({"patternProperties": {p["pattern"]: {} for p in costly.values()}}) is not None
    assert why({"properties": alike}) is None


class Currency(Enum):
    """A few values."""

    EUR = "EUR"
    USD = "USD"


def models(count: int, seed: int) -> list[type[BaseModel]]:
    """Models with references to each other and to themselves, as in a real project."""
    chance = random.Random(seed)  # noqa: S311
    namespace: dict[str, type[BaseModel]] = {}
    made: list[type[BaseModel]] = []
    for n in range(count):
        fields: dict[str, Any] = {
            "kind": (Literal[f"kind-{n}"], ...),
            "amount": (Decimal, ...),
            "currency": (Currency, Currency.EUR),
            "note": (
                Annotated[str, Field(max_length=500, pattern=r"^[\w\s.,-]{0,80}$")] | None,
                None,
            ),
            "itself": (list[f"Model{n}"] | None, None),  # type: ignore[misc]
        }
        if made:
            some = chance.sample(made, min(len(made), 5))
            fields["child"] = (some[0], ...)
            fields["maybe"] = (some[0] | None, None)
            fields["named"] = (dict[str, some[-1]], {})  # type: ignore[valid-type]
            fields["any"] = (list[reduce(or_, some)], [])  # type: ignore[misc]
            if len(some) > 1:
                one: Any = Annotated[reduce(or_, some), Field(discriminator="kind")]
                fields["one"] = (list[one], [])  # type: ignore[valid-type, misc]
        model = create_model(f"Model{n}", **fields)
        namespace[model.__name__] = model
        model.model_rebuild(_types_namespace=namespace)
        made.append(model)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_hundreds_of_models_pass(seed: int) -> None:
    """With unions, discriminators, optional fields and recursion, up to the largest schema."""
    made = models(150, seed)
    for model in (*made[::30], made[-1]):
        request_schema = json.dumps(model.model_json_schema())
        assert len(request_schema) < 2 * TEXT_MAX_BYTES
        assert why_too_costly(request_schema) is None
        assert JsonSchemaValidator().check_schema(request_schema) is None


def test_a_union_of_a_thousand_models_passes() -> None:
    """Each is a branch and a reference."""
    union = {"anyOf": [{"$ref": f"#/$defs/m{n}"} for n in range(1_000)]}
    definitions = {f"m{n}": {"type": "object", "properties": {"next": union}} for n in (0, 1)}
    definitions |= {f"m{n}": {"type": "object"} for n in range(2, 1_000)}

    assert why({"$defs": definitions, "items": union}) is None


def test_schemas_of_everyday_types_pass() -> None:
    """As Pydantic writes them."""
    types: list[Any] = [
        dict[str, Any],
        list[tuple[int, str]] | None,
        Decimal,
        LLMRequest,
        dict[str, dict[str, list[Currency]]],
    ]
    for each in types:
        assert why(TypeAdapter(each).json_schema()) is None
