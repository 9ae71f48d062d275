"""How one of Anthropic's messages is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callgate.adapters.providers.anthropic.message_reply import reply_of
from callgate.adapters.providers.anthropic.messages_request import request_json
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import Usage
from tests.contract.anthropic_cases import CALL, REDACTED, THOUGHT, USAGE, message, said
from tests.support.anthropic_preset import ENTRY
from tests.unit.test_anthropic_request import a_request, user

TOOLS = (Tool(name="add"),)


def read(
    *blocks: object, headers: dict[str, str] | None = None, request: Any = None, **fields: Any
) -> ProviderReply:
    """A message as it is read."""
    sent = message(*blocks, **fields)
    answer = reply_of(sent.data, headers or {}, request or a_request(tools=TOOLS), ENTRY)
    assert isinstance(answer, ProviderReply), answer
    return answer


def test_all_of_an_answer_is_read() -> None:
    usage = {
        **USAGE,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens_details": {"thinking_tokens": 3},
    }

    reply = read(
        THOUGHT, said("Sum: "), said("3"), CALL, ending="tool_use", usage=usage,
        headers={"request-id": "req_9"}, model="claude-opus-5-5",
    )  # fmt: skip

    assert reply == ProviderReply(
        texts=("Sum: 3",),
        finish_reason="tool_calls",
        refusal=None,
        usage=Usage(
            input_tokens=11 + 5 + 30,
            cached_input_tokens=5,
            cache_write_tokens=30,
            output_tokens=7,
            reasoning_tokens=3,
            cache_write_1h_tokens=20,
        ),
        service_tier="standard",
        model="claude-opus-5-5",
        provider_request_id="req_9",
        tool_calls=(ToolCall(id="toolu_1", name="add", arguments='{"a":1}'),),
        reasoning=(
            ReasoningBlock(
                protocol="anthropic",
                text="hm",
                data='{"type":"thinking","thinking":"hm","signature":"c2ln"}',
            ),
        ),
    )


def test_thoughts_come_back_and_are_sent_on_unchanged() -> None:
    """With fields that nobody knows yet, because the signature may cover them."""
    odd = {**THOUGHT, "thinking": "\u00e9 \u4e2d", "new": {"b": 1, "a": 2}}
    reply = read(odd, REDACTED, CALL, ending="tool_use")
    turn = Message(role="assistant", tool_calls=reply.tool_calls, reasoning=reply.reasoning)
    result = Message(role="tool", content="3", tool_call_id="toolu_1")

    body = json.loads(request_json(a_request(user("?"), turn, result, tools=TOOLS), ENTRY))

    assert body["messages"][1]["content"] == [odd, REDACTED, CALL]
    assert [block.text for block in reply.reasoning] == ["\u00e9 \u4e2d", ""]


@pytest.mark.parametrize(
    ("reason", "read_as"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        (None, None),
    ],
)
def test_stop_reasons_are_given_in_openais_words(reason: object, read_as: str | None) -> None:
    assert read(ending=reason).finish_reason == read_as


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"category": "cyber", "explanation": "It could harm."}, "It could harm."),
        ({"category": "cyber", "explanation": None}, "cyber"),
        ({"category": 7}, "refusal"),
        ("no", "refusal"),
        (None, "refusal"),
    ],
)
def test_a_refusal_says_why(details: object, words: str) -> None:
    assert read(ending="refusal", stop_details=details).refusal == words


def test_tool_calls_are_read_only_where_tools_were_given() -> None:
    assert read(CALL, request=a_request()).tool_calls == ()


def test_lone_surrogates_are_replaced() -> None:
    """They cannot be stored, nor sent on."""
    reply = read(said("a\ud800"), {**THOUGHT, "thinking": "b\ud800", "signature": "c\ud800"})

    assert reply.texts == ("a?",)
    assert reply.reasoning[0].text == "b?"
    assert json.loads(reply.reasoning[0].data)["signature"] == "c?"


def test_without_its_header_the_request_is_known_by_the_messages_id() -> None:
    assert read().provider_request_id == "msg_1"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"<html></html>", b"\xff\xfe"])
def test_what_is_no_message_is_a_failure_of_unknown_bill(body: bytes) -> None:
    failure = reply_of(body, {}, a_request(), ENTRY)

    assert isinstance(failure, Failure)
    assert (failure.code, failure.billing) == ("invalid_response", "unknown")
