"""
What Anthropic's own format for answers takes of a JSON Schema. It has no flag for less: other schemas are refused.

Source: anthropic 2.14, `lib/_parse/_transform.py` (2026-11): what it sends unchanged.
"""

from __future__ import annotations

from typing import Any

from callgate.domain.strict_schema import NAME_CHARS_MAX, PATH_CHARS_MAX, is_object, types_of

KEYWORDS = frozenset(
    {
        "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "description", "enum", "format", "items",
        "minItems", "properties", "required", "title", "type",
    }
)  # fmt: skip
FORMATS = frozenset(
    {
        "date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid",
    }
)  # fmt: skip
_MAPS, _LISTS = ("properties", "$defs"), ("anyOf", "allOf")


def why_not_taken(schema: Any) -> str | None:
    """Say where Anthropic does not take a schema, as a path and a reason; None if it takes it."""
    waiting: list[tuple[str, Any]] = [("$", schema)]
    while waiting:
        path, node = waiting.pop()
        if reason := _fault(node):
            return f"{path[:PATH_CHARS_MAX]}: {reason}"
        for keyword in _MAPS:
            held = node.get(keyword, {})
            waiting.extend((f"{path}.{keyword}.{name}", child) for name, child in held.items())
        for keyword in _LISTS:
            branches = enumerate(node.get(keyword, []))
            waiting.extend((f"{path}.{keyword}[{n}]", child) for n, child in branches)
        if "items" in node:
            waiting.append((f"{path}.items", node["items"]))
    return None


def _fault(node: Any) -> str | None:
    """What one schema has that Anthropic does not take, without its children."""
    if not isinstance(node, dict) or not all(isinstance(node.get(k, {}), dict) for k in _MAPS):
        return "it is no schema that Anthropic knows"
    if not all(isinstance(node.get(k, []), list) for k in _LISTS):
        return "it is no schema that Anthropic knows"
    if unknown := sorted(node.keys() - KEYWORDS):
        return f"Anthropic knows no {unknown[0][:NAME_CHARS_MAX]!r}"
    if "$ref" in node:
        return "something stands beside $ref" if node.keys() - {"$ref", "$defs"} else None
    if not node.keys() & {"type", *_LISTS, "enum", "const"}:
        return "it has no type"
    values = [*_listed(node.get("enum")), node.get("const")]
    if any(isinstance(value, dict | list) for value in values):
        return "Anthropic knows values of enum and const that are no objects and no arrays"
    if "format" in node and str(node["format"]) not in FORMATS:
        return "Anthropic does not know its format"
    if node.get("minItems", 0) not in (0, 1):
        return "Anthropic knows no minItems above 1"
    if is_object(node) and node.get("additionalProperties") is not False:
        return "other properties are allowed"
    if is_object(node) and not _are_described(node.get("required", []), node):
        return "it requires a property that it does not describe"
    return (
        "its items are not described" if "array" in types_of(node) and "items" not in node else None
    )


def _are_described(names: object, node: dict[str, Any]) -> bool:
    """True if each required property is among the properties. Without others no answer could satisfy the schema."""
    return isinstance(names, list) and all(
        isinstance(name, str) and name in node.get("properties", {}) for name in names
    )


def _listed(values: object) -> list[object]:
    return values if isinstance(values, list) else []
