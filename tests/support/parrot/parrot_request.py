"""Writes a request: `{"model": ..., "hear": [{"from": role, "text": ...}, ...], "words_max": ...}`."""

from __future__ import annotations

import json
from typing import Any

from callgate.adapters.providers.http.failures import Inexpressible
from callgate.domain.messages import Message, Tool
from callgate.domain.requests import LLMRequest

ROLES = {
    "system": "keeper",
    "developer": "keeper",
    "user": "guest",
    "assistant": "parrot",
    "tool": "trick",
}


def request_json(request: LLMRequest) -> bytes:
    """
    The request as JSON in UTF-8. Only fields that it sets are sent, and always the output bound.

    Raises:
        Inexpressible: It holds a number that is not finite.
    """
    fields: dict[str, Any] = {
        "model": request.model,
        "hear": [_heard(message) for message in request.messages if _is_said(message)],
        "words_max": request.max_output_tokens,
        "temperature": request.temperature,
        "stop": request.stop or None,
        "tricks": [_trick(tool) for tool in request.tools] or None,
    }
    extra = json.loads(request.extra) if request.extra else {}
    given = {**extra, **{name: value for name, value in fields.items() if value is not None}}
    try:
        body = json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as exc:
        raise Inexpressible("a number is not finite") from exc
    return body.encode()


def _is_said(message: Message) -> bool:
    """False for a message that had only the thoughts of another protocol."""
    return bool(message.content or message.tool_calls or message.role == "tool")


def _heard(message: Message) -> dict[str, Any]:
    heard: dict[str, Any] = {"from": ROLES[message.role], "text": message.content}
    if message.tool_calls:
        heard["does"] = [
            {"id": call.id, "trick": call.name, "with": json.loads(call.arguments.strip() or "{}")}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        heard["did"] = message.tool_call_id
    return heard


def _trick(tool: Tool) -> dict[str, Any]:
    return {"trick": tool.name, "about": tool.description, "takes": json.loads(tool.parameters)}
