"""The three ways to ask for an answer that fits a schema, and what cannot be asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
from pydantic import BaseModel

from callgate.adapters.catalogue_file import known_presets
from callgate.adapters.providers.http.structured import answered
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.dialect import why_inexpressible
from callgate.domain.errors import InvalidRequest
from callgate.domain.messages import Tool, ToolCall, ToolChoice
from callgate.domain.provider import ProviderReply
from callgate.domain.requests import LLMRequest, Message
from callgate.domain.structured import PROMPT, asked, sent_schema
from tests.support.service_world import ServiceWorld, a_request

SCHEMA = '{"type":"object","properties":{"z":{"type":"integer"},"a":{}}}'
LIST = '{"type":"array","items":{"type":"string"}}'
TOOL, IN_PROMPT = ProviderEntry(json_schema="tool"), ProviderEntry(json_schema="prompt")
CALL = ToolCall(id="1", name="response", arguments='{"z":1}')


def with_schema(**fields: Any) -> LLMRequest:
    """A request with a schema."""
    return a_request(response_schema=SCHEMA, max_output_tokens=50, **fields)


def a_reply(*texts: str, **fields: Any) -> ProviderReply:
    """A reply that ended as it should."""
    named = {"finish_reason": "stop", "refusal": None, "usage": None, "service_tier": None}
    return ProviderReply(texts, **{**named, "model": "m", "provider_request_id": None, **fields})


def test_a_native_schema_is_left_to_the_protocol() -> None:
    request = with_schema()

    assert asked(request, ProviderEntry()) is request


def test_a_request_without_a_schema_is_asked_as_it_is() -> None:
    request = a_request()

    assert asked(request, TOOL) is asked(request, IN_PROMPT) is request


def test_a_tool_is_forced_whose_parameters_are_the_schema() -> None:
    wire = asked(with_schema(), TOOL)

    assert (wire.tools, wire.tool_choice) == (
        (Tool(name="response", parameters=SCHEMA),),
        ToolChoice(name="response"),
    )
    assert wire.tools[0].parameters == SCHEMA
    assert wire.response_schema is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), (Message(role="system", content=PROMPT + SCHEMA),)),
        (
            (Message(role="system", content="Be brief."),),
            (Message(role="system", content=f"Be brief.\n\n{PROMPT}{SCHEMA}"),),
        ),
        (
            (Message(role="developer", content="Be brief."),),
            (Message(role="developer", content=f"Be brief.\n\n{PROMPT}{SCHEMA}"),),
        ),
    ],
    ids=["no system message", "a system message", "a developer message"],
)
def test_the_prompt_has_the_schema_in_its_one_system_message(
    before: tuple[Message, ...], after: tuple[Message, ...]
) -> None:
    ask = Message(role="user", content="How many?")

    wire = asked(with_schema(messages=(*before, ask)), IN_PROMPT)

    assert wire.messages == (*after, ask)
    assert wire.response_schema is None


@pytest.mark.parametrize("ending", ["stop", "tool_calls"])
def test_the_arguments_of_the_forced_tool_are_the_answer(ending: str) -> None:
    reply = a_reply("I call it.", tool_calls=(CALL,), finish_reason=ending)

    assert answered(reply, with_schema(), TOOL) == a_reply('{"z":1}')


def test_only_the_first_call_of_the_forced_tool_counts() -> None:
    other = ToolCall(id="0", name="other", arguments="{}")
    again = ToolCall(id="2", name="response", arguments="{}")

    reply = a_reply("", tool_calls=(other, CALL, again))

    assert answered(reply, with_schema(), TOOL) == a_reply('{"z":1}')


def test_a_truncated_call_stays_truncated() -> None:
    reply = a_reply("", tool_calls=(CALL,), finish_reason="length")

    assert answered(reply, with_schema(), TOOL) == a_reply('{"z":1}', finish_reason="length")


def test_an_answer_in_words_is_unwrapped_and_left_to_the_check() -> None:
    entry = ProviderEntry(json_schema="tool", unwraps=("fence",))

    assert answered(a_reply('```json\n{"z":1}\n```'), with_schema(), entry) == a_reply('{"z":1}')
    assert answered(a_reply("no"), with_schema(), TOOL) == a_reply("no")


def test_a_prompted_answer_is_unwrapped_as_declared_and_no_further() -> None:
    entry = ProviderEntry(json_schema="prompt", unwraps=("think",))
    reply = a_reply('<think>hm</think>```json\n{"z":1}\n```', "b")

    assert answered(reply, with_schema(), entry) == a_reply('```json\n{"z":1}\n```', "b")
    assert answered(reply, with_schema(), IN_PROMPT) == reply


def test_tools_of_a_prompted_request_stay_the_callers() -> None:
    reply = a_reply("", tool_calls=(CALL,), finish_reason="tool_calls")

    assert answered(reply, with_schema(tools=(Tool(name="look"),)), IN_PROMPT) == reply


@pytest.mark.parametrize(
    ("entry", "fields", "why"),
    [
        (TOOL, {"tools": (Tool(name="look"),)}, "no tools of its own"),
        (ProviderEntry(json_schema="tool", cannot=("tools",)), {}, "cannot be told to call one"),
        (
            ProviderEntry(json_schema="tool", cannot=("tool_choice",)),
            {},
            "cannot be told to call one",
        ),
        (TOOL, {"n": 2}, "n must be 1"),
        (TOOL, {"response_schema": '{"type":"array"}'}, "type object"),
        (
            ProviderEntry(json_schema="tool", protocol="anthropic", cannot=()),
            {"thinking_tokens": 10},
            "while it thinks",
        ),
        (
            ProviderEntry(protocol="anthropic"),
            {
                "response_schema": '{"type":"object","properties":{"n":{"type":"integer","minimum":1}}}'
            },
            r"\$.properties.n: Anthropic knows no 'minimum'",
        ),
        (ProviderEntry(object_schemas=True), {"response_schema": LIST}, "a schema of the type obj"),
        (
            ProviderEntry(object_schemas=True),
            {"response_schema": '{"anyOf":[{"type":"object"},{"type":"null"}]}'},
            "a schema of the type object",
        ),
    ],
    ids=lambda x: str(x)[:40],
)
def test_what_cannot_be_asked_for_is_said_at_submit(
    entry: ProviderEntry, fields: dict[str, Any], why: str
) -> None:
    request = a_request(**{"response_schema": SCHEMA, "max_output_tokens": 50, **fields})
    world = ServiceWorld(entry=entry.model_copy(update={"needs_key": False}))

    with pytest.raises(InvalidRequest, match=why):
        world.submits.prepare(request)
    assert why_inexpressible(request, ProviderEntry(cannot=())) is None


@pytest.mark.parametrize(
    ("protocol", "preset", "is_refused"),
    [
        ("openai", "openai", True),
        ("openai", "azure", True),
        ("openai_responses", "openai", True),
        ("openai", "llama_cpp", False),
        ("openai", "deepseek", False),
    ],
)
def test_a_list_is_refused_where_the_provider_takes_only_objects(
    protocol: str, preset: str, is_refused: bool
) -> None:
    """The others take it as a schema, or it is asked for in the prompt."""
    lines = known_presets()[protocol].below(preset)
    entry = ProviderEntry.model_validate({**lines, "protocol": protocol, "models": {}})

    why = why_inexpressible(a_request(response_schema=LIST, max_output_tokens=50), entry)

    assert ("only a schema of the type object" in (why or "")) is is_refused


class Part(BaseModel):
    """Its schema refers to itself, so its root is a reference."""

    name: str
    parts: list[Part] | None = None


def test_a_recursive_model_is_an_object_as_it_is_sent() -> None:
    """OpenAI takes no root without a type."""
    request = a_request(response_schema=Part, max_output_tokens=50)
    entry = ProviderEntry(object_schemas=True)

    sent = sent_schema(request, entry)

    assert "type" not in json.loads(request.response_schema or "")
    assert sent is not None
    assert sent.is_strict
    assert json.loads(sent.text)["type"] == "object"
    assert why_inexpressible(request, entry) is None


@pytest.mark.parametrize("way", ["native", "tool", "prompt"])
def test_the_bound_counts_what_is_sent(way: Any) -> None:
    """At a byte per token: the schema as it is sent, which may be longer than the caller's."""
    schema = {
        "type": "object",
        "properties": {f"p{n}": {"type": ["string", "null"]} for n in range(300)},
    }
    request = a_request(response_schema=schema, max_output_tokens=50)
    entry = ProviderEntry(json_schema=way)

    bound = TokenEstimator(Catalogue(providers={"sim": entry})).input_bound(request).tokens

    wire = asked(request, entry)
    sent = sent_schema(request, entry)
    texts = [*wire.texts(), sent.text if sent else ""]
    assert bound >= sum(len(text.encode()) for text in texts)
    assert sent is None or sent.is_strict


def test_the_caller_is_told_once_why_a_schema_is_not_strict() -> None:
    world = ServiceWorld(entry=ProviderEntry(needs_key=False))
    tags = {"type": "array", "uniqueItems": True}
    loose = {"type": "object", "properties": {"tags": tags}, "required": ["tags"]}
    strict = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

    with structlog.testing.capture_logs() as logged:
        for text in ("one", "two"):
            world.submit(text, response_schema=loose)
            world.submit(text, response_schema=strict)

    (event,) = [event for event in logged if event["event"] == "schema.left_unchanged"]
    assert event["why"] == "$.properties.tags: strict knows no 'uniqueItems'"
    assert event["log_level"] == "warning"


def test_a_strict_schema_is_no_part_of_the_identity() -> None:
    """What is stored and hashed is the caller's own schema."""
    world = ServiceWorld()
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

    new = world.submits.prepare(a_request(response_schema=schema))

    assert json.loads(json.loads(new.request)["response_schema"]) == schema
