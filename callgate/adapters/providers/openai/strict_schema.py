"""
Whether OpenAI takes a JSON Schema with `strict` as it stands.

Strict asks for objects that forbid other properties and require all of their own, for a subset of keywords, and for
limits of size. What does not satisfy it is sent with `strict: false` instead of being rewritten: with `strict` it
would be refused with a 400.

Source: OpenAI, guide "Structured outputs", section "Supported schemas", as of 2026-11. It does not say how levels are
counted: here as in OpenAI's own Java library (`JsonSchemaValidator`), and through references besides, because a schema
that is counted too deep is still answered, and one that is counted too flat is refused.
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
"""Keywords that a fine-tuned model does not take; the exclusive bounds, of which nothing is said, pass."""
FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
)
PROPERTIES_MAX = 5_000
"""Of all objects together."""
LEVELS_MAX = 10
"""Schemas within each other below the outermost."""
NAME_CHARS_MAX = 120_000
"""Names of properties and definitions, values of `enum` and `const`, all together."""
ENUM_VALUES_MAX = 1_000
"""Of all `enum`s together."""
FREE_ENUM_VALUES = 250
"""Up to so many values one `enum` may be as long as it likes."""
LONG_ENUM_CHARS_MAX = 15_000
"""The texts of one `enum` with more values than that."""

_MAPS = ("properties", "$defs", "definitions")


def allows_strict(schema: object, *, fine_tuned: bool = False) -> bool:
    """
    Say whether the schema may be sent with `strict`.

    Args:
        fine_tuned: It goes to a fine-tuned model, which takes fewer keywords.
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
    """True of everything but an object that takes more, or demands less, than its own properties."""
    if "object" not in _types(node) and "properties" not in node:
        return True
    properties, required = node.get("properties", {}), node.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        return False
    return node.get("additionalProperties") is False and sorted(map(str, required)) == sorted(
        properties
    )


def _is_small(nodes: list[dict[str, Any]]) -> bool:
    """Count every schema once, where it is written."""
    enums = [node["enum"] for node in nodes if isinstance(node.get("enum"), list)]
    names = [name for node in nodes for key in _MAPS for name in node.get(key, {})]
    values = [value for enum in enums for value in enum]
    values += [node["const"] for node in nodes if "const" in node]
    return (
        sum(len(node.get("properties", {})) for node in nodes) <= PROPERTIES_MAX
        and sum(map(len, enums)) <= ENUM_VALUES_MAX
        and sum(map(_chars, names + values)) <= NAME_CHARS_MAX
        and not any(
            len(enum) > FREE_ENUM_VALUES and sum(map(_chars, enum)) > LONG_ENUM_CHARS_MAX
            for enum in enums
        )
    )


def _chars(value: object) -> int:
    return len(value if isinstance(value, str) else json.dumps(value))


class _Levels:
    """Counts the levels below a schema, through its references. One that leads back to where it stands adds none."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._below: dict[int, int] = {}
        """By definition; one has many spellings in references."""

    def below(self, node: Mapping[str, Any]) -> int:
        """
        The longest way from a schema down to one that holds no other.

        Raises:
            LookupError: A reference leads to what is neither the root nor one of its definitions.
        """
        if "$ref" in node:
            return self._below_ref(str(node["$ref"]))
        # A definition is entered where it is used.
        children = [*_schemas(node, "properties"), *_branches(node)]
        return max((1 + self.below(child) for child in children), default=0)

    def _below_ref(self, ref: str) -> int:
        target = self._target(ref)
        if not isinstance(target, dict):
            return 0
        if id(target) not in self._below:
            self._below[id(target)] = 0
            self._below[id(target)] = self.below(target)
        return self._below[id(target)]

    def _target(self, ref: str) -> object:
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
    for keyword in _MAPS:
        yield from _schemas(node, keyword)
    yield from _branches(node)


def _schemas(node: Mapping[str, Any], keyword: str) -> Iterator[Any]:
    children = node.get(keyword, {})
    yield from children.values() if isinstance(children, dict) else [None]


def _branches(node: Mapping[str, Any]) -> Iterator[Any]:
    any_of = node.get("anyOf", [])
    yield from any_of if isinstance(any_of, list) else [None]
    if "items" in node:
        yield node["items"]
