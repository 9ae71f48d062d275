"""
The smallest honest instance of a JSON Schema: deterministic, and every property present.

Covers what OpenAI's structured outputs accept: type, properties, required, enum, const, items,
anyOf, $ref into the same document, bounds of numbers, lengths of arrays and strings, and named
string formats. Not covered: `pattern`, `allOf`, `prefixItems`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

# From here on only what is required is generated, so that a recursive schema comes to an end.
LEAN_DEPTH = 6
DEPTH_MAX = 64
ITEMS_MAX = 1_000
STRING_LENGTH_MAX = 1_000_000

# The string formats of https://platform.openai.com/docs/guides/structured-outputs.
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "ok@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class SchemaUnsatisfied(ValueError):
    """No instance was found: the schema is malformed, too large, or requires itself without end."""


def instance(schema: Schema) -> Any:
    """
    Return a JSON value that satisfies the schema; the same schema always gives the same value.

    Raises:
        SchemaUnsatisfied: The schema is malformed, too large, or requires itself without end.
    """
    try:
        return _Instance(schema).of(schema, 0)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise SchemaUnsatisfied(f"malformed schema: {error!r}") from error


class _Instance:
    """Generates against one document, where its `$ref`s lead."""

    def __init__(self, document: Schema) -> None:
        self._document = document

    def of(self, node: Schema, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise SchemaUnsatisfied("the schema requires itself without end")
        if "$ref" in node:
            return self.of(self._referred(node["$ref"]), depth + 1)
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return node["enum"][0]
        if branches := node.get("anyOf") or node.get("oneOf"):
            return self.of(_branch(branches, depth), depth + 1)
        return self._typed(node, depth)

    def _referred(self, ref: str) -> Schema:
        node: Any = self._document
        for name in ref.removeprefix("#").split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            node = node[key]
        return node  # type: ignore[no-any-return]  # A path of mappings ends in a schema.

    def _typed(self, node: Schema, depth: int) -> Any:
        match _type(node):
            case "object":
                return self._object(node, depth)
            case "array":
                return self._array(node, depth)
            case "integer":
                return _integer(node)
            case "number":
                return _number(node)
            case "boolean":
                return False
            case "null":
                return None
            case _:
                return _string(node)

    def _object(self, node: Schema, depth: int) -> dict[str, Any]:
        required = node.get("required", ())
        return {
            name: self.of(inner, depth + 1)
            for name, inner in node.get("properties", {}).items()
            if depth < LEAN_DEPTH or name in required
        }

    def _array(self, node: Schema, depth: int) -> list[Any]:
        least = node.get("minItems", 0)
        if least > ITEMS_MAX:
            raise SchemaUnsatisfied(f"minItems {least} is above {ITEMS_MAX}")
        wanted = 1 if depth < LEAN_DEPTH else 0
        length = max(least, min(wanted, node.get("maxItems", wanted)))
        return [self.of(node.get("items", {}), depth + 1) for _ in range(length)]


def _type(node: Schema) -> str:
    """Return the first type named, or the one the other keywords imply."""
    named = node.get("type")
    if isinstance(named, list):
        return str(named[0])
    if named is not None:
        return str(named)
    return "object" if "properties" in node else "array" if "items" in node else "string"


def _branch(branches: list[Schema], depth: int) -> Schema:
    if depth < LEAN_DEPTH:
        return branches[0]
    return next((branch for branch in branches if branch.get("type") == "null"), branches[-1])


def _string(node: Schema) -> str:
    least = node.get("minLength", 0)
    if least > STRING_LENGTH_MAX:
        raise SchemaUnsatisfied(f"minLength {least} is above {STRING_LENGTH_MAX}")
    text = _FORMATS.get(node.get("format", ""), "ok")
    return text.ljust(least, "x")[: node.get("maxLength")]


def _integer(node: Schema) -> int:
    low = max(node.get("minimum", -math.inf), node.get("exclusiveMinimum", -math.inf) + 1)
    high = min(node.get("maximum", math.inf), node.get("exclusiveMaximum", math.inf) - 1)
    return int(_multiple(_nearest_zero(low, high), node.get("multipleOf", 1)))


def _number(node: Schema) -> float:
    above = node.get("exclusiveMinimum", -math.inf)
    below = node.get("exclusiveMaximum", math.inf)
    low, high = max(node.get("minimum", above), above), min(node.get("maximum", below), below)
    number = _nearest_zero(low, high)
    if number in (above, below):
        number = _between(low, high)
    return _multiple(number, node["multipleOf"]) if "multipleOf" in node else number


def _nearest_zero(low: float, high: float) -> float:
    return min(max(0, low), high)


def _between(low: float, high: float) -> float:
    if math.isinf(low):
        return high - 1
    return low + 1 if math.isinf(high) else (low + high) / 2


def _multiple(number: float, step: float) -> float:
    """Round away from zero, because `number` is the allowed value nearest to it."""
    away_from_zero = math.ceil if number >= 0 else math.floor
    return away_from_zero(number / step) * step
