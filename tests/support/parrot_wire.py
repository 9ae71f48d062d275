"""Parrot's protocol from its server's side: what the adapter writes is read, and the other way round."""

from __future__ import annotations

import json
from typing import Any

from callgate.domain.messages import Message, Tool, ToolCall
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Usage
from tests.support.parrot.parrot_errors import CODES
from tests.support.parrot.parrot_reply import ENDINGS
from tests.support.provider_worlds import Wire

ROLES = {"keeper": "system", "guest": "user", "parrot": "assistant", "trick": "tool"}
ENDINGS_SAID = {theirs: ours for ours, theirs in ENDINGS.items()}
KINDS = {code: kind for kind, code in CODES.items()}


def _request(fields: dict[str, Any]) -> LLMRequest:
    """A field that no request has is an error."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="openai",
        messages=[_message(heard) for heard in fields.pop("hear")],
        max_output_tokens=fields.pop("words_max"),
        tools=[
            Tool(name=trick["trick"], description=trick["about"], parameters=trick["takes"])
            for trick in fields.pop("tricks", ())
        ],
        **fields,
    )


def _message(heard: dict[str, Any]) -> Message:
    return Message(
        role=ROLES[heard["from"]],
        content=heard["text"],
        tool_calls=[
            ToolCall(id=call["id"], name=call["trick"], arguments=_json(call["with"]))
            for call in heard.get("does", ())
        ],
        tool_call_id=heard.get("did"),
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _reply(reply: ProviderReply) -> dict[str, Any]:
    (text,) = reply.texts
    return {
        "say": text,
        "does": [
            {"id": call.id, "trick": call.name, "with": json.loads(call.arguments)}
            for call in reply.tool_calls
        ],
        "why": ENDINGS_SAID.get(reply.finish_reason or "", reply.finish_reason),
        "model": reply.model,
        "fed": reply.usage and _fed(reply.usage),
    }


def _fed(usage: Usage) -> dict[str, int]:
    return {
        "in": usage.input_tokens,
        "known": usage.cached_input_tokens,
        "out": usage.output_tokens,
    }


def _refused(failure: Failure) -> dict[str, Any]:
    kind = KINDS.get(failure.provider_code or "", failure.provider_code)
    return {"squawk": {"kind": kind, "text": "no"}}


PARROT_WIRE = Wire(
    _request, _reply, _refused, request_id_header="x-feather", wait_header="x-back-in"
)
