"""
The Responses format of OpenAI: parse a request, and build the bytes of each kind of answer.

The simulator keeps nothing, so it refuses requests that need state at the provider. It refuses unknown parameters too,
as OpenAI does, so that nothing is lost in silence. Source of the format: openai-python 3.54, `types/responses`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from devkit.simulator.chat import (
    BadRequest,
    ChatRequest,
    Reply,
    called,
    content_of,
    counts_of,
    parsed,
    reply_by,
    text_of,
    utf8,
)
from devkit.simulator.instances import ForcedCall, forced_call
from devkit.simulator.script import Kind, Step

RESPONSES_PATH = "/v1/responses"
OUTPUT_TOKENS_MIN = 16
"""OpenAI API reference, "Create a model response", max_output_tokens (2026-11)."""
PARAMETERS = frozenset(
    {
        "include", "input", "instructions", "max_output_tokens", "metadata", "model", "parallel_tool_calls",
        "prompt_cache_key", "reasoning", "safety_identifier", "service_tier", "store", "stream", "temperature", "text",
        "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
    }
)  # fmt: skip
ENDINGS = {
    "length": ("incomplete", {"reason": "max_output_tokens"}),
    "content_filter": ("incomplete", {"reason": "content_filter"}),
}


def parse(body: bytes) -> ChatRequest:
    """
    Read a request body.

    Raises:
        BadRequest: The body is not a JSON object, a field is malformed or unknown, or needs state.
    """
    return parsed(body, _request)


def reply_to(request: ChatRequest, step: Step) -> Reply:
    """Return the answer of a step to a request."""
    return reply_by(_response, RESPONSES_PATH, request, step)


def _request(fields: Mapping[str, Any]) -> ChatRequest:
    if unknown := sorted(fields.keys() - PARAMETERS):
        raise BadRequest(f"Unknown parameter: '{unknown[0]}'.")
    if fields.get("store") is not False:
        raise BadRequest("nothing is stored; send store=false")
    if any(tool["type"] != "function" for tool in fields.get("tools") or ()):
        raise BadRequest("only functions are supported as tools")
    given = fields["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    texts = [_text(item) for item in items]
    users = (text for item, text in zip(items, texts, strict=True) if item.get("role") == "user")
    tier = fields.get("service_tier") or "auto"
    return ChatRequest(
        model=str(fields["model"]),
        last_user_text=next(iter(reversed(list(users))), ""),
        prompt_bytes=sum(len(utf8(text)) for text in texts),
        choices=1,
        completion_tokens_max=_output_tokens_max(fields),
        response_format=_format(fields.get("text") or {}),
        service_tier="default" if tier == "auto" else str(tier),
        forced=forced_call(fields),
    )


def _text(item: Mapping[str, Any]) -> str:
    """The text of an input item."""
    match item.get("type", "message"):
        case "message":
            return content_of(item)
        case "function_call":
            return f"{item['call_id']}{item['name']}{item['arguments']}"
        case "function_call_output":
            return f"{item['call_id']}{item['output']}"
        case "reasoning" if item.get("encrypted_content") and "summary" in item:
            return str(item["encrypted_content"])
        case "reasoning":
            raise BadRequest(f"Item with id '{item.get('id')}' not found. Nothing is stored.")
        case kind:
            raise BadRequest(f"items of type {kind} are not supported")


def _output_tokens_max(fields: Mapping[str, Any]) -> int | None:
    tokens_max: int | None = fields.get("max_output_tokens")
    if tokens_max is not None and tokens_max < OUTPUT_TOKENS_MIN:
        raise BadRequest(f"max_output_tokens is {tokens_max}, below {OUTPUT_TOKENS_MIN}")
    return tokens_max


def _format(text: Mapping[str, Any]) -> dict[str, Any]:
    """The format of the answer, as chat completions write it."""
    match text.get("format"):
        case {"type": "json_schema", "schema": schema}:
            return {"type": "json_schema", "json_schema": {"schema": schema}}
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case _:
            return {}


def _response(request: ChatRequest, step: Step, answer_id: str) -> dict[str, Any]:
    text, finish_reason = text_of(request, step)
    status, details = ENDINGS.get(finish_reason, ("completed", None))
    is_empty = step.kind is Kind.EMPTY_CHOICES
    call = called(request, step)
    said = _message(step, text, status, answer_id) if call is None else _call(call, answer_id)
    return {
        "id": f"resp_{answer_id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": details,
        "model": request.model,
        "output": [] if is_empty else [*_thoughts(step, answer_id), said],
        "service_tier": step.service_tier or request.service_tier,
        "store": False,
        "usage": None if step.kind is Kind.NO_USAGE else _usage(request, step, text),
    }


def _message(step: Step, text: str, status: str, answer_id: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    if step.refusal is not None:
        part = {"type": "refusal", "refusal": step.refusal}
    return {
        "id": f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }


def _call(call: ForcedCall, answer_id: str) -> dict[str, Any]:
    return {
        "id": f"fc_{answer_id}",
        "type": "function_call",
        "status": "completed",
        "call_id": f"call_{answer_id}",
        "name": call.name,
        "arguments": call.text,
    }


def _thoughts(step: Step, answer_id: str) -> list[dict[str, Any]]:
    """The reasoning of an answer, if tokens were used for it."""
    if not step.usage.reasoning_tokens:
        return []
    thought = {"id": f"rs_{answer_id}", "type": "reasoning", "summary": []}
    return [{**thought, "encrypted_content": f"encrypted-{answer_id}"}]


def _usage(request: ChatRequest, step: Step, text: str) -> dict[str, Any]:
    usage = step.usage
    read, written = counts_of(request, usage, len(utf8(step.refusal or text)))
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": read + written,
    }
