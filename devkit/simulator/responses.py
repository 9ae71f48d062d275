"""
The Responses format of OpenAI: parse a request, and build the bytes of each kind of answer.

The simulator keeps nothing, so it refuses requests that need state at the provider. It refuses unknown parameters too,
as OpenAI does, so that nothing is lost in silence. Source of the format: openai-python 3.54, `types/responses`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from devkit.simulator.chat import (
    BadRequest,
    ChatRequest,
    Reply,
    content_of,
    counts_of,
    forced_tool,
    parsed,
    reply_by,
    text_of,
    utf8,
    written_bytes,
)
from devkit.simulator.conversation import Said, asked_last, calls_of, check_results
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
    said = [Said(_who(item), _shown(item)) for item in items]
    # A model may think and speak between its tool calls.
    check_results([_ids_of(item) for item in items if _who(item) != "other" or any(_ids_of(item))])
    tier = fields.get("service_tier") or "auto"
    return ChatRequest(
        model=str(fields["model"]),
        asked_last=asked_last(said),
        prompt_bytes=sum(len(utf8(text)) for text in texts),
        choices=1,
        completion_tokens_max=_output_tokens_max(fields),
        response_format=_format(fields.get("text") or {}),
        service_tier="default" if tier == "auto" else str(tier),
        forced=_forced(fields),
    )


def _forced(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    match fields.get("tool_choice"):
        case {"type": "function", "name": name}:
            return forced_tool(name, fields["tools"])
        case "required":
            return forced_tool(None, fields["tools"])
        case _:
            return None


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


def _who(item: Mapping[str, Any]) -> Literal["user", "tool", "other"]:
    if item.get("type") == "function_call_output":
        return "tool"
    return "user" if item.get("role") == "user" else "other"


def _shown(item: Mapping[str, Any]) -> str:
    """The text of an item without its ids."""
    return str(item["output"]) if _who(item) == "tool" else content_of(item)


def _ids_of(item: Mapping[str, Any]) -> tuple[set[str], str | None]:
    """The tool call that an item is, and the one that it is the result of."""
    match item.get("type"):
        case "function_call":
            return {item["call_id"]}, None
        case "function_call_output":
            return set(), item["call_id"]
        case _:
            return set(), None


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
    return {
        "id": f"resp_{answer_id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": details,
        "model": request.model,
        "output": [] if is_empty else _output(step, text, status, answer_id),
        "service_tier": step.service_tier or request.service_tier,
        "store": False,
        "usage": None if step.kind is Kind.NO_USAGE else _usage(request, step, text),
    }


def _output(step: Step, text: str, status: str, answer_id: str) -> list[dict[str, Any]]:
    """The items of an answer: its reasoning, if it is scripted or tokens were used for it; its message; tool calls."""
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    if step.refusal is not None:
        part = {"type": "refusal", "refusal": step.refusal}
    message = {
        "id": f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }
    calls = [
        {
            "id": f"fc_{call_id}",
            "type": "function_call",
            "status": status,
            "call_id": call_id,
            "name": call.name,
            "arguments": call.arguments,
        }
        for call_id, call in calls_of(step, answer_id, "call")
    ]
    said = [message] if text or step.refusal is not None or not calls else []
    return [*_reasoning(step, answer_id), *said, *calls]


def _reasoning(step: Step, answer_id: str) -> Iterator[dict[str, Any]]:
    """What the model thought: the encrypted item has it, and a summary shows what is scripted."""
    if step.reasoning is not None or step.usage.reasoning_tokens:
        shown = [] if step.reasoning is None else [{"type": "summary_text", "text": step.reasoning}]
        thought = {"id": f"rs_{answer_id}", "type": "reasoning", "summary": shown}
        yield {**thought, "encrypted_content": f"encrypted-{answer_id}"}


def _usage(request: ChatRequest, step: Step, text: str) -> dict[str, Any]:
    usage = step.usage
    read, written = counts_of(request, usage, written_bytes(step, text))
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": read + written,
    }
