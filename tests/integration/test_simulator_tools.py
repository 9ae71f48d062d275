"""Tools of the simulator, as callgate's adapters receive them: the same script in each protocol."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from callgate.adapters.catalogue_file import known_presets
from callgate.domain.messages import Message, Tool, ToolCall, ToolChoice
from callgate.domain.presets import merged
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from devkit.simulator.journal import BODIES_MAX, BODY_BYTES_MAX
from devkit.simulator.simulator import Match, Rule, ScriptedCall, Simulator, Step
from tests.support.provider_worlds import adapter_for
from tests.support.simulator_client import only

TIMEOUT_S = 20.0
ADD = Tool(
    name="add",
    parameters={"type": "object", "properties": {"a": {"type": "integer"}}},
)
USER = Message(role="user", content="hello")
CALL = ToolCall(id="c1", name="add", arguments='{"a":1}')
CALLING = Message(role="assistant", tool_calls=(CALL,))
RESULT = Message(role="tool", tool_call_id="c1", content="forty-two")
ASKING = Step(tool_calls=(ScriptedCall(name="add", arguments={"a": 1}),))


@pytest.fixture(params=["openai", "openai_responses", "anthropic"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def answers_of(
    provider: Simulator, protocol: str, *requests: LLMRequest
) -> list[ProviderReply | Failure]:
    """What the adapter of a protocol reads, one request after the other."""
    path = {"path": "/messages"} if protocol == "anthropic" else {}
    entry = merged({"protocol": protocol, **path}, known_presets())

    async def asked() -> list[ProviderReply | Failure]:
        async with adapter_for(provider.base_url, **entry) as adapter:
            return [
                await adapter.complete(r, attempt_id=uuid4(), timeout_s=TIMEOUT_S) for r in requests
            ]

    return asyncio.run(asked())


def a_request(*messages: Message, **fields: Any) -> LLMRequest:
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "chat",
            "provider": "sim",
            "model": "m",
            "messages": messages or (USER,),
            "max_output_tokens": 50,
            "tools": (ADD,),
            **fields,
        }
    )


def test_a_scripted_call_is_asked_for(provider: Simulator, protocol: str) -> None:
    """With an id of its own each time, and without a text."""
    provider.script(only(ASKING))

    first, second = answers_of(provider, protocol, a_request(), a_request())

    assert isinstance(first, ProviderReply)
    assert isinstance(second, ProviderReply)
    ((call,), (other,)) = first.tool_calls, second.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1})
    assert (first.texts, first.finish_reason) == (("",), "tool_calls")
    assert first.usage is not None
    assert first.usage.output_tokens == 3
    assert call.id != other.id


def test_without_a_script_a_text_answers(provider: Simulator, protocol: str) -> None:
    (answer,) = answers_of(provider, protocol, a_request())

    assert isinstance(answer, ProviderReply)
    assert (answer.texts, answer.tool_calls, answer.finish_reason) == (("ok",), (), "stop")


def test_a_forced_tool_is_called(provider: Simulator, protocol: str) -> None:
    """With a value for each property, or with the scripted text as its arguments."""
    forced = a_request(tool_choice=ToolChoice(name="add"))
    (by_default,) = answers_of(provider, protocol, forced)
    provider.script(only(Step(text='{"a":7}')))
    (scripted,) = answers_of(provider, protocol, forced)

    assert isinstance(by_default, ProviderReply)
    assert isinstance(scripted, ProviderReply)
    given = [json.loads(reply.tool_calls[0].arguments) for reply in (by_default, scripted)]
    assert given == [{"a": 0}, {"a": 7}]
    assert (scripted.texts, scripted.finish_reason) == (("",), "tool_calls")


def test_a_rule_knows_the_question_and_its_results(provider: Simulator, protocol: str) -> None:
    """So a script can answer a whole conversation, or one turn of it."""
    rules = [Rule(match=Match(text="forty-two"), reply=[Step(text="done")])]
    provider.script([*rules, Rule(match=Match(text="hello"), reply=[ASKING])])

    first, last = answers_of(provider, protocol, a_request(), a_request(USER, CALLING, RESULT))
    later = answers_of(
        provider, protocol, a_request(USER, CALLING, RESULT, Message(role="user", content="bye"))
    )

    assert isinstance(first, ProviderReply)
    assert isinstance(last, ProviderReply)
    assert isinstance(later[0], ProviderReply)
    assert [call.name for call in first.tool_calls] == ["add"]
    assert [last.texts, later[0].texts] == [("done",), ("ok",)]


@pytest.mark.parametrize(
    "messages",
    [
        (USER, CALLING),
        (USER, CALLING, Message(role="user", content="well?")),
        (USER, RESULT),
        (USER, CALLING, RESULT, RESULT),
        (USER, CALLING, RESULT.model_copy(update={"tool_call_id": "c2"})),
    ],
    ids=["no result", "no result in time", "no call", "twice", "another call"],
)
def test_results_that_fit_no_call_are_refused(
    provider: Simulator, protocol: str, messages: tuple[Message, ...]
) -> None:
    """As each provider refuses them: nothing is lost in silence."""
    (answer,) = answers_of(provider, protocol, a_request(*messages))

    assert isinstance(answer, Failure)
    assert (answer.code, answer.status) == ("bad_request", 400)


def test_what_was_sent_is_kept_for_the_newest_requests(provider: Simulator) -> None:
    """Large bodies are not, so that a long run stays small."""
    small = [
        a_request(Message(role="user", content=f"question {n}")) for n in range(BODIES_MAX + 2)
    ]
    large = a_request(Message(role="user", content="x" * BODY_BYTES_MAX))

    answers_of(provider, "openai", *small, large)

    bodies = [json.loads(received.body) for received in provider.bodies()]
    questions = [body["messages"][0]["content"] for body in bodies]
    assert questions == [f"question {n}" for n in range(2, BODIES_MAX + 2)]
    assert all(received.attempt_id for received in provider.bodies())
