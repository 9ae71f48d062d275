"""
Decides whether OpenAI accepts a JSON Schema with `strict`; `made_strict` prepares schemas for it.

With `strict`, objects must forbid additional properties and require all their own ones; only some keywords are
allowed; and there are limits of size. OpenAI refuses other schemas with a 400, so they are sent with `strict: false`.

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

PATH_CHARS_MAX, NAME_CHARS_MAX = 200, 40
"""How much a reason shows of a path, and of a keyword."""

MAPS = ("properties", "$defs", "definitions")
"""Keywords that map names to schemas."""


def allows_strict(schema: object, *, fine_tuned: bool = False) -> bool:
    """True if the schema may be sent with `strict`; see `why_not_strict`."""
    return why_not_strict(schema, fine_tuned=fine_tuned) is None


def why_not_strict(schema: object, *, fine_tuned: bool = False) -> str | None:
    """
    Say why the schema cannot be sent with `strict`, as a path in it and a reason; None if it can.

    Args:
        fine_tuned: The model is fine-tuned and supports fewer keywords.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object" or "anyOf" in schema:
        return "$: it is no object"
    keywords = KEYWORDS - NOT_FINE_TUNED if fine_tuned else KEYWORDS
    nodes: list[dict[str, Any]] = []
    waiting: list[tuple[str, object]] = [("$", schema)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict):
            return f"{path}: it is no object of JSON"
        if reason := _fault(node, keywords):
            return f"{path[:PATH_CHARS_MAX]}: {reason}"
        nodes.append(node)
        waiting.extend((f"{path}.{name}", child) for name, child in children(node))
    try:
        if not _is_small(nodes):
            return "$: it is too large"
        return None if _Levels(schema).below(schema) <= LEVELS_MAX else "$: it is nested too deeply"
    except (LookupError, RecursionError):
        return "$: a $ref leads to no definition"


def _fault(node: dict[str, Any], keywords: frozenset[str]) -> str | None:
    """Which rule one schema breaks, without its children; None if it breaks none."""
    if unknown := sorted(node.keys() - keywords):
        return f"strict knows no {unknown[0][:NAME_CHARS_MAX]!r}"
    if not node.keys() & {"type", "$ref", "anyOf"}:
        return "it has no type"
    if "$ref" in node and len(node) > 1:
        return "something stands beside $ref"
    if "(?" in str(node.get("pattern", "")):
        return "its pattern has a group that strict does not know"
    if "format" in node and str(node["format"]) not in FORMATS:
        return "strict does not know its format"
    if not _is_closed(node):
        return "its properties are not all required, or others are allowed"
    return (
        "its items are not described" if "array" in types_of(node) and "items" not in node else None
    )


def _is_closed(node: dict[str, Any]) -> bool:
    """False for an object that allows additional properties or does not require all its own ones."""
    if not is_object(node):
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
    names = [name for node in nodes for key in MAPS for name in node.get(key, {})]
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
        inside = [*_schemas(node, "properties"), *_branches(node)]
        return max((1 + self.below(child) for child in inside), default=0)

    def _below_ref(self, ref: str) -> int:
        """Levels below a reference's target; 0 while that target is being counted."""
        target = resolved(self._root, ref)
        if not isinstance(target, dict):
            return 0
        if id(target) not in self._below:
            self._below[id(target)] = 0
            self._below[id(target)] = self.below(target)
        return self._below[id(target)]


def resolved(root: Mapping[str, Any], ref: str) -> object:
    """
    What a reference names: the root, or one of its definitions.

    Raises:
        LookupError: It names something else.
    """
    at, *path = unquote(ref).split("/")
    names = [part.replace("~1", "/").replace("~0", "~") for part in path]
    if at != "#" or (names and (len(names) != 2 or names[0] not in ("$defs", "definitions"))):
        raise LookupError(ref)
    target: object = root[names[0]][names[1]] if names else root
    return target


def is_object(node: Mapping[str, Any]) -> bool:
    """True if the schema describes an object."""
    return "object" in types_of(node) or "properties" in node


def types_of(node: Mapping[str, Any]) -> list[object]:
    """The types that a schema allows; `[None]` if it names none."""
    types = node.get("type")
    return types if isinstance(types, list) else [types]


def children(node: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """All schemas directly inside one schema, definitions included, with their places."""
    for keyword in MAPS:
        held = node.get(keyword, {})
        named = held.items() if isinstance(held, dict) else [("", None)]
        yield from ((f"{keyword}.{name}", child) for name, child in named)
    any_of = node.get("anyOf", [])
    branches = any_of if isinstance(any_of, list) else [None]
    yield from ((f"anyOf[{n}]", branch) for n, branch in enumerate(branches))
    if "items" in node:
        yield "items", node["items"]


def _schemas(node: Mapping[str, Any], keyword: str) -> Iterator[Any]:
    """The schemas in a keyword that maps names to schemas; None if its value is not an object."""
    held = node.get(keyword, {})
    yield from held.values() if isinstance(held, dict) else [None]


def _branches(node: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas in `anyOf` and `items`; None if `anyOf` is not a list."""
    any_of = node.get("anyOf", [])
    yield from any_of if isinstance(any_of, list) else [None]
    if "items" in node:
        yield node["items"]
