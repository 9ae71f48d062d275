"""Tools of the simulator, as callgate's adapters receive them and the ledger stores them: alike in each protocol."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from callgate.adapters.catalogue_file import known_presets
from callgate.domain.messages import Message, Tool, ToolCall, ToolChoice
from callgate.domain.presets import merged
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from devkit.simulator.journal import BODIES_MAX, BODY_MAX_BYTES
from devkit.simulator.simulator import (
    Match,
    ReportedUsage,
    Rule,
    ScriptedCall,
    Simulator,
    Step,
)
from tests.support.simulator_client import a_request, answers_of, only

ADD = Tool(
    name="add",
    parameters={"type": "object", "properties": {"a": {"type": "integer"}}},
)
USER = Message(role="user", content="hello")
CALL = ToolCall(id="c1", name="add", arguments='{"a":1}')
CALLING = Message(role="assistant", tool_calls=(CALL,))
RESULT = Message(role="tool", tool_call_id="c1", content="forty-two")
ASKING = Step(tool_calls=(ScriptedCall(name="add", arguments={"a": 1}),))


USAGE = ReportedUsage(prompt_tokens=50, completion_tokens=30, cached_tokens=7, reasoning_tokens=10)
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "unit": {"type": "string"}},
}
TOOLS = (Tool(name="other"), Tool(name="add", parameters=SCHEMA))
PROTOCOLS = ("openai", "openai_responses", "anthropic")
FORMS: dict[str, dict[str, Any]] = {
    "text": {"tools": TOOLS},
    "schema": {"tools": (), "response_schema": SCHEMA},
    "some": {"tools": TOOLS[1:], "tool_choice": "required"},
    "this": {"tools": TOOLS, "tool_choice": ToolChoice(name="add")},
}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def answers(
    provider: Simulator, protocol: str, *requests: LLMRequest
) -> list[ProviderReply | Failure]:
    """What the adapter of a protocol reads."""
    path = {"path": "/messages"} if protocol == "anthropic" else {}
    entry = merged({"protocol": protocol, **path}, known_presets())
    return answers_of(provider.base_url, entry, *requests)


def asking(*messages: Message, **fields: Any) -> LLMRequest:
    """A request with a tool."""
    return a_request(*messages, **{"tools": (ADD,), **fields})


def test_a_scripted_call_is_asked_for(provider: Simulator, protocol: str) -> None:
    """With an id of its own each time, and without a text."""
    provider.script(only(ASKING))

    first, second = answers(provider, protocol, asking(), asking())

    assert isinstance(first, ProviderReply)
    assert isinstance(second, ProviderReply)
    ((call,), (other,)) = first.tool_calls, second.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1})
    assert (first.texts, first.finish_reason) == (("",), "tool_calls")
    assert first.usage is not None
    assert first.usage.output_tokens == 3
    assert call.id != other.id


def test_without_a_script_a_text_answers(provider: Simulator, protocol: str) -> None:
    (answer,) = answers(provider, protocol, asking())

    assert isinstance(answer, ProviderReply)
    assert (answer.texts, answer.tool_calls, answer.finish_reason) == (("ok",), (), "stop")


def test_a_forced_tool_is_called_with_the_scripted_text(provider: Simulator, protocol: str) -> None:
    provider.script(only(Step(text='{"a":7}')))
    (reply,) = answers(provider, protocol, asking(tool_choice=ToolChoice(name="add")))

    assert isinstance(reply, ProviderReply)
    assert [json.loads(call.arguments) for call in reply.tool_calls] == [{"a": 7}]
    assert (reply.texts, reply.finish_reason) == (("",), "tool_calls")


def test_a_rule_knows_the_question_and_its_results(provider: Simulator, protocol: str) -> None:
    """So a script can answer a whole conversation, or one turn of it."""
    rules = [Rule(match=Match(text="forty-two"), reply=[Step(text="done")])]
    provider.script([*rules, Rule(match=Match(text="hello"), reply=[ASKING])])

    first, last = answers(provider, protocol, asking(), asking(USER, CALLING, RESULT))
    later = answers(
        provider, protocol, asking(USER, CALLING, RESULT, Message(role="user", content="bye"))
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
    (answer,) = answers(provider, protocol, asking(*messages))

    assert isinstance(answer, Failure)
    assert (answer.code, answer.status) == ("bad_request", 400)


def test_what_was_sent_is_kept_for_the_newest_requests(provider: Simulator) -> None:
    """Large bodies are not, so that a long run stays small."""
    small = [asking(Message(role="user", content=f"question {n}")) for n in range(BODIES_MAX + 2)]
    large = asking(Message(role="user", content="x" * BODY_MAX_BYTES))

    answers(provider, "openai", *small, large)

    bodies = [json.loads(received.body) for received in provider.bodies()]
    questions = [body["messages"][0]["content"] for body in bodies]
    assert questions == [f"question {n}" for n in range(2, BODIES_MAX + 2)]
    assert all(received.attempt_id for received in provider.bodies())


def answer_of(provider: Simulator, protocol: str, form: str) -> ProviderReply:
    """What the adapter of a protocol reads for a form of request."""
    provider.script(only(Step(usage=USAGE)))
    (answer,) = answers(provider, protocol, asking(**FORMS[form]))
    assert isinstance(answer, ProviderReply), answer
    return answer


@pytest.mark.parametrize("form", ["some", "this"])
def test_a_demanded_tool_is_called(provider: Simulator, protocol: str, form: str) -> None:
    """With a value for each of its properties."""
    reply = answer_of(provider, protocol, form)

    ((name, arguments),) = [(call.name, json.loads(call.arguments)) for call in reply.tool_calls]
    assert (name, arguments) == ("add", {"sum": 0, "unit": "ok"})
    assert (reply.finish_reason, reply.texts) == ("tool_calls", ("",))


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
