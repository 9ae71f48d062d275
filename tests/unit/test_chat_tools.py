"""Tools and reasoning in OpenAI's chat completions: what is sent, and what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callgate.adapters.providers.openai.chat_reply import reply_of
from callgate.adapters.providers.openai.chat_request import request_json
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
from callgate.domain.provider import ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.services.review import flaw_of
from tests.unit.test_messages import TOOL, a_request

ENTRY = ProviderEntry()
THINKS = ProviderEntry(reasoning_fields=("reasoning_content", "reasoning_details"))
ASKED = ToolCall(id="call_1", name="add", arguments='{"a":1}')


def sent(request: LLMRequest, entry: ProviderEntry = ENTRY) -> dict[str, Any]:
    """The body of a request."""
    body: dict[str, Any] = json.loads(request_json(request, entry))
    return body


def read(
    message: dict[str, Any], ending: str, entry: ProviderEntry = ENTRY, **fields: Any
) -> ProviderReply:
    """What is read of a reply with this message."""
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": ending}
    body = json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()
    reply = reply_of(body, {}, a_request(**fields), entry)
    assert isinstance(reply, ProviderReply)
    return reply


def wire_call(**fields: Any) -> dict[str, Any]:
    """A tool call as OpenAI sends it, with changes."""
    function = {"name": "add", "arguments": '{"a":1}', **fields.pop("function", {})}
    return {"id": "call_1", "type": "function", "function": function, **fields}


def test_tools_are_sent_with_their_schema_in_order() -> None:
    request = a_request(
        tools=[TOOL, Tool(name="sub", description="subtracts")], tool_choice=ToolChoice(name="sub")
    )

    body = request_json(request, ENTRY).decode()

    assert '"parameters":{"type":"object","z":1,"a":2}' in body
    assert sent(request)["tools"][1]["function"]["description"] == "subtracts"
    assert sent(request)["tool_choice"] == {"type": "function", "function": {"name": "sub"}}


def test_a_turn_with_tools_is_sent() -> None:
    thought = ReasoningBlock(protocol="openai", data='{"reasoning_content":"hm","other":1}')
    foreign = ReasoningBlock(protocol="anthropic", data='{"reasoning_content":"no"}')
    turn = (
        Message(role="assistant", tool_calls=(ASKED,), reasoning=(thought, foreign)),
        Message(role="tool", content="3", tool_call_id="call_1"),
    )

    asked, answered = sent(a_request(messages=turn), THINKS)["messages"]

    assert asked == {
        "role": "assistant",
        "content": None,
        "tool_calls": [wire_call()],
        "reasoning_content": "hm",
    }
    assert answered == {"role": "tool", "content": "3", "tool_call_id": "call_1"}
    assert "reasoning_content" not in sent(a_request(messages=turn), ENTRY)["messages"][0]


def test_fields_of_newer_models_are_sent() -> None:
    request = a_request(
        top_k=5,
        reasoning_effort="low",
        verbosity="high",
        prompt_cache_key="k",
        extra={"logit_bias": {}},
    )
    names = {"top_k", "reasoning_effort", "verbosity", "prompt_cache_key", "logit_bias"}

    assert names <= sent(request).keys()
    assert not names & sent(a_request()).keys()


def test_extra_does_not_replace_a_field() -> None:
    """The catalogue refuses such names; this is the second wall."""
    assert sent(a_request(extra={"model": "dear"}))["model"] == "gpt-4o-mini"


def test_tool_calls_are_a_good_ending() -> None:
    reply = read({"content": None, "tool_calls": [wire_call()]}, "tool_calls", tools=[TOOL])

    assert reply.tool_calls == (ASKED,)
    assert reply.texts == ("",)
    assert flaw_of(reply, ()) is None


@pytest.mark.parametrize(
    ("ending", "fields", "code"),
    [
        ("tool_calls", {}, "unknown_ending"),
        ("length", {"tools": [TOOL]}, "output_truncated"),
        ("content_filter", {"tools": [TOOL]}, "content_filtered"),
    ],
    ids=["no tools were given", "cut", "filtered"],
)
def test_other_tool_calls_are_no_result(ending: str, fields: dict[str, Any], code: str) -> None:
    flaw = flaw_of(read({"content": "", "tool_calls": [wire_call()]}, ending, **fields), ())

    assert flaw is not None
    assert flaw.code == code


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (wire_call(id=None), {"id": "call_0"}),
        (wire_call(id="a b\x00"), {"id": "a?b?"}),
        (wire_call(function={"arguments": {"a": 1}}), {}),
        (wire_call(function={"arguments": None}), {"arguments": "{}"}),
        (wire_call(function={"name": "add two"}), {"name": "add_two"}),
        (wire_call(function={"name": None}), {"name": "_"}),
        (wire_call(function={"arguments": "\ud800"}), {"arguments": "?"}),
    ],
    ids=["no id", "odd id", "object", "no arguments", "odd name", "no name", "surrogate"],
)
def test_what_servers_send_instead_is_read(call: dict[str, Any], meant: dict[str, Any]) -> None:
    reply = read({"content": None, "tool_calls": [call]}, "tool_calls", tools=[TOOL])

    assert reply.tool_calls == (ASKED.model_copy(update=meant),)


@pytest.mark.parametrize("calls", [None, 7, [7], [{}], [{"function": 7}], {}])
def test_tool_calls_that_cannot_be_read_are_none(calls: object) -> None:
    reply = read({"content": "yes", "tool_calls": calls}, "stop", tools=[TOOL])

    assert reply.tool_calls == ()
    assert flaw_of(reply, ()) is None


def test_reasoning_comes_back_and_can_be_sent_on() -> None:
    message = {"content": "3", "reasoning_content": "hm", "reasoning_details": [{"data": "x"}]}
    (block,) = read(message, "stop", THINKS).reasoning

    (again,) = sent(
        a_request(messages=[Message(role="assistant", content="3", reasoning=(block,))]), THINKS
    )["messages"]

    assert block.text == "hm"
    assert {**message, "role": "assistant"} == again
    assert read(message, "stop", ENTRY).reasoning == ()


def test_a_reply_with_tools_survives_storage() -> None:
    reply = read(
        {"content": "x", "reasoning_content": "hm", "tool_calls": [wire_call()]},
        "tool_calls", THINKS, tools=[TOOL],
    )  # fmt: skip

    assert ProviderReply.from_json(reply.to_json()) == reply
    assert reply.without_text().tool_calls == ()
    assert reply.without_text().reasoning == ()
