"""
Decides whether OpenAI accepts a JSON Schema with `strict`, unchanged.

With `strict`, objects must forbid additional properties and require all their own ones; only some keywords are
allowed; and there are limits of size. OpenAI refuses other schemas with a 400, so they are sent with `strict: false`
and are never rewritten.

Source: OpenAI, guide "Structured outputs", section "Supported schemas" (2026-11). It does not say how levels are
counted. This module counts as OpenAI's Java library (`JsonSchemaValidator`) does, and also through references: a schema
counted as too deep is still answered, but one counted as too flat is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

KEYWORDS = frozenset(
    {
        "$defs", "$ref", "additionalProperties", "anyOf", "const", "definitions", "description",
        "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maximum",
        "minItems", "minimum", "multipleOf", "pattern", "properties", "required", "title", "type",
    }
)  # fmt: skip
NOT_FINE_TUNED = frozenset(
    {"format", "maxItems", "maximum", "minItems", "minimum", "multipleOf", "pattern"}
)
"""Keywords that fine-tuned models do not support. The exclusive bounds are not documented and are allowed."""
FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
)
PROPERTIES_MAX = 5_000
"""Properties of all objects together."""
LEVELS_MAX = 10
"""Levels of nesting below the root schema."""
NAMES_CHARS_MAX = 120_000
"""All names of properties and definitions and all values of `enum` and `const`, together."""
ENUM_VALUES_MAX = 1_000
"""Values of all `enum`s together."""
FREE_ENUM_VALUES = 250
"""An `enum` with at most so many values has no limit of length."""
LONG_ENUM_CHARS_MAX = 15_000
"""All values of one longer `enum` together."""

_MAPS = ("properties", "$defs", "definitions")


def allows_strict(schema: object, *, fine_tuned: bool = False) -> bool:
    """
    True if the schema may be sent with `strict`.

    Args:
        fine_tuned: The model is fine-tuned and supports fewer keywords.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object" or "anyOf" in schema:
        return False
    keywords = KEYWORDS - NOT_FINE_TUNED if fine_tuned else KEYWORDS
    nodes: list[dict[str, Any]] = []
    waiting: list[object] = [schema]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or not node.keys() <= keywords or not _is_strict(node):
            return False
        nodes.append(node)
        waiting.extend(_children(node))
    try:
        return _is_small(nodes) and _Levels(schema).below(schema) <= LEVELS_MAX
    except (LookupError, RecursionError):
        return False


def _is_strict(node: dict[str, Any]) -> bool:
    """True if one schema, without its children, satisfies the rules."""
    if not node.keys() & {"type", "$ref", "anyOf"}:
        return False
    if "$ref" in node and len(node) > 1:
        return False
    if "(?" in str(node.get("pattern", "")):
        return False
    if "format" in node and str(node["format"]) not in FORMATS:
        return False
    return _is_closed(node) and ("array" not in _types(node) or "items" in node)


def _is_closed(node: dict[str, Any]) -> bool:
    """False for an object that allows additional properties or does not require all its own ones."""
    if "object" not in _types(node) and "properties" not in node:
        return True
    properties, required = node.get("properties", {}), node.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        return False
    return node.get("additionalProperties") is False and sorted(map(str, required)) == sorted(
        properties
    )


def _is_small(nodes: list[dict[str, Any]]) -> bool:
    """True if all limits of size hold. Each schema counts once, where it is written."""
    enums = [node["enum"] for node in nodes if isinstance(node.get("enum"), list)]
    names = [name for node in nodes for key in _MAPS for name in node.get(key, {})]
    values = [value for enum in enums for value in enum]
    values += [node["const"] for node in nodes if "const" in node]
    return (
        sum(len(node.get("properties", {})) for node in nodes) <= PROPERTIES_MAX
        and sum(map(len, enums)) <= ENUM_VALUES_MAX
        and sum(map(_chars, names + values)) <= NAMES_CHARS_MAX
        and not any(
            len(enum) > FREE_ENUM_VALUES and sum(map(_chars, enum)) > LONG_ENUM_CHARS_MAX
            for enum in enums
        )
    )


def _chars(value: object) -> int:
    """Length of a name or of a value as JSON."""
    return len(value if isinstance(value, str) else json.dumps(value))


class _Levels:
    """Counts the levels below a schema, also through references. A circular reference adds none."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._below: dict[int, int] = {}
        """Levels by the definition's `id`: a reference to it can be spelled in many ways."""

    def below(self, node: Mapping[str, Any]) -> int:
        """
        The longest path from a schema down to one without children.

        Raises:
            LookupError: A reference leads neither to the root nor to one of its definitions.
        """
        if "$ref" in node:
            return self._below_ref(str(node["$ref"]))
        # Definitions count where they are used.
        children = [*_schemas(node, "properties"), *_branches(node)]
        return max((1 + self.below(child) for child in children), default=0)

    def _below_ref(self, ref: str) -> int:
        """Levels below a reference's target; 0 while that target is being counted."""
        target = self._resolved(ref)
        if not isinstance(target, dict):
            return 0
        if id(target) not in self._below:
            self._below[id(target)] = 0
            self._below[id(target)] = self.below(target)
        return self._below[id(target)]

    def _resolved(self, ref: str) -> object:
        """The root or one of its definitions; see `below` for the error."""
        at, *path = unquote(ref).split("/")
        names = [part.replace("~1", "/").replace("~0", "~") for part in path]
        if at != "#" or (names and (len(names) != 2 or names[0] not in ("$defs", "definitions"))):
            raise LookupError(ref)
        target: object = self._root[names[0]][names[1]] if names else self._root
        return target


def _types(node: dict[str, Any]) -> list[object]:
    types = node.get("type")
    return types if isinstance(types, list) else [types]


def _children(node: Mapping[str, Any]) -> Iterator[object]:
    """All schemas directly inside one schema, definitions included."""
    for keyword in _MAPS:
        yield from _schemas(node, keyword)
    yield from _branches(node)


def _schemas(node: Mapping[str, Any], keyword: str) -> Iterator[Any]:
    """The schemas in a keyword that maps names to schemas; None if its value is not an object."""
    children = node.get(keyword, {})
    yield from children.values() if isinstance(children, dict) else [None]


def _branches(node: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas in `anyOf` and `items`; None if `anyOf` is not a list."""
    any_of = node.get("anyOf", [])
    yield from any_of if isinstance(any_of, list) else [None]
    if "items" in node:
        yield node["items"]
