"""OpenAI's two protocols from their server's side: what the adapters write is read, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from callgate.adapters.providers.openai.chat_request import PROTOCOL as CHAT
from callgate.adapters.providers.openai_responses.turn_items import PROTOCOL as RESPONSES
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Usage
from tests.support.provider_worlds import Wire

REASONING_FIELD = "reasoning_content"
"""Where the chat server puts what the model thinks."""
STATUSES: dict[str | None, tuple[str, str | None]] = {
    "length": ("incomplete", "max_output_tokens"),
    "content_filter": ("incomplete", "content_filter"),
}
"""The status of a response and the reason why it is incomplete, by the ending in words of chat completions."""


def _request(fields: dict[str, Any], tools: list[dict[str, Any]], **known: Any) -> LLMRequest:
    """The request with fields that are named alike everywhere."""
    choice = fields.pop("tool_choice", None)
    if isinstance(choice, dict):
        choice = ToolChoice(name=choice.get("function", choice)["name"])
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        tools=[
            Tool(
                **{
                    name: tool[name]
                    for name in ("name", "description", "parameters")
                    if name in tool
                }
            )
            for tool in tools
        ],
        tool_choice=choice,
        **known,
        **fields,
    )


def _chat_request(fields: dict[str, Any]) -> LLMRequest:
    return _request(
        fields,
        [tool["function"] for tool in fields.pop("tools", ())],
        messages=[_chat_message(message) for message in fields.pop("messages")],
        max_output_tokens=fields.pop("max_completion_tokens"),
        response_schema=fields.pop("response_format", {}).get("json_schema", {}).get("schema"),
    )


def _chat_message(fields: dict[str, Any]) -> Message:
    calls = [ToolCall(id=call["id"], **call["function"]) for call in fields.pop("tool_calls", ())]
    thought = fields.pop(REASONING_FIELD, None)
    data = json.dumps({REASONING_FIELD: thought}, separators=(",", ":"))
    blocks = [ReasoningBlock(protocol=CHAT, text=thought, data=data)] if thought else []
    content = fields.pop("content") or ""
    return Message(content=content, tool_calls=calls, reasoning=blocks, **fields)


def _chat_reply(reply: ProviderReply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "refusal": reply.refusal}
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": call.model_dump(exclude={"id"})}
            for call in reply.tool_calls
        ]
    for block in reply.reasoning:
        message |= json.loads(block.data)
    return {
        "model": reply.model,
        "choices": [
            {
                "index": index,
                "message": {**message, "content": text},
                "finish_reason": reply.finish_reason,
            }
            for index, text in enumerate(reply.texts)
        ],
        "usage": _usage(reply.usage, "prompt", "completion"),
        "service_tier": reply.service_tier,
    }


def _responses_request(fields: dict[str, Any]) -> LLMRequest:
    assert fields.pop("store") is False
    fields.pop("include", None)
    text, reasoning = fields.pop("text", {}), fields.pop("reasoning", {})
    return _request(
        fields,
        fields.pop("tools", []),
        messages=list(_responses_messages(fields.pop("input"))),
        response_schema=text.get("format", {}).get("schema"),
        verbosity=text.get("verbosity"),
        reasoning_effort=reasoning.get("effort"),
    )


def _responses_messages(items: list[dict[str, Any]]) -> Iterator[Message]:
    """Messages from items. Items of the assistant that follow each other are one message."""
    for role, group in groupby(items, _role):
        for turn in [list(group)] if role == "assistant" else [[item] for item in group]:
            if role == "assistant":
                yield _turn(turn)
            elif role == "tool":
                yield Message(
                    role="tool", content=turn[0]["output"], tool_call_id=turn[0]["call_id"]
                )
            else:
                yield Message(role=role, content=turn[0]["content"])


def _role(item: dict[str, Any]) -> Any:
    kinds = {"reasoning": "assistant", "function_call": "assistant", "function_call_output": "tool"}
    return kinds.get(item.get("type", ""), item.get("role"))


def _turn(items: list[dict[str, Any]]) -> Message:
    """A message of the assistant, with its reasoning items."""
    calls = [item for item in items if item.get("type") == "function_call"]
    thoughts = [item for item in items if item.get("type") == "reasoning"]
    text = "".join(part["text"] for item in thoughts for part in item["summary"])
    data = json.dumps(thoughts, separators=(",", ":"))
    blocks = [ReasoningBlock(protocol=RESPONSES, text=text, data=data)] if thoughts else []
    return Message(
        role="assistant",
        content="".join(item["content"] for item in items if item.get("role")),
        tool_calls=[
            ToolCall(id=call["call_id"], name=call["name"], arguments=call["arguments"])
            for call in calls
        ],
        reasoning=blocks,
    )


def _responses_reply(reply: ProviderReply) -> dict[str, Any]:
    status, reason = STATUSES.get(reply.finish_reason, ("completed", None))
    thoughts = [item for block in reply.reasoning for item in json.loads(block.data)]
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in reply.texts]
    if reply.refusal is not None:
        parts.append({"type": "refusal", "refusal": reply.refusal})
    calls = [
        {"type": "function_call", "call_id": call.id, **call.model_dump(exclude={"id"})}
        for call in reply.tool_calls
    ]
    is_silent = bool(calls) and not any(reply.texts)
    message = {"type": "message", "role": "assistant", "content": parts}
    return {
        "object": "response",
        "model": reply.model,
        "status": status,
        "incomplete_details": reason and {"reason": reason},
        "output": [*thoughts, *([] if is_silent else [message]), *calls],
        "usage": _usage(reply.usage, "input", "output"),
        "service_tier": reply.service_tier,
    }


def _usage(usage: Usage | None, read: str, written: str) -> dict[str, Any] | None:
    """A usage, whose two counts have these names."""
    if usage is None:
        return None
    return {
        f"{read}_tokens": usage.input_tokens,
        f"{read}_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        f"{written}_tokens": usage.output_tokens,
        f"{written}_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _refused(failure: Failure) -> dict[str, Any]:
    return {"error": {"code": failure.provider_code, "type": None, "param": None, "message": "no"}}


CHAT_WIRE = Wire(_chat_request, _chat_reply, _refused)
RESPONSES_WIRE = Wire(_responses_request, _responses_reply, _refused)
