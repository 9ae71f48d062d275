"""What the simulator writes where a request asks for JSON: an instance of a schema, or the call of a tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_VALUES = {"string": "ok", "integer": 0, "number": 0, "boolean": False, "array": [], "object": {}}
"""The values of properties, by type; null for other types."""
MUST_CALL = frozenset({"required", "any"})
"""Words for "call some tool", of OpenAI and of Anthropic."""


@dataclass(frozen=True, slots=True)
class ForcedCall:
    """The tool call that a request demands. A request that leaves the choice to the model gets a text."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The arguments as JSON text."""
        return json.dumps(self.arguments)


def shallow_instance(schema: Any) -> dict[str, Any]:
    """Return an object with a fixed value for each property; a deeper schema needs a `Step` with a text."""
    match schema:
        case {"properties": {**properties}}:
            return {
                str(name): _VALUES.get(str(node.get("type"))) if isinstance(node, dict) else None
                for name, node in properties.items()
            }
        case _:
            return {}


def forced_call(fields: Mapping[str, Any]) -> ForcedCall | None:
    """
    Return the call that a request demands, if it does. The forms of all protocols are read.

    Raises:
        KeyError: It demands a tool that it does not have.
    """
    schemas = dict(map(_tool, fields.get("tools") or ()))
    match fields.get("tool_choice"):
        case str(word) | {"type": str(word)} if word in MUST_CALL:
            name = next(iter(schemas), "")
        case {"type": "function", "function": {"name": str(name)}}:
            pass
        case {"type": "function" | "tool", "name": str(name)}:
            pass
        case _:
            return None
    return ForcedCall(name, shallow_instance(schemas[name]))


def _tool(fields: Mapping[str, Any]) -> tuple[str, Any]:
    """The name of a tool and the schema of its arguments."""
    function = fields.get("function", fields)
    return function["name"], function.get("input_schema", function.get("parameters"))
