"""
The three ways to ask for an answer that fits a JSON Schema; the catalogue says which one a provider has.

A protocol's adapter writes a native response schema itself. The other two ways are equivalent requests without one: it
writes them like any others. `answered` in `callgate/adapters/providers/http/structured.py` reads their replies.
"""

from __future__ import annotations

import json

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.made_strict import SentSchema, made_closed, made_strict
from callgate.domain.messages import Message, Tool, ToolChoice
from callgate.domain.requests import LLMRequest

RESPONSE_TOOL = "response"
"""The name of the forced tool. Its arguments are the answer."""
PROMPT = "Answer with JSON and nothing else. The JSON must fit this JSON Schema:\n"
FINE_TUNED = "ft:"
"""Prefix of the names of OpenAI's fine-tuned models."""


def asked(request: LLMRequest, entry: ProviderEntry) -> LLMRequest:
    """The request as its provider is asked: with its response schema as a tool or in a message, if it has to be."""
    schema = request.response_schema
    if schema is None or entry.json_schema == "native":
        return request
    if entry.json_schema == "tool":
        changes: dict[str, object] = {
            "tools": (Tool(name=RESPONSE_TOOL, parameters=schema),),
            "tool_choice": ToolChoice(name=RESPONSE_TOOL),
        }
    else:
        changes = {"messages": _with_schema(request.messages, schema)}
    return request.model_copy(update={"response_schema": None, **changes})


def _with_schema(messages: tuple[Message, ...], schema: str) -> tuple[Message, ...]:
    """
    The messages with the schema in a system message in front.

    Many chat templates take one system message only, and only as the first. So it is added to one that is there.
    """
    first, text = messages[0], PROMPT + schema
    if first.role in ("system", "developer"):
        joined = first.model_copy(update={"content": f"{first.content}\n\n{text}"})
        return joined, *messages[1:]
    return Message(role="system", content=text), *messages


def why_unanswerable(request: LLMRequest, entry: ProviderEntry) -> str | None:
    """Say why this provider cannot be asked for an answer with this schema; None if it can."""
    sent = sent_schema(request, entry)
    if sent is not None and sent.why_not and entry.protocol == "anthropic":
        return (
            f"provider {request.provider!r} cannot be asked for this schema: {sent.why_not}; change the schema, or let "
            'the catalogue say json_schema = "tool"'
        )
    if sent is not None and entry.object_schemas and not _is_object_schema(sent.text):
        return (
            f"provider {request.provider!r} takes only a schema of the type object: put yours into a property of one, "
            'or let the catalogue say json_schema = "prompt"'
        )
    if request.response_schema is None or entry.json_schema != "tool":
        return None
    how = f"provider {request.provider!r} answers a response schema through a tool"
    if not {"tools", "tool_choice"}.isdisjoint(entry.cannot):
        return f"{how}, but cannot be told to call one"
    if request.tools:
        return f"{how}, so the request can have no tools of its own"
    if request.n > 1:
        return f"{how}, so n must be 1"
    if not _is_object_schema(request.response_schema):
        return f"{how}, so the schema must be of the type object"
    # Source: Anthropic, "Building with extended thinking", section on tools (2026-11): forced ones are refused.
    thinks = request.thinking_tokens or request.reasoning_effort not in (None, "none")
    if entry.protocol == "anthropic" and thinks:
        return f"{how}, which cannot be forced while it thinks"
    return None


def _is_object_schema(schema: str) -> bool:
    """True if the schema names the type object at its root: a reference to one is not enough."""
    return bool(json.loads(schema).get("type") == "object")


def sent_schema(request: LLMRequest, entry: ProviderEntry) -> SentSchema | None:
    """The schema as a request is sent with it in a field of its protocol; None if it has no schema there."""
    schema = request.response_schema
    if schema is None or entry.json_schema != "native":
        return None
    if entry.protocol == "anthropic":
        return made_closed(schema)
    return made_strict(schema, fine_tuned=request.model.startswith(FINE_TUNED))
