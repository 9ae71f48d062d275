"""
Makes a response schema strict, where every answer that the strict schema allows is also allowed by the caller's.

Only what is sent changes: the identity of the call and the check of its answer have the caller's own schema. Pydantic
writes schemas that lack little: `additionalProperties`, and optional properties that may be null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from callgate.domain.anthropic_schema import why_not_taken
from callgate.domain.strict_schema import MAPS, is_object, resolved, types_of, why_not_strict

CACHED_MAX = 64
_DEPTH_MAX = 50
"""Deeper schemas are not strict anyway."""


@dataclass(frozen=True, slots=True)
class SentSchema:
    """A response schema as it is sent."""

    text: str
    is_strict: bool
    why_not: str | None = None
    """Why it is not strict: a path in the schema and a reason."""


@lru_cache(maxsize=CACHED_MAX)
def made_strict(schema: str, *, fine_tuned: bool = False) -> SentSchema:
    """
    The schema to send: strict if that is possible, else the caller's own text.

    Args:
        schema: JSON text. It is returned unchanged if nothing has to be changed.
        fine_tuned: See `why_not_strict`.
    """
    read = json.loads(schema)
    if why_not_strict(read, fine_tuned=fine_tuned) is None:
        return SentSchema(schema, True)
    return _changed(schema, read, partial(why_not_strict, fine_tuned=fine_tuned))


@lru_cache(maxsize=CACHED_MAX)
def made_closed(schema: str) -> SentSchema:
    """The schema as Anthropic's own format takes it, if that is possible; else the caller's own text."""
    return _changed(schema, json.loads(schema), why_not_taken, requires_all=False)


def _changed(
    schema: str,
    read: Any,
    why_not: Callable[[Any], str | None],
    *,
    requires_all: bool = True,
) -> SentSchema:
    """The schema with what it lacks, unless something else speaks against it."""
    try:
        root = _with_own_root(read) if requires_all else read
        if (changed := _Strict(root, requires_all).of(root, 0)) == read:
            why = why_not(read)
            return SentSchema(schema, why is None, why)
        why = why_not(changed)
        text = json.dumps(changed, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (LookupError, TypeError, ValueError, RecursionError):
        # Nothing of the schema is quoted: it may be anything.
        why, text = "$: it is no schema that strict knows", schema
    return SentSchema(schema, False, why) if why else SentSchema(text, True)


def _with_own_root(schema: Any) -> Any:
    """The schema, with its definition where the root only refers to it, as Pydantic writes a recursive model."""
    if not isinstance(schema, dict) or "$ref" not in schema or schema.keys() - {"$ref", *MAPS}:
        return schema
    definition = resolved(schema, str(schema["$ref"]))
    held = {name: value for name, value in schema.items() if name != "$ref"}
    return {**definition, **held} if isinstance(definition, dict) else schema


class _Strict:
    """Changes one schema. The order of its keys stays, because it changes answers."""

    def __init__(self, root: Mapping[str, Any], requires_all: bool) -> None:
        self._root = root
        self._requires_all = requires_all

    def of(self, node: Any, depth: int) -> Any:
        """
        The schema without what strict refuses, as far as that changes nothing that is allowed.

        Raises:
            ValueError: It is nested too deeply.
        """
        if not isinstance(node, dict):
            return node
        if depth > _DEPTH_MAX:
            raise ValueError("nested too deeply")
        changed = {name: value for name, value in node.items() if name != "default"}
        for keyword in MAPS:
            if isinstance(held := node.get(keyword), dict):
                changed[keyword] = {name: self.of(x, depth + 1) for name, x in held.items()}
        for keyword in ("anyOf", "allOf"):
            if isinstance(branches := node.get(keyword), list):
                changed[keyword] = [self.of(branch, depth + 1) for branch in branches]
        if "items" in node:
            changed["items"] = self.of(node["items"], depth + 1)
        # A branch beside properties would forbid these properties.
        properties = node.get("properties")
        if (
            is_object(node)
            and isinstance(properties, dict)
            and properties
            and not node.keys() & {"anyOf", "allOf"}
        ):
            self._close(changed, properties)
        return changed

    def _close(self, changed: dict[str, Any], properties: Mapping[str, Any]) -> None:
        """Forbid other properties, and require those that may be null."""
        changed.setdefault("additionalProperties", False)
        if not self._requires_all:
            return
        required = list(changed.get("required", []))
        nullable = [
            name
            for name, x in properties.items()
            if name not in required and self._allows_null(x, 0)
        ]
        if nullable:
            changed["required"] = required + nullable

    def _allows_null(self, node: Any, depth: int) -> bool:
        """True if null surely satisfies the schema."""
        if not isinstance(node, dict) or depth > _DEPTH_MAX:
            return False
        if "$ref" in node and not self._allows_null(
            resolved(self._root, str(node["$ref"])), depth + 1
        ):
            return False
        if "type" in node and "null" not in types_of(node):
            return False
        if "enum" in node and None not in node["enum"]:
            return False
        if "const" in node and node["const"] is not None:
            return False
        return "anyOf" not in node or any(self._allows_null(x, depth + 1) for x in node["anyOf"])
