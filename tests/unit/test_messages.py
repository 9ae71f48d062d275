"""Messages and tools: what belongs together, and what is stored."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
from callgate.domain.requests import LLMRequest

ASKED = ToolCall(id="call_1", name="add", arguments='{"a":1}')
THOUGHT = ReasoningBlock(protocol="anthropic", text="hm", data='{"type":"thinking"}')
TOOL = Tool(name="add", parameters={"type": "object", "z": 1, "a": 2})  # type: ignore[arg-type]


def a_request(**fields: Any) -> LLMRequest:
    """A request with everything that must be set."""
    messages = [{"role": "user", "content": "ping"}]
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "extraction",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "messages": messages,
            "max_output_tokens": 50,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"role": "user"}, "is empty"),
        ({"role": "assistant"}, "is empty"),
        (
            {"role": "user", "content": "a", "tool_calls": [ASKED]},
            "only a message of the assistant",
        ),
        (
            {"role": "user", "content": "a", "reasoning": [THOUGHT]},
            "only a message of the assistant",
        ),
        ({"role": "tool", "content": "a"}, "has a tool_call_id"),
        ({"role": "user", "content": "a", "tool_call_id": "x"}, "has a tool_call_id"),
    ],
)
def test_a_message_has_what_its_role_has(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Message(**fields)


def test_the_result_of_a_tool_may_be_empty() -> None:
    assert Message(role="tool", tool_call_id="call_1").content == ""


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_a_plain_message_is_stored_as_before(role: Any) -> None:
    assert Message(role=role, content="a").model_dump() == {"role": role, "content": "a"}


def test_a_message_with_more_survives_storage() -> None:
    message = Message(role="assistant", tool_calls=(ASKED,), reasoning=(THOUGHT,), cache="1h")

    assert Message.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"tools": [TOOL, TOOL]}, "the same name"),
        ({"tool_choice": "auto"}, "needs tools"),
        ({"tools": [TOOL], "tool_choice": ToolChoice(name="sub")}, "a tool that is not there"),
        ({"tools": [TOOL], "n": 2}, "n must be 1"),
        ({"thinking_tokens": 10, "reasoning_effort": "low"}, "not both"),
    ],
)
def test_tools_that_no_provider_accepts_are_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        a_request(**fields)


def test_parameters_keep_the_order_of_their_keys() -> None:
    class Sum(BaseModel):
        b: int
        a: int

    assert TOOL.parameters == '{"type":"object","z":1,"a":2}'
    assert '"b":' in Tool(name="add", parameters=Sum).parameters.partition('"a":')[0]  # type: ignore[arg-type]


def test_nothing_private_is_in_a_repr() -> None:
    """Prompts end up in logs otherwise."""
    request = a_request(
        messages=[
            Message(role="assistant", content="PRIVATE", tool_calls=(ASKED,), reasoning=(THOUGHT,)),
            Message(role="tool", content="PRIVATE", tool_call_id="call_1"),
        ],
        tools=[Tool(name="add", description="PRIVATE", parameters='{"title":"PRIVATE"}')],
        extra={"secret": "PRIVATE"},
    )

    assert "PRIVATE" not in repr(request)
    assert '{"a":1}' not in repr(request)
    assert '"thinking"' not in repr(request)
