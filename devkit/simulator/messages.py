"""
The messages of Anthropic: parse a request, and build the bytes of each kind of answer.

A request that Anthropic would refuse is refused here too, so that nothing is lost in silence. Source of the format:
`anthropic` 2.14, `types/message_create_params` and `types/message`; platform.claude.com, "Errors", "Rate limits" and
"Prompt caching" (2026-11-29).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from devkit.simulator.chat import (
    BadRequest,
    ChatRequest,
    Reply,
    counts_of,
    forced_tool,
    parsed,
    reply_by,
    text_of,
    utf8,
    written_bytes,
)
from devkit.simulator.conversation import Said, asked_last, calls_of, signature_of
from devkit.simulator.limits import Decision
from devkit.simulator.script import ErrorBody, Kind, Step

MESSAGES_PATH = "/v1/messages"
CACHE_MARKS_MAX = 4
THINKING_TOKENS_MIN = 1024
PARAMETERS = frozenset(
    {
        "cache_control", "max_tokens", "messages", "metadata", "model", "output_config", "service_tier",
        "stop_sequences", "stream", "system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
    }
)  # fmt: skip
ENDINGS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Other statuses get a type by their hundreds."""

Block = Mapping[str, Any]


def parse(body: bytes) -> ChatRequest:
    """
    Read a request body.

    Raises:
        BadRequest: The body is not a JSON object, or a field is malformed, unknown or out of bounds.
    """
    return parsed(body, _request)


def reply_to(request: ChatRequest, step: Step) -> Reply:
    """Return the answer of a step to a request."""
    reply = reply_by(_message, MESSAGES_PATH, request, step)
    reply.headers["request-id"] = reply.headers.pop("x-request-id")
    if step.kind is Kind.STATUS:
        return replace(reply, body=error_body(reply.status, step.error))
    return reply


def error_body(status: int, error: ErrorBody) -> bytes:
    """Return an error in the format of Anthropic. OpenAI's types have no place in it."""
    family = "api_error" if status >= 500 else "invalid_request_error"
    fields: dict[str, Any] = {
        "type": ERROR_TYPES.get(status, family),
        "message": error.message or f"The simulator was told to answer {status}.",
    }
    if error.code is not None and error.code != "rate_limit_exceeded":
        fields["details"] = {"error_code": error.code}
    return json.dumps({"type": "error", "error": fields}).encode()


def limit_headers(decision: Decision) -> dict[str, str]:
    """Return what Anthropic's headers say about limits."""
    headers = {name: value for name, value in decision.headers.items() if name == "Retry-After"}
    for level in decision.levels:
        name = f"anthropic-ratelimit-{level.measure.replace('_', '-')}"
        reset = datetime.fromtimestamp(math.ceil(time.time() + level.reset_s), UTC)
        headers[f"{name}-limit"] = str(level.limit)
        headers[f"{name}-remaining"] = str(level.remaining)
        headers[f"{name}-reset"] = f"{reset:%Y-%m-%dT%H:%M:%SZ}"
    return headers


def _request(fields: Mapping[str, Any]) -> ChatRequest:
    if unknown := sorted(fields.keys() - PARAMETERS):
        raise BadRequest(f"{unknown[0]}: Extra inputs are not permitted")
    turns = [(turn["role"], _blocks(turn["content"])) for turn in fields["messages"]]
    system = _blocks(fields.get("system") or [])
    _check_numbers(fields)
    _check_turns(turns)
    _check_marks([*(fields.get("tools") or ()), *system, *(b for _, turn in turns for b in turn)])
    said = [Said(_who(role, block), _text(block)) for role, turn in turns for block in turn]
    texts = [_text(block) for blocks in (system, *(turn for _, turn in turns)) for block in blocks]
    return ChatRequest(
        model=str(fields["model"]),
        asked_last=asked_last(said),
        prompt_bytes=sum(len(utf8(text)) for text in texts),
        choices=1,
        completion_tokens_max=fields["max_tokens"],
        response_format=_format(fields.get("output_config") or {}),
        service_tier="standard",
        forced=_forced(fields),
    )


