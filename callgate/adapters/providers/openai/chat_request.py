"""
Writes the JSON body of a chat completion's request. `chat_reply` reads the reply.

Source: OpenAI API reference, "Create chat completion", and the guide "Structured outputs" (2026-11).
"""

from __future__ import annotations

import json
from typing import Any

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.made_strict import SentSchema
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolChoice
from callgate.domain.requests import LLMRequest
from callgate.domain.structured import sent_schema

PROTOCOL = "openai"
SCHEMA_NAME = "response"
"""The name of every response schema. It is constant because its tokens are counted as input."""


def request_json(request: LLMRequest, entry: ProviderEntry) -> bytes:
    """
    Write the request as JSON in UTF-8.

    Only fields that the request sets are sent. The response schema is sent as text, because the order of its keys
    changes answers.
    """
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(m, entry) for m in request.messages if _is_said(m, entry)],
        entry.output_bound_field: request.max_output_tokens,
        "n": request.n if request.n != 1 else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "stop": request.stop or None,
        "service_tier": entry.tier_names[request.service_tier]
        if entry.sends_service_tier
        else None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice),
        "reasoning_effort": request.reasoning_effort,
        "verbosity": request.verbosity,
        "prompt_cache_key": request.prompt_cache_key,
    }
    extra = json.loads(request.extra) if request.extra else {}
    # Names that callgate writes itself are not allowed in `extra`; see `reserved_fields.RESERVED_FIELDS`.
    given = {**extra, **{name: value for name, value in fields.items() if value is not None}}
    body = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if sent := sent_schema(request, entry):
        body = f'{body[:-1]},"response_format":{_response_format(sent)}}}'
    return body.encode()


def _is_said(message: Message, entry: ProviderEntry) -> bool:
    """False for a message of which nothing is left: it had only reasoning that this server does not know."""
    if message.content or message.tool_calls or message.role == "tool":
        return True
    return any(_known(block, entry) for block in message.reasoning)


def _known(block: ReasoningBlock, entry: ProviderEntry) -> dict[str, Any]:
    """The fields of a reasoning block that the server knows."""
    if block.protocol != PROTOCOL:
        return {}
    fields = json.loads(block.data)
    return {n: fields[n] for n in entry.reasoning_fields if n in fields}


def _message(message: Message, entry: ProviderEntry) -> dict[str, Any]:
    """A message with its tool calls, or the tool call that it answers, and with the reasoning that the server knows."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        fields["content"] = message.content or None
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    for block in message.reasoning:
        fields.update(_known(block, entry))
    return fields


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": json.loads(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(choice: str | ToolChoice | None) -> object:
    if isinstance(choice, ToolChoice):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _response_format(sent: SentSchema) -> str:
    """The JSON text of `response_format`, with `strict` wherever OpenAI accepts it."""
    strict = "true" if sent.is_strict else "false"
    return (
        f'{{"type":"json_schema","json_schema":'
        f'{{"name":"{SCHEMA_NAME}","strict":{strict},"schema":{sent.text}}}}}'
    )
