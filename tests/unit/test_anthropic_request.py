"""The JSON that is sent for one of Anthropic's messages."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from callgate.adapters.providers.anthropic.messages_request import request_json
from callgate.adapters.providers.http.failures import Inexpressible
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
from callgate.domain.requests import LLMRequest
from tests.support.anthropic_preset import ENTRY

WIRE: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)
"""The SDK's own types, as a check of what is written."""
SAMPLING = {"temperature", "top_p", "top_k"}
"""Fields of API version 2023-06-01 that the SDK's types no longer have."""
MARK_5M = {"cache_control": {"type": "ephemeral", "ttl": "5m"}}
MARK_1H = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
THOUGHT = ReasoningBlock(
    protocol="anthropic",
    text="hm",
    data='{"type":"thinking","thinking":"hm \\u00e9","signature":"c2ln"}',
)
CALL = ToolCall(id="toolu_1", name="look_up", arguments='{"b": 1, "a": "\u00e9"}')
TOOL = Tool(
    name="look_up",
    description="Looks it up.",
    parameters='{"type":"object","properties":{"b":{},"a":{}}}',
)


def a_request(*messages: Message, **fields: Any) -> LLMRequest:
    """A request with everything that must be set."""
    return LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="anthropic",
        model="claude-opus-5-5",
        **{"max_output_tokens": 50, "messages": messages or (user("ping"),), **fields},
    )


def user(text: str, **fields: Any) -> Message:
    """A message of the user."""
    return Message(role="user", content=text, **fields)


def system(text: str, **fields: Any) -> Message:
    """A message of the system."""
    return Message(role="system", content=text, **fields)


def assistant(text: str = "", **fields: Any) -> Message:
    """A message of the assistant."""
    return Message(role="assistant", content=text, **fields)


def result(text: str, call_id: str = "toolu_1", **fields: Any) -> Message:
    """The result of a tool."""
    return Message(role="tool", content=text, tool_call_id=call_id, **fields)


def body_of(request: LLMRequest, entry: ProviderEntry = ENTRY) -> dict[str, Any]:
    """The request body, read back. The SDK's types accept it, and it has no other fields."""
    body: dict[str, Any] = json.loads(request_json(request, entry))
    WIRE.validate_python(body)
    assert body.keys() - SAMPLING <= get_type_hints(MessageCreateParamsNonStreaming).keys()
    return body


def text(words: str, **fields: Any) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": words, **fields}


def test_only_what_is_set_is_sent() -> None:
    assert body_of(a_request()) == {
        "model": "claude-opus-5-5",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": [text("ping")]}],
        "service_tier": "standard_only",
    }


def test_a_server_that_knows_no_tiers_gets_none() -> None:
    entry = ENTRY.model_copy(update={"sends_service_tier": False})

    assert "service_tier" not in body_of(a_request(), entry)


def test_sampling_and_stops_have_the_protocols_names() -> None:
    body = body_of(a_request(temperature=0.2, top_p=0.9, top_k=7, stop=("END",)))

    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.2, 0.9, 7)
    assert body["stop_sequences"] == ["END"]


def test_system_messages_are_blocks_of_their_own() -> None:
    """Each keeps its own mark."""
    body = body_of(
        a_request(system("One.", cache="1h"), Message(role="developer", content="Two."), user("?"))
    )

    assert body["system"] == [text("One.", **MARK_1H), text("Two.")]
    assert [turn["role"] for turn in body["messages"]] == ["user"]


def test_a_system_message_in_the_middle_stays_there() -> None:
    """Where an operator has declared that his models accept it. It is never folded into another one."""
    entry = ENTRY.model_copy(update={"system_first": False})

    body = body_of(a_request(system("One."), user("a"), system("Two."), user("b")), entry)

    assert body["system"] == [text("One.")]
    assert body["messages"] == [
        {"role": "user", "content": [text("a")]},
        {"role": "system", "content": [text("Two.")]},
        {"role": "user", "content": [text("b")]},
    ]


def test_messages_of_one_side_are_one_turn() -> None:
    """The results of tools are said by the user, all in one turn, as the API wants."""
    body = body_of(
        a_request(
            user("a"),
            user("b"),
            assistant("", tool_calls=(CALL, CALL.model_copy(update={"id": "toolu_2"}))),
            result("1"),
            result("", "toolu_2", cache="5m"),
            user("go on"),
            tools=(TOOL,),
        )
    )

    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"] == [text("a"), text("b")]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"},
        {"type": "tool_result", "tool_use_id": "toolu_2", **MARK_5M},
        text("go on"),
    ]


def test_a_turn_of_the_assistant_is_sent_on_as_it_came() -> None:
    """Thoughts first, with their signature; then text, if there is any; then tool calls with parsed arguments."""
    redacted = ReasoningBlock(
        protocol="anthropic", data='{"type":"redacted_thinking","data":"ZGF0YQ"}'
    )
    foreign = ReasoningBlock(protocol="openai", data='{"reasoning":"hm"}')
    turn = assistant("Let me see.", reasoning=(THOUGHT, redacted, foreign), tool_calls=(CALL,))

    body = body_of(a_request(user("?"), turn, result("1"), tools=(TOOL,)))

    assert body["messages"][1] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm \u00e9", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "ZGF0YQ"},
            text("Let me see."),
            {
                "type": "tool_use",
                "id": "toolu_1",
                "name": "look_up",
                "input": {"b": 1, "a": "\u00e9"},
            },
        ],
    }


