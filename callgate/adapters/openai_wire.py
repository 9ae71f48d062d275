"""
The bytes of a chat completion's request. Those of its reply are read in `openai_reply`.

Source: OpenAI API reference, "Create chat completion", and the guide "Structured outputs" (2026-11).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.models import LLMRequest

SCHEMA_NAME = "response"
"""What every response schema is called; the name is counted as input, so it must not vary."""
SCHEMAS_CACHED_MAX = 64
STRICT_KEYWORDS = frozenset(
    {
        "$defs", "$ref", "additionalProperties", "anyOf", "const", "definitions", "description",
        "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maximum",
        "minItems", "minimum", "multipleOf", "pattern", "properties", "required", "title", "type",
    }
)  # fmt: skip
"""The part of JSON Schema that OpenAI takes with `strict`; anything else is refused with a 400."""
STRICT_FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
)


def request_body(request: LLMRequest, entry: ProviderEntry) -> bytes:
    """
    Write the request as JSON.

    Only what the request sets is sent. The response schema goes out as the very text it came as: the order of its
    keys changes answers.
    """
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        entry.output_bound_field: request.max_output_tokens,
        "n": request.n if request.n != 1 else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": request.stop or None,
        "service_tier": request.service_tier.value if entry.sends_service_tier else None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    body = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if request.response_schema is not None:
        body = f'{body[:-1]},"response_format":{_response_format(request.response_schema)}}}'
    return body.encode()


@lru_cache(maxsize=SCHEMAS_CACHED_MAX)
def _response_format(schema: str) -> str:
    strict = "true" if allows_strict(json.loads(schema)) else "false"
    return (
        f'{{"type":"json_schema","json_schema":'
        f'{{"name":"{SCHEMA_NAME}","strict":{strict},"schema":{schema}}}}}'
    )


def allows_strict(schema: object) -> bool:
    """
    Say whether OpenAI takes the schema with `strict` as it stands.

    Strict asks for objects that forbid other properties and require all of their own, and for a subset of keywords.
    What does not satisfy it is sent with `strict: false` instead of being rewritten.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object" or "anyOf" in schema:
        return False
    waiting: list[object] = [schema]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or not _is_strict(node):
            return False
        waiting.extend(_children(node))
    return True


def _is_strict(node: dict[str, Any]) -> bool:
    if not node.keys() <= STRICT_KEYWORDS or not node.keys() & {"type", "$ref", "anyOf"}:
        return False
    if "$ref" in node and len(node) > 1:
        return False
    if "(?" in str(node.get("pattern", "")):
        return False
    if "format" in node and node["format"] not in STRICT_FORMATS:
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


def _types(node: dict[str, Any]) -> list[object]:
    types = node.get("type")
    return types if isinstance(types, list) else [types]


def _children(node: dict[str, Any]) -> Iterator[object]:
    for keyword in ("properties", "$defs", "definitions"):
        children = node.get(keyword, {})
        yield from children.values() if isinstance(children, dict) else [None]
    any_of = node.get("anyOf", [])
    yield from any_of if isinstance(any_of, list) else [None]
    if "items" in node:
        yield node["items"]
