"""Anthropic's protocol from its server's side: what the adapter writes is read, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from callgate.adapters.providers.anthropic.messages_request import PROTOCOL
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Usage
from tests.support.provider_worlds import Wire

Block = dict[str, Any]
ENDINGS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
CHOICES: dict[str, str] = {"any": "required"}
REFUSAL_ENDING = "content_filter"
"""How a refusal ends, in OpenAI's words: it has a stop reason of its own."""


def _request(fields: Block) -> LLMRequest:
    assert fields.pop("service_tier") == "standard_only"
    output, thinking = fields.pop("output_config", {}), fields.pop("thinking", {})
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        messages=[*_system(fields.pop("system", [])), *_spoken(fields.pop("messages"))],
        max_output_tokens=fields.pop("max_tokens"),
        stop=fields.pop("stop_sequences", ()),
        response_schema=output.get("format", {}).get("schema"),
        reasoning_effort=output.get("effort"),
        thinking_tokens=thinking.get("budget_tokens"),
        tools=[_tool(tool) for tool in fields.pop("tools", ())],
        tool_choice=_choice(fields.pop("tool_choice", None)),
        **fields,
    )


def _cache(block: Block) -> Block:
    return {"cache": block["cache_control"]["ttl"]} if "cache_control" in block else {}


def _system(blocks: list[Block]) -> Iterator[Message]:
    for block in blocks:
        yield Message(role="system", content=block["text"], **_cache(block))


def _spoken(turns: list[Block]) -> Iterator[Message]:
    """Each block of the user is a message; a turn of the assistant is one."""
    for turn in turns:
        if turn["role"] == "assistant":
            yield _assistant(turn["content"])
            continue
        for block in turn["content"]:
            if block["type"] == "tool_result":
                called, content = block["tool_use_id"], block.get("content", "")
                yield Message(role="tool", content=content, tool_call_id=called, **_cache(block))
            else:
                yield Message(role="user", content=block["text"], **_cache(block))


def _assistant(blocks: list[Block]) -> Message:
    used = [block for block in blocks if block["type"] == "tool_use"]
    thoughts = [block for block in blocks if block["type"].endswith("thinking")]
    return Message(
        role="assistant",
        content="".join(block.get("text", "") for block in blocks),
        tool_calls=[
            ToolCall(id=call["id"], name=call["name"], arguments=_json(call["input"]))
            for call in used
        ],
        reasoning=[
            ReasoningBlock(protocol=PROTOCOL, text=thought.get("thinking", ""), data=_json(thought))
            for thought in thoughts
        ],
        **_cache(blocks[-1]),
    )


def _tool(fields: Block) -> Tool:
    description = fields.get("description", "")
    return Tool(
        name=fields["name"],
        description=description,
        parameters=fields["input_schema"],
        **_cache(fields),
    )


def _choice(fields: Block | None) -> str | ToolChoice | None:
    if fields is None:
        return None
    return (
        ToolChoice(name=fields["name"])
        if "name" in fields
        else CHOICES.get(fields["type"], fields["type"])
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _reply(reply: ProviderReply) -> Block:
    blocks: list[Block] = [json.loads(block.data) for block in reply.reasoning]
    blocks += [{"type": "text", "text": text} for text in reply.texts if text]
    blocks += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
        for call in reply.tool_calls
    ]
    reason = reply.finish_reason
    return {
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": blocks,
        "stop_reason": "refusal" if reply.refusal else ENDINGS.get(reason or "", reason),
        "stop_details": reply.refusal and {"type": "refusal", "explanation": reply.refusal},
        "usage": _usage(reply.usage, reply.service_tier),
    }


def _usage(usage: Usage | None, tier: str | None) -> Block | None:
    if usage is None:
        return {"service_tier": tier} if tier else None
    return {
        "input_tokens": usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - usage.cache_write_1h_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "service_tier": tier,
    }


def _refused(failure: Failure) -> Block:
    return {"type": "error", "error": {"type": failure.provider_code, "message": "no"}}


MESSAGES_WIRE = Wire(_request, _reply, _refused, request_id_header="request-id")
