"""The contract of `LLMProviderPort` for answers and turns: endings, texts, roles, tools and reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from callgate.adapters.memory.provider import Rule
from callgate.domain.dialect import why_inexpressible
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
from callgate.domain.provider import ProviderReply
from callgate.domain.requests import LLMRequest, Usage
from callgate.services.review import flaw_of
from tests.contract.provider_steps import a_request, ask, converse
from tests.support.provider_worlds import ProviderUnderTest

ADD = Tool(
    name="add",
    description="adds \u4e2d",
    parameters='{"type":"object","z":1,"properties":{"a":{"type":"integer"}}}',
)
CALL = ToolCall(id="call_1", name="add", arguments='{"b":"\u4e2d","a":1}')
OTHER_CALL = ToolCall(id="call_2", name="add", arguments="not JSON")
ODD_TEXTS = {
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "nul": "a\x00b\x7f",
    "right to left": "\u05d0\u202e\u0628",
    "combining": "e\u0301\u0323",
    "line separators": "a\u2028b\u2029c\r\nd\ufeff",
    "quotes": '"\\" \\u0041 </script>',
    "outside the plane": "\U00020000\U0010ffff",
}


def a_reply(text: str = "pong", **fields: Any) -> ProviderReply:
    """A good answer, with changes."""
    return ProviderReply(
        **{
            "texts": (text,),
            "finish_reason": "stop",
            "refusal": None,
            "usage": Usage(input_tokens=9, output_tokens=7),
            "service_tier": "default",
            "model": "gpt-4o-mini",
            "provider_request_id": "req_1",
            **fields,
        }
    )


def next_request(reply: ProviderReply, *messages: Message, **fields: Any) -> LLMRequest:
    """The next turn: the answer as `LLMResult.message` has it, and what follows."""
    turn = Message(
        role="assistant",
        content=reply.texts[0],
        tool_calls=reply.tool_calls,
        reasoning=reply.reasoning,
    )
    return a_request(messages=(*a_request().messages, turn, *messages), **fields)


def without_reasoning(replies: Sequence[ProviderReply]) -> list[ProviderReply]:
    """The replies without what is opaque."""
    return [replace(reply, reasoning=()) for reply in replies]


@pytest.mark.parametrize("text", ["", "I add."], ids=["silent", "with words"])
@pytest.mark.parametrize("has_thought", [True, False])
def test_a_conversation_with_tools(opened: ProviderUnderTest, text: str, has_thought: bool) -> None:
    """
    Tools, then tool calls, then results with the reasoning sent on, then the answer.

    Where there are no tools, each turn is refused at submit.
    """
    thoughts = (opened.thought,) if has_thought and opened.thought else ()
    other = OTHER_CALL
    if opened.entry.object_arguments:
        other = other.model_copy(update={"arguments": "{}"})
    asks = a_reply(text, finish_reason="tool_calls", tool_calls=(CALL, other), reasoning=thoughts)
    answers = opened.said(a_reply("3"))
    first = a_request(tools=(ADD,), **opened.known(tool_choice="required"))

    def then(reply: ProviderReply) -> LLMRequest:
        return next_request(
            reply,
            Message(role="tool", content="3", tool_call_id="call_1"),
            Message(role="tool", content="", tool_call_id="call_2"),
            Message(role="user", content="And now?"),
            tools=(ADD, Tool(name="sub")),
            **opened.known(tool_choice=ToolChoice(name="sub")),
        )

    if "tools" in opened.entry.cannot:
        for request in (first, then(asks), then(asks).model_copy(update={"tools": ()})):
            assert "knows no tools" in (why_inexpressible(request, opened.entry) or "")
        return
    asks = opened.said(asks)
    received, sent = converse(opened, [asks, answers], first, then)

    assert without_reasoning(received) == without_reasoning([asks, answers])
    assert [flaw_of(reply, ()) for reply in received] == [None, None]
    assert [block.text for block in received[0].reasoning] == ["hm"] * len(thoughts)
    assert sent == [first, then(asks)]


def test_reasoning_beside_a_text_comes_back_and_is_sent_on(opened: ProviderUnderTest) -> None:
    reply = opened.said(a_reply("3", reasoning=(opened.thought,) if opened.thought else ()))

    received, sent = converse(opened, [reply, a_reply()], a_request(), next_request)

    assert without_reasoning(received[:1]) == without_reasoning([reply])
    assert sent[1] == next_request(reply)


@pytest.mark.parametrize("protocol", ["other", "openai_chat"])
def test_reasoning_of_another_protocol_is_not_sent(
    opened: ProviderUnderTest, protocol: str
) -> None:
    """The message is. The memory provider has no protocol, so it gets all."""
    foreign = ReasoningBlock(protocol=protocol, text="PRIVATE", data='[{"type":"reasoning"}]')
    turn = Message(role="assistant", content="3", reasoning=(foreign,))

    _, world = ask(opened, request=a_request(messages=(turn,)))

    (message,) = world.sent[0].request.messages
    expected = turn if opened.wire is None else turn.model_copy(update={"reasoning": ()})
    assert message == expected


def test_nothing_is_left_of_a_message_with_reasoning_of_another_protocol_alone(
    opened: ProviderUnderTest,
) -> None:
    """Servers refuse an empty message."""
    foreign = ReasoningBlock(protocol="other", text="PRIVATE", data="{}")
    turn = Message(role="assistant", reasoning=(foreign,))
    asked = a_request().messages

    _, world = ask(opened, request=a_request(messages=(*asked, turn, *asked)))

    expected = (*asked, turn, *asked) if opened.wire is None else (*asked, *asked)
    assert world.sent[0].request.messages == expected


@pytest.mark.parametrize(
    ("ending", "code"),
    [("stop", None), ("length", None), ("content_filter", "content_filtered")],
)
def test_an_ending_is_in_the_words_of_openai(
    opened: ProviderUnderTest, ending: str, code: str | None
) -> None:
    reply = opened.said(a_reply("half", finish_reason=ending))

    answer, _ = ask(opened, Rule(reply))

    assert answer == reply
    flaw = flaw_of(reply, ())
    assert (flaw and flaw.code) == code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"texts": ("",), "finish_reason": "length"}, "output_truncated"),
        ({"texts": ("",), "finish_reason": "length", "tool_calls": (CALL,)}, "output_truncated"),
        ({"texts": ("",), "finish_reason": "content_filter"}, "content_filtered"),
        ({"texts": ("",), "refusal": "I would rather not \u4e2d"}, "refused_by_model"),
        ({"texts": ("",)}, "empty_reply"),
        ({"texts": (" \n",)}, "empty_reply"),
    ],
    ids=["cut", "tool call cut", "filtered", "refused", "empty", "blank"],
)
def test_what_is_no_answer_is_said(
    opened: ProviderUnderTest, fields: dict[str, Any], code: str
) -> None:
    """It is paid: its usage is known."""
    if "refusal" in fields and "refusal" in opened.unsaid:
        # A server without refusals says nothing instead.
        code = "empty_reply"
    reply = opened.said(a_reply(**fields))

    answer, _ = ask(opened, Rule(reply), request=a_request(**opened.known(tools=(ADD,))))

    assert answer == reply
    flaw = flaw_of(reply, ())
    assert flaw is not None
    assert flaw.code == code


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_any_text_survives_the_wire(opened: ProviderUnderTest, text: str) -> None:
    reply = opened.said(a_reply(text))

    answer, world = ask(opened, Rule(reply), request=a_request(text))

    assert answer == reply
    assert world.sent[0].request.messages[0].content == text


def test_system_and_developer_messages_stay_where_they_are(opened: ProviderUnderTest) -> None:
    """Where they could not, the request is refused at submit. One word for both roles is not a loss."""
    roles = ("developer", "system", "user", "assistant", "developer", "user", "system")
    request = a_request(
        messages=[Message(role=role, content=f"as {role} {n}") for n, role in enumerate(roles)]
    )

    if opened.entry.system_first:
        assert "before all others" in (why_inexpressible(request, opened.entry) or "")
        return
    _, world = ask(opened, request=request)

    sent = world.sent[0].request
    assert [m.content for m in sent.messages] == [m.content for m in request.messages]
    joined = {"developer": "system"} if opened.joins_system_roles else {}
    assert [m.role for m in sent.messages] == [joined.get(role, role) for role in roles]


def test_two_messages_of_the_assistant_stay_two(opened: ProviderUnderTest) -> None:
    request = a_request(messages=[Message(role="assistant", content=text) for text in ("a", "b")])

    _, world = ask(opened, request=request)

    assert "".join(m.content for m in world.sent[0].request.messages) == "ab"


def test_cache_marks_arrive_where_they_are_known(opened: ProviderUnderTest) -> None:
    """Other providers get none: a mark is a hint that changes no answer."""
    tool = ADD.model_copy(update={"cache": "1h"})
    marked = [
        Message(role="system", content="Be brief.", cache="1h"),
        Message(role="user", content="ping", cache="5m"),
    ]
    request = a_request(messages=marked, **opened.known(tools=(tool,)))
    bare = a_request(
        messages=[message.model_copy(update={"cache": None}) for message in marked],
        **opened.known(tools=(ADD,)),
    )

    _, world = ask(opened, request=request)

    is_known = opened.wire is None or opened.entry.cache_marks_max is not None
    assert world.sent[0].request == (request if is_known else bare)


def test_what_is_written_for_an_hour_is_told_apart(opened: ProviderUnderTest) -> None:
    """Only a provider with marks writes for a time that its caller chooses."""
    usage = Usage(input_tokens=900, cache_write_tokens=100, output_tokens=7)
    if opened.entry.cache_marks_max is not None:
        usage = usage.model_copy(update={"cache_write_1h_tokens": 60})

    reply = opened.said(a_reply(usage=usage))

    answer, _ = ask(opened, Rule(reply))

    assert isinstance(answer, ProviderReply)
    assert answer.usage == reply.usage
