"""A value other than the default for each field of a request that not every provider knows."""

from __future__ import annotations

from typing import Any

from callgate.domain.catalogue import RequestField
from callgate.domain.messages import Tool

TOOL = Tool(name="add")
FIELD_VALUES: dict[RequestField, Any] = {
    "n": 2,
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 1,
    "seed": 0,
    "stop": ("x",),
    "response_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    },
    "service_tier": "flex",
    "tools": (TOOL,),
    "tool_choice": "required",
    "reasoning_effort": "low",
    "thinking_tokens": 2000,
    "verbosity": "low",
    "prompt_cache_key": "k",
}
FIELDS_BESIDE: dict[RequestField, dict[str, Any]] = {
    "tool_choice": {"tools": (TOOL,)},
    "thinking_tokens": {"max_output_tokens": 4000},
}
"""What a request needs to have beside them."""