def test_a_blank_text_beside_a_tool_call_is_not_sent() -> None:
    """Models write such texts, and Anthropic refuses them. Alone it is sent: its caller wrote it."""
    turn = assistant(" \n", tool_calls=(CALL,))

    body = body_of(a_request(user(" "), turn, result("1"), tools=(TOOL,)))

    assert [block["type"] for block in body["messages"][1]["content"]] == ["tool_use"]
    assert body["messages"][0]["content"] == [text(" ")]


def test_a_message_with_foreign_thoughts_only_leaves_no_turn() -> None:
    """The turns around it become one."""
    foreign = ReasoningBlock(protocol="openai", data='{"reasoning":"hm"}')

    body = body_of(a_request(user("a"), assistant(reasoning=(foreign,)), user("b")))

    assert body["messages"] == [{"role": "user", "content": [text("a"), text("b")]}]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    call = CALL.model_copy(update={"arguments": " "})

    body = body_of(a_request(user("?"), assistant(tool_calls=(call,)), result("1"), tools=(TOOL,)))

    assert body["messages"][1]["content"][0]["input"] == {}


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "[]",
        "{}",
        '{"type":"text","text":"x"}',
        '{"type":"image","source":{"type":"url","url":"https://x.invalid"}}',
        '{"type":"thinking","thinking":"\\ud800","signature":"s"}',
        '{"type":"thinking","thinking":NaN,"signature":"s"}',
        "[" * 20_000,
    ],
)
def test_a_reasoning_block_of_the_callers_own_is_not_sent(data: str) -> None:
    """It could be anything, for example an image whose tokens nobody has bounded."""
    turn = assistant("hm", reasoning=(ReasoningBlock(protocol="anthropic", data=data),))

    with pytest.raises(Inexpressible):
        request_json(a_request(user("?"), turn, user("!")), ENTRY)


def test_a_mark_stands_at_the_last_block_that_can_have_one() -> None:
    """That of the text or the tool call; thoughts alone have none."""
    marked = assistant("a", reasoning=(THOUGHT,), tool_calls=(CALL,), cache="5m")
    thoughts = assistant(reasoning=(THOUGHT,), cache="5m")

    body = body_of(a_request(user("?"), marked, result("1"), thoughts, user("!"), tools=(TOOL,)))

    first, second = body["messages"][1]["content"], body["messages"][3]["content"]
    assert [block.get("cache_control") for block in first] == [
        None, None, MARK_5M["cache_control"],
    ]  # fmt: skip
    assert second == [{"type": "thinking", "thinking": "hm \u00e9", "signature": "c2ln"}]


def test_a_server_without_marks_gets_none() -> None:
    tool = TOOL.model_copy(update={"cache": "1h"})
    request = a_request(system("s", cache="1h"), user("u", cache="5m"), tools=(tool,))
    entry = ENTRY.model_copy(update={"cache_marks_max": None})

    assert json.dumps(body_of(request)).count("cache_control") == 3
    assert "cache_control" not in json.dumps(body_of(request, entry))


def test_tools_keep_the_order_of_their_keys() -> None:
    bare = Tool(name="bare", cache="1h")

    sent = request_json(a_request(tools=(TOOL, bare)), ENTRY).decode()

    assert '"input_schema":{"type":"object","properties":{"b":{},"a":{}}}' in sent
    first, second = body_of(a_request(tools=(TOOL, bare)))["tools"]
    assert (first["name"], first["description"]) == ("look_up", "Looks it up.")
    assert second == {
        "name": "bare", "input_schema": {"type": "object", "properties": {}}, **MARK_1H,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        (ToolChoice(name="look_up"), {"type": "tool", "name": "look_up"}),
    ],
)
def test_the_choice_of_a_tool(choice: object, sent: object) -> None:
    assert body_of(a_request(tools=(TOOL,), tool_choice=choice))["tool_choice"] == sent


def test_thinking_has_a_budget_within_the_bound() -> None:
    body = body_of(a_request(thinking_tokens=1024, max_output_tokens=2048))

    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert body["max_tokens"] == 2048
    assert "output_config" not in body


def test_effort_and_schema_share_a_field() -> None:
    schema = '{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"string"}}}'

    body = body_of(a_request(reasoning_effort="xhigh", response_schema=schema))

    assert body["output_config"]["effort"] == "xhigh"
    assert "thinking" not in body
    written = body["output_config"]["format"]
    assert json.dumps(written["schema"], separators=(",", ":")) == (
        f'{schema[:-1]},"additionalProperties":false}}'
    )
    assert written["type"] == "json_schema"


def test_no_effort_is_no_thinking() -> None:
    body = body_of(a_request(reasoning_effort="none"))

    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


def test_extra_is_sent_beside_the_rest() -> None:
    request = a_request(extra={"user_profile_id": "u1"})

    assert body_of(request)["user_profile_id"] == "u1"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_arrives(words: str) -> None:
    body = body_of(a_request(system(words), user(words), assistant(words), user(words)))

    assert body["system"] == [text(words)]
    assert [turn["content"] for turn in body["messages"]] == [[text(words)]] * 3
