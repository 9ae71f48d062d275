"""What a request says in turns: which text it asks last, and whether the results of tools fit their calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from devkit.simulator.script import ScriptedCall, Step


class UnmatchedResult(ValueError):
    """A provider would refuse the request: a tool call has no result, or a result has no tool call."""


@dataclass(frozen=True, slots=True)
class Said:
    """One text of a conversation."""

    who: Literal["user", "tool", "other"]
    text: str


def asked_last(conversation: Sequence[Said]) -> str:
    """The user's last text with the results of tools after it, each on a line of its own; empty without a user."""
    last = max((n for n, said in enumerate(conversation) if said.who == "user"), default=None)
    if last is None:
        return ""
    results = (said.text for said in conversation[last + 1 :] if said.who == "tool")
    return "\n".join([conversation[last].text, *results])


def check_results(steps: Sequence[tuple[set[str], str | None]]) -> None:
    """
    Check that every tool call has its result before anything else is said.

    Args:
        steps: For each message or item: the ids that it calls, and the id that it answers.

    Raises:
        UnmatchedResult: It is not so.
    """
    called: set[str] = set()
    for calls, answered in steps:
        if answered is not None:
            if answered not in called:
                raise UnmatchedResult(f"no tool call found for the result with id {answered!r}")
            called.discard(answered)
        elif calls:
            called |= calls
        elif called:
            raise UnmatchedResult(f"no result found for the tool calls {sorted(called)}")
    if called:
        raise UnmatchedResult(f"no result found for the tool calls {sorted(called)}")


def calls_of(step: Step, answer_id: str, prefix: str) -> Iterator[tuple[str, ScriptedCall]]:
    """The tool calls of an answer, each with an id of its own."""
    for index, call in enumerate(step.tool_calls):
        yield f"{prefix}_{answer_id}_{index}", call


def signature_of(answer_id: str) -> str:
    """What the provider would check in the next turn."""
    return f"signed-{answer_id}"


def chat_calls(step: Step, answer_id: str) -> dict[str, Any]:
    """The tool calls as a field of a chat completion's message; no field without any."""
    listed = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call_id, call in calls_of(step, answer_id, "call")
    ]
    return {"tool_calls": listed} if listed else {}


def chat_reasoning(step: Step, answer_id: str) -> dict[str, Any]:
    """
    The scripted reasoning as fields of a chat completion's message, by two of the known names.

    Source: DeepSeek, "Thinking mode" (`reasoning_content`); OpenRouter, "Reasoning tokens" (`reasoning_details`, with
    the signature); both 2026-11-29.
    """
    if step.reasoning is None:
        return {}
    signed = {"text": step.reasoning, "signature": signature_of(answer_id)}
    return {
        "reasoning_content": step.reasoning,
        "reasoning_details": [{"type": "reasoning.text", **signed}],
    }


def chat_calls_text(message: Mapping[str, Any]) -> str:
    """What the tool calls of a chat completion's message add to the prompt."""
    functions = (call["function"] for call in message.get("tool_calls") or ())
    return "".join(f"{function['name']}{function['arguments']}" for function in functions)
