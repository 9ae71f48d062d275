"""Answers to a schema that is asked for with a forced tool, or in the prompt."""

from __future__ import annotations

from tests.contract.reply_case import COST, SCHEMA, Case, Reply, chat, choice, dead


def calls(*arguments: str, ending: str = "tool_calls", name: str = "response") -> Reply:
    """A reply that asks for a tool."""
    listed = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": text}}
        for n, text in enumerate(arguments)
    ]
    return chat(choice(None, ending, message={"tool_calls": listed}))


WAYS = (
    *(
        Case(
            f"the forced tool is called, ending with {ending}",
            (calls('{"a": 1}', ending=ending),),
            texts=('{"a": 1}',),
            request={"response_schema": SCHEMA},
            entry={"json_schema": "tool"},
        )
        for ending in ("stop", "tool_calls")
    ),
    Case(
        "the forced tool is called with broken arguments, then rightly",
        (calls('{"a": "x"}'), calls('{"a": 1}')),
        texts=('{"a": 1}',),
        attempts=2,
        posted=2 * COST,
        request={"response_schema": SCHEMA},
        entry={"json_schema": "tool"},
    ),
    dead(
        "the forced tool is cut",
        calls('{"a":', ending="length"),
        code="output_truncated",
        request={"response_schema": SCHEMA},
        entry={"json_schema": "tool"},
    ),
    dead(
        "another tool than the forced one is called",
        calls('{"a": 1}', name="other"),
        attempts=2,
        posted=2 * COST,
        code="empty_reply",
        request={"response_schema": SCHEMA},
        entry={"json_schema": "tool"},
    ),
    Case(
        "words that fit the schema instead of the forced tool",
        (chat(choice('{"a": 1}')),),
        texts=('{"a": 1}',),
        request={"response_schema": SCHEMA},
        entry={"json_schema": "tool"},
    ),
    Case(
        "a prompted answer in the declared wrapping",
        (chat(choice('```json\n{"a": 1}\n```')),),
        texts=('{"a": 1}',),
        request={"response_schema": SCHEMA},
        entry={"json_schema": "prompt", "unwraps": ["fence"]},
    ),
    dead(
        "a prompted answer in a wrapping that is not declared",
        chat(choice('```json\n{"a": 1}\n```')),
        attempts=2,
        posted=2 * COST,
        code="invalid_output",
        request={"response_schema": SCHEMA},
        entry={"json_schema": "prompt"},
    ),
)
