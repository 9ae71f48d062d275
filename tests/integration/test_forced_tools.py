"""A tool that a request demands is called by the simulator, and replies of all protocols are stored alike."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from callgate.domain.messages import Message, Tool, ToolCall, ToolChoice
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from devkit.simulator.simulator import ReportedUsage, Rule, Simulator, Step
from tests.support.anthropic_preset import PRESET
from tests.support.provider_worlds import adapter_for

TIMEOUT_S = 20.0
USAGE = ReportedUsage(prompt_tokens=50, completion_tokens=30, cached_tokens=7, reasoning_tokens=10)
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "unit": {"type": "string"}},
}
INSTANCE = {"sum": 0, "unit": "ok"}
TOOLS = [Tool(name="other"), Tool(name="add", parameters=SCHEMA)]
PROTOCOLS: dict[str, dict[str, Any]] = {
    "openai": {},
    "openai_responses": {"protocol": "openai_responses"},
    "anthropic": PRESET,
}
FORMS: dict[str, dict[str, Any]] = {
    "text": {"tools": TOOLS},
    "schema": {"response_schema": SCHEMA},
    "some": {"tools": TOOLS[1:], "tool_choice": "required"},
    "this": {"tools": TOOLS, "tool_choice": ToolChoice(name="add")},
}


def answer_of(provider: Simulator, protocol: str, form: str) -> ProviderReply:
    """What the adapter of a protocol reads."""
    url = provider.base_url.removesuffix("/v1" if protocol == "anthropic" else "")
    request = LLMRequest(
        org_id="acme",
        call_type="sums",
        provider="sim",
        model="m",
        max_output_tokens=50,
        messages=[Message(role="user", content="hello")],
        **FORMS[form],
    )

    async def asked() -> ProviderReply | Failure:
        async with adapter_for(url, **PROTOCOLS[protocol]) as adapter:
            return await adapter.complete(request, attempt_id=uuid4(), timeout_s=TIMEOUT_S)

    provider.script([Rule(reply=[Step(usage=USAGE)])])
    answer = asyncio.run(asked())
    assert isinstance(answer, ProviderReply), answer
    return answer


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", ["some", "this"])
def test_a_demanded_tool_is_called(provider: Simulator, protocol: str, form: str) -> None:
    reply = answer_of(provider, protocol, form)

    ((name, arguments),) = [(call.name, json.loads(call.arguments)) for call in reply.tool_calls]
    assert (name, arguments) == ("add", INSTANCE)
    assert (reply.finish_reason, reply.texts) == ("tool_calls", ("",))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
def test_a_stored_reply_is_the_reply(provider: Simulator, protocol: str, form: str) -> None:
    """Another process settles from what is stored, and has nothing else."""
    reply = answer_of(provider, protocol, form)

    assert ProviderReply.from_json(reply.to_json()) == replace(reply, limits=())


@pytest.mark.parametrize("form", FORMS)
def test_the_same_answer_is_stored_alike(provider: Simulator, form: str) -> None:
    """Only ids, tiers, thoughts and the spaces in arguments show which protocol it came in."""

    def alike(protocol: str) -> ProviderReply:
        reply = answer_of(provider, protocol, form)
        calls = tuple(
            ToolCall(id="id", name=call.name, arguments=json.dumps(json.loads(call.arguments)))
            for call in reply.tool_calls
        )
        assert {block.protocol for block in reply.reasoning} == {protocol} - {"openai"}
        return replace(
            reply,
            tool_calls=calls,
            reasoning=(),
            provider_request_id=None,
            service_tier=None,
            limits=(),
        )

    first, *others = map(alike, PROTOCOLS)
    assert others == [first, first]