def _forced(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    match fields.get("tool_choice"):
        case {"type": "tool", "name": name}:
            return forced_tool(name, fields["tools"], "input_schema")
        case {"type": "any"}:
            return forced_tool(None, fields["tools"], "input_schema")
        case _:
            return None


def _who(role: str, block: Block) -> Literal["user", "tool", "other"]:
    if role != "user":
        return "other"
    return "tool" if block["type"] == "tool_result" else "user"


def _blocks(content: str | Sequence[Block]) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _check_numbers(fields: Mapping[str, Any]) -> None:
    tokens_max = fields["max_tokens"]
    if tokens_max < 1:
        raise BadRequest(f"max_tokens: {tokens_max} is below 1")
    if not 0 <= (fields.get("temperature") or 0) <= 1:
        raise BadRequest("temperature: range: 0..1")
    if fields.get("service_tier", "auto") not in ("auto", "standard_only"):
        raise BadRequest("service_tier: 'auto' or 'standard_only'")
    match fields.get("thinking"):
        case {"type": "enabled", "budget_tokens": budget}:
            if not THINKING_TOKENS_MIN <= budget < tokens_max:
                raise BadRequest("thinking.budget_tokens: at least 1024 and less than max_tokens")
        case None | {"type": "disabled"} | {"type": "adaptive"}:
            pass
        case _:
            raise BadRequest("thinking.type: unknown")


def _check_turns(turns: Sequence[tuple[str, Sequence[Block]]]) -> None:
    """The user begins; results follow the tool calls at once, all of them, and nothing else has results."""
    if not turns or turns[0][0] != "user":
        raise BadRequest("messages: first message must use the 'user' role")
    called: list[str] = []
    for role, blocks in turns:
        if role not in ("user", "assistant"):
            raise BadRequest(f"role '{role}' is not supported on this model")
        if not blocks or any(b["type"] == "text" and not b["text"].strip() for b in blocks):
            raise BadRequest("messages: text content blocks must be non-empty")
        answered = sorted(b["tool_use_id"] for b in blocks if b["type"] == "tool_result")
        if answered != called:
            raise BadRequest("tool_use ids and tool_result blocks do not match")
        called = sorted(b["id"] for b in blocks if b["type"] == "tool_use")
    if called:
        raise BadRequest("tool_use ids were found without tool_result blocks after them")


def _check_marks(blocks: Sequence[Block]) -> None:
    """Few marks, those of an hour first, and none at thoughts."""
    marked = [block for block in blocks if block.get("cache_control")]
    times = [block["cache_control"].get("ttl", "5m") for block in marked]
    if len(marked) > CACHE_MARKS_MAX:
        raise BadRequest(
            f"A maximum of {CACHE_MARKS_MAX} blocks with cache_control may be provided"
        )
    if times != sorted(times):
        raise BadRequest("a ttl='1h' cache_control block must not come after a ttl='5m' one")
    if any(str(block.get("type")).endswith("thinking") for block in marked):
        raise BadRequest("cache_control: Extra inputs are not permitted")


def _text(block: Block) -> str:
    """What a block adds to the prompt."""
    match block["type"]:
        case "text":
            return str(block["text"])
        case "tool_result":
            return "".join(str(part["text"]) for part in _blocks(block.get("content") or []))
        case "tool_use" if isinstance(block["input"], dict):
            return f"{block['name']}{json.dumps(block['input'])}"
        case "thinking":
            return f"{block['thinking']}{block['signature']}"
        case "redacted_thinking":
            return str(block["data"])
        case kind:
            raise BadRequest(f"blocks of type {kind} are not supported")


def _format(config: Mapping[str, Any]) -> dict[str, Any]:
    """The format of the answer, as chat completions write it."""
    match config.get("format"):
        case {"type": "json_schema", "schema": schema}:
            return {"type": "json_schema", "json_schema": {"schema": schema}}
        case _:
            return {}


def _message(request: ChatRequest, step: Step, answer_id: str) -> dict[str, Any]:
    text, finish_reason = text_of(request, step)
    message = {
        "id": f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [] if step.kind is Kind.EMPTY_CHOICES else list(_content(step, text, answer_id)),
        "stop_reason": "refusal" if step.refusal is not None else ENDINGS[finish_reason],
        "stop_sequence": None,
        "stop_details": step.refusal and {"type": "refusal", "explanation": step.refusal},
    }
    if step.kind is not Kind.NO_USAGE:
        message["usage"] = _usage(request, step, text)
    return message


def _content(step: Step, text: str, answer_id: str) -> Iterator[dict[str, Any]]:
    """The blocks of an answer: thoughts, if they are scripted or tokens were used for them; the text; tool calls."""
    if step.reasoning is not None or step.usage.reasoning_tokens:
        thoughts = "Let me see." if step.reasoning is None else step.reasoning
        yield {"type": "thinking", "thinking": thoughts, "signature": signature_of(answer_id)}
    if step.refusal is None and (text or not step.tool_calls):
        yield {"type": "text", "text": text}
    for call_id, call in calls_of(step, answer_id, "toolu"):
        given = json.loads(call.arguments)
        yield {"type": "tool_use", "id": call_id, "name": call.name, "input": given}


def _usage(request: ChatRequest, step: Step, text: str) -> dict[str, Any]:
    usage = step.usage
    read, written = counts_of(request, usage, written_bytes(step, text))
    for_an_hour = usage.cache_write_1h_tokens
    return {
        "input_tokens": max(0, read - usage.cached_tokens - usage.cache_write_tokens),
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": max(0, usage.cache_write_tokens - for_an_hour),
            "ephemeral_1h_input_tokens": for_an_hour,
        },
        "output_tokens": written,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "service_tier": step.service_tier or request.service_tier,
        "inference_geo": "global",
    }
