"""
The mix of a trial's load: three protocols at one simulated provider, and requests of several forms.

Each protocol is an entry of the catalogue with a model of its own, so both callgate and the provider count the limits
of each by itself. All have the same prices, so that their bills can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callgate.domain.messages import Message, Tool, ToolCall
from callgate.domain.requests import LLMRequest, LLMResult
from devkit.simulator.chat import CHAT_PATH
from devkit.simulator.messages import MESSAGES_PATH
from devkit.simulator.responses import RESPONSES_PATH

TABLES = """
[providers.{name}]
protocol = "{protocol}"
base_url = "{{{url}}}"
needs_key = false
{unlimited}

[[prices]]
provider = "{name}"
model = "{model}"
input_usd_per_million = 1
output_usd_per_million = 2
source = "chaos"
as_of = 2026-11-01
"""
INPUT_NANO_USD, OUTPUT_NANO_USD = 1_000, 2_000


@dataclass(frozen=True, slots=True)
class Target:
    """An entry of the catalogue, and what it is at the provider."""

    name: str
    model: str
    protocol: str
    path: str
    url: str = "base_url"
    """The name of its address; see `with_addresses`."""

    def tables(self, *, unlimited: bool, declared: Mapping[str, int]) -> str:
        """The tables of the catalogue, with a place for the address."""
        text = TABLES.format(
            name=self.name,
            protocol=self.protocol,
            url=self.url,
            model=self.model,
            unlimited="unlimited = true" if unlimited else "",
        )
        if not declared:
            return text
        amounts = [f"{measure} = {amount}" for measure, amount in declared.items()]
        return "\n".join([text, "[[limits]]", f'provider = "{self.name}"', *amounts, ""])


TARGETS = {
    target.name: target
    for target in (
        Target("sim", "sim-1", "openai", CHAT_PATH),
        Target("sim-responses", "sim-2", "openai_responses", RESPONSES_PATH),
        # Its paths begin with the version.
        Target("sim-messages", "sim-3", "anthropic", MESSAGES_PATH, "root_url"),
    )
}
CHAT = "sim"
NAME_OF_PATH = {target.path: target.name for target in TARGETS.values()}


ANSWER = {"answer": "ok", "score": 0}
"""What the simulator answers to the schema, and calls the tool with."""
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["answer", "score"],
    "additionalProperties": False,
}
TOOL = Tool(name="file", parameters=json.dumps(SCHEMA))


@dataclass(frozen=True, slots=True)
class Form:
    """What a request asks for besides its question, and how its result shows that it was asked."""

    fields: Mapping[str, Any]
    fits: Callable[[LLMResult], bool]
    turns: Sequence[Message] = ()
    """What follows the question."""


def _is_ok(result: LLMResult) -> bool:
    return result.text == "ok" and not result.tool_calls


def _fits_schema(result: LLMResult) -> bool:
    return bool(json.loads(result.text) == ANSWER) and not result.tool_calls


def _calls_tool(result: LLMResult) -> bool:
    calls = [(call.name, json.loads(call.arguments)) for call in result.tool_calls]
    return calls == [(TOOL.name, ANSWER)] and result.finish_reason == "tool_calls"


FORMS = {
    "plain": Form({}, _is_ok),
    "tool_call": Form({"tools": [TOOL], "tool_choice": "required"}, _calls_tool),
    "schema": Form({"response_schema": SCHEMA}, _fits_schema),
    "tool_result": Form(
        {"tools": [TOOL]},
        _is_ok,
        (
            Message(
                role="assistant", tool_calls=[ToolCall(id="call_1", name=TOOL.name, arguments="{}")]
            ),
            Message(role="tool", tool_call_id="call_1", content="filed"),
        ),
    ),
}


def request_of(org: str, call_type: str, number: int, target: str, form: str) -> LLMRequest:
    """Return the request of a question."""
    question = Message(role="user", content=f"question {number}")
    return LLMRequest(
        org_id=org,
        call_type=call_type,
        provider=target,
        model=TARGETS[target].model,
        messages=[question, *FORMS[form].turns],
        **FORMS[form].fields,
    )


def fits(form: str, target: str, result: LLMResult) -> bool:
    """
    Tell whether a result is the answer of the simulator to a request of this form.

    The simulator thinks before each answer. Chat completions do not show it; thoughts of another protocol are wrong.
    """
    thoughts = {block.protocol for block in result.reasoning}
    return FORMS[form].fits(result) and thoughts == {TARGETS[target].protocol} - {"openai"}
