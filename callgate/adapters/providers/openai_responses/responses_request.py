"""
Writes the JSON body of a request for a response. `responses_reply` reads the reply.

Nothing is left at the provider, and nothing is taken from there: `store` is false, and a request names no earlier
response, no conversation and no tool of the provider's own. `reserved_fields.RESERVED_FIELDS` keeps `extra` from it.

Source: OpenAI API reference, "Create a model response" (2026-11); openai-python 3.54, `types/responses`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from callgate.adapters.providers.openai.chat_request import SCHEMA_NAME
from callgate.adapters.providers.openai_responses.turn_items import items_of
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.made_strict import SentSchema
from callgate.domain.messages import Message, Tool, ToolChoice
from callgate.domain.requests import LLMRequest
from callgate.domain.structured import sent_schema

ENCRYPTED_REASONING = "reasoning.encrypted_content"
"""What the provider is asked to include, so that it can be sent on although nothing is stored."""


def request_json(request: LLMRequest, entry: ProviderEntry) -> bytes:
    """
    Write the request as JSON in UTF-8.

    Only fields that the request sets are sent. The response schema is sent as text, because the order of its keys
    changes answers. Fields that OpenAI does not know are refused at submit by the catalogue's `cannot`. If
    an operator takes one from that list, it is sent: the provider then knows it, or refuses it.
    """
    fields: dict[str, Any] = {
        "model": request.model,
        "input": [item for message in request.messages for item in _items(message)],
        "max_output_tokens": request.max_output_tokens,
        "include": [ENCRYPTED_REASONING] if _may_be_asked(request.model, entry) else None,
        "n": request.n if request.n != 1 else None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "stop": request.stop or None,
        "service_tier": request.service_tier.value if entry.sends_service_tier else None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice),
        "reasoning": _set(effort=request.reasoning_effort, max_tokens=request.thinking_tokens),
        "prompt_cache_key": request.prompt_cache_key,
    }
    extra = json.loads(request.extra) if request.extra else {}
    # Names that callgate writes itself are not allowed in `extra`; see `reserved_fields.RESERVED_FIELDS`.
    given = {**extra, **_set(**fields), "store": False}
    body = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if text := _text(request, entry):
        body = f'{body[:-1]},"text":{text}}}'
    return body.encode()


def _set(**fields: object) -> dict[str, object]:
    """The fields that are set; an empty object is not."""
    return {name: value for name, value in fields.items() if value is not None and value != {}}


def _may_be_asked(model: str, entry: ProviderEntry) -> bool:
    """True if a request for this model may ask for encrypted reasoning; others are refused for it."""
    return any(fnmatchcase(model, pattern) for pattern in entry.encrypted_reasoning)


def _items(message: Message) -> Iterator[dict[str, Any]]:
    """A message as input items: tool calls, their results and reasoning are items of their own."""
    if message.role == "assistant":
        yield from items_of(message)
    elif message.role == "tool":
        yield {
            "type": "function_call_output",
            "call_id": message.tool_call_id,
            "output": message.content,
        }
    else:
        yield {"role": message.role, "content": message.content}


def _tool(tool: Tool) -> dict[str, Any]:
    """A tool. Without `strict` OpenAI would rewrite its schema, unlike in chat completions."""
    fields: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description:
        fields["description"] = tool.description
    return {**fields, "parameters": json.loads(tool.parameters), "strict": False}


def _tool_choice(choice: str | ToolChoice | None) -> object:
    if isinstance(choice, ToolChoice):
        return {"type": "function", "name": choice.name}
    return choice


def _text(request: LLMRequest, entry: ProviderEntry) -> str | None:
    """The JSON text of `text`: how long the answer is, and its schema."""
    parts = []
    if request.verbosity is not None:
        parts.append(f'"verbosity":"{request.verbosity}"')
    if sent := sent_schema(request, entry):
        parts.append(f'"format":{_format(sent)}')
    return f"{{{','.join(parts)}}}" if parts else None


def _format(sent: SentSchema) -> str:
    """The JSON text of `text.format`, with `strict` wherever OpenAI accepts it."""
    strict = "true" if sent.is_strict else "false"
    return f'{{"type":"json_schema","name":"{SCHEMA_NAME}","strict":{strict},"schema":{sent.text}}}'
