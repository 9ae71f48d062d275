"""A conversation with tools, turn by turn, in each protocol: real workers, real servers, a simulated provider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callgate import LLMRequest, Message, Tool
from callgate.domain.messages import ReasoningBlock
from callgate.domain.requests import LLMResult
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Match, ReportedUsage, Rule, ScriptedCall, Simulator, Step
from tests.support.deployment import Deployment
from tests.support.three_protocols import CATALOGUE, MODEL, PROTOCOLS

PATIENCE_S = 30.0
PAGE = Path(__file__).parents[2] / "docs" / "tools.md"
RATES = {"EUR": "1.17", "USD": "1.00"}
QUESTION = "What is 12 EUR in USD?"
RATE = Tool(
    name="rate",
    description="The rate of a currency in USD.",
    parameters={"type": "object", "properties": {"currency": {"type": "string"}}},
)
ASKS = Step(
    text="Let me look.",
    reasoning="A rate is needed.",
    tool_calls=(
        ScriptedCall(name="rate", arguments={"currency": "EUR"}),
        ScriptedCall(name="rate", arguments={"currency": "USD"}),
    ),
    usage=ReportedUsage(prompt_tokens=40, completion_tokens=30, reasoning_tokens=20),
)
ANSWERS = Step(text="14.04 USD", usage=ReportedUsage(prompt_tokens=80, completion_tokens=5))
CALLS = "SELECT input_hash FROM llm_call WHERE org_id = :org"
SCRIPT = [Rule(match=Match(text="1.17"), reply=[ANSWERS]), Rule(reply=[ASKS])]


@pytest.fixture(scope="module")
def standing(
    services: DevServers, provider: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The deployment of this file, with a catalogue of three protocols."""
    folder = tmp_path_factory.mktemp("deployment")
    with Deployment(services, provider, folder, catalogue=CATALOGUE) as deployment:
        yield deployment


def first_turn(org: str, protocol: str) -> LLMRequest:
    """What a pipeline asks. Nothing else in it depends on the protocol."""
    return LLMRequest(
        org_id=org,
        call_type="chat",
        provider=protocol,
        model=MODEL,
        messages=(Message(role="user", content=QUESTION),),
        tools=(RATE,),
    )


def next_turn(request: LLMRequest, result: LLMResult, *texts: str) -> LLMRequest:
    """The answer is sent on as it came, with a result for each tool that it asks for."""
    results = (
        Message(role="tool", tool_call_id=call.id, content=text)
        for call, text in zip(result.tool_calls, texts, strict=True)
    )
    return request.model_copy(update={"messages": (*request.messages, result.message, *results)})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_conversation_with_tools_is_one_call_per_turn(
    deployment: Deployment, protocol: str
) -> None:
    """Each turn has a hash, a hold and a row of its own, and the same turn submitted again collapses."""
    deployment.ensure_worker()
    org, client = deployment.org(), deployment.client
    deployment.provider.script(SCRIPT)
    request = first_turn(org, protocol)

    first = client.submit(request)
    asked = first.get(timeout=PATIENCE_S)
    turn = next_turn(request, asked, "1.17", "1.00")
    second = client.submit(turn)
    answered = second.get(timeout=PATIENCE_S)
    again = [client.submit(first_turn(org, protocol)), client.submit(turn)]

    assert (asked.finish_reason, asked.text) == ("tool_calls", "Let me look.")
    assert [(call.name, json.loads(call.arguments)) for call in asked.tool_calls] == [
        ("rate", {"currency": "EUR"}),
        ("rate", {"currency": "USD"}),
    ]
    assert len({call.id for call in asked.tool_calls}) == 2
    assert (answered.finish_reason, answered.text, answered.tool_calls) == (
        "stop",
        "14.04 USD",
        (),
    )
    assert [handle.task_id for handle in again] == [first.task_id, second.task_id]
    assert all(handle.collapsed for handle in again)
    assert [handle.get(timeout=0).tool_calls for handle in again] == [asked.tool_calls, ()]
    rows = deployment.attempts(org)
    assert [(row.status, row.input_tokens, row.output_tokens) for row in rows] == [
        ("succeeded", 40, 30),
        ("succeeded", 80, 5),
    ]
    assert len({bytes(row.input_hash) for row in deployment.rows(CALLS, org=org)}) == 2
    assert deployment.provider.counts().total == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_example_of_the_page_talks_to_each(deployment: Deployment, protocol: str) -> None:
    deployment.ensure_worker()
    org = deployment.org()
    deployment.provider.script(SCRIPT)
    (example,) = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    names: dict[str, Any] = {
        "run_tool": lambda name, arguments: RATES[json.loads(arguments)["currency"]]
    }
    exec(example, names)  # noqa: S102 - our own page

    answer = names["converse"](deployment.client, org, protocol, MODEL, QUESTION)

    assert answer == "14.04 USD"
    assert len(deployment.attempts(org)) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reasoning_is_sent_on_as_it_came(deployment: Deployment, protocol: str) -> None:
    """With its signature, in the place where the protocol has it, before the tool calls that follow from it."""
    deployment.ensure_worker()
    deployment.provider.script(SCRIPT)
    request = first_turn(deployment.org(), protocol)

    asked = deployment.client.submit(request).get(timeout=PATIENCE_S)
    deployment.client.submit(next_turn(request, asked, "1.17", "1.00")).get(timeout=PATIENCE_S)

    (block,) = asked.reasoning
    assert block.text == "A rate is needed."
    _, sent = (json.loads(received.body) for received in deployment.provider.bodies())
    assert sent_on(protocol, sent) == came(block)
    ids = [call.id for call in asked.tool_calls]
    assert [call_id for call_id in ids if call_id not in json.dumps(sent)] == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_result_is_another_turn(deployment: Deployment, protocol: str) -> None:
    """Nothing but the text of a tool's result differs, and both turns are paid."""
    deployment.ensure_worker()
    org, client = deployment.org(), deployment.client
    deployment.provider.script(SCRIPT)
    request = first_turn(org, protocol)
    asked = client.submit(request).get(timeout=PATIENCE_S)

    turns = [next_turn(request, asked, rate, "1.00") for rate in ("1.17", "1.1700001")]
    handles = client.submit_many(turns)

    assert {handle.get(timeout=PATIENCE_S).text for handle in handles} == {"14.04 USD"}
    assert len({handle.task_id for handle in handles}) == 2
    assert len(deployment.attempts(org)) == 3


def came(block: ReasoningBlock) -> object:
    """What the next turn must have of a block; ids of OpenAI's items name what is not stored, and are left out."""
    data = json.loads(block.data)
    if block.protocol != "openai_responses":
        return data
    (item,) = (entry for entry in data if entry["type"] == "reasoning")
    return {name: value for name, value in item.items() if name != "id"}


def sent_on(protocol: str, body: dict[str, list[dict[str, object]]]) -> object:
    """The reasoning in a request, where the protocol has it: before its tool calls."""
    if protocol == "chat":
        (turn,) = (message for message in body["messages"] if message["role"] == "assistant")
        return {name: turn[name] for name in ("reasoning_content", "reasoning_details")}
    if protocol == "responses":
        kinds = [item.get("type") for item in body["input"]]
        assert kinds.index("reasoning") < kinds.index("function_call")
        return body["input"][kinds.index("reasoning")]
    (turn,) = (message for message in body["messages"] if message["role"] == "assistant")
    blocks = turn["content"]
    assert isinstance(blocks, list)
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    return blocks[0]
