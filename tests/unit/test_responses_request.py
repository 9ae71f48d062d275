"""The JSON that is sent for a response of OpenAI's, and what is sent on of earlier answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.catalogue_file import known_presets
from callgate.adapters.providers.openai_responses.responses_request import request_json
from callgate.adapters.providers.openai_responses.turn_items import PROTOCOL
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.dialect import why_inexpressible
from callgate.domain.messages import Message, ReasoningBlock, Tool, ToolCall, ToolChoice
from callgate.domain.presets import merged
from callgate.domain.requests import LLMRequest
from tests.unit.test_chat_request import Invoice
from tests.unit.test_messages import TOOL, a_request

ENTRY = ProviderEntry.model_validate(merged({"protocol": PROTOCOL}, known_presets()))
ASKED = ToolCall(id="call_1", name="add", arguments='{"a":1}')
SENT_CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a":1}'}
TOOL_RESULT = Message(role="tool", content="", tool_call_id="call_1")
THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "status": "completed",
    "summary": [{"type": "summary_text", "text": "hm"}],
    "encrypted_content": "gAAA",
}
SENT_THOUGHT = {key: value for key, value in THOUGHT.items() if key not in ("id", "status")}


def body_of(request: LLMRequest, entry: ProviderEntry = ENTRY) -> dict[str, Any]:
    """The request body, read back."""
    body: dict[str, Any] = json.loads(request_json(request, entry))
    return body


def a_block(*entries: object, protocol: str = PROTOCOL) -> ReasoningBlock:
    """What was kept of an answer."""
    return ReasoningBlock(protocol=protocol, data=json.dumps(entries))


def sent_on(*blocks: ReasoningBlock, content: str = "", calls: tuple[ToolCall, ...] = ()) -> object:
    """The input items of a message of the assistant."""
    message = Message(role="assistant", content=content, tool_calls=calls, reasoning=blocks)
    return body_of(a_request(messages=[message]))["input"]


def test_unset_fields_are_not_sent() -> None:
    assert body_of(a_request(), ProviderEntry()) == {
        "model": "gpt-4o-mini",
        "input": [{"role": "user", "content": "ping"}],
        "max_output_tokens": 50,
        "store": False,
    }


def test_set_fields_are_sent() -> None:
    """Zero is a value too."""
    request = a_request(
        temperature=0,
        top_p=0.5,
        service_tier="flex",
        reasoning_effort="none",
        verbosity="low",
        prompt_cache_key="k",
        tools=(TOOL, Tool(name="sub", description="subtracts")),
        tool_choice=ToolChoice(name="sub"),
        extra={"logit_bias": {}},
    )

    body = body_of(request)

    assert body["tools"][0].keys() == {"type", "name", "parameters", "strict"}
    assert body["tools"][1]["description"] == "subtracts"
    assert {name: body[name] for name in body.keys() - {"tools"}} == {
        **body_of(a_request()),
        "temperature": 0,
        "top_p": 0.5,
        "service_tier": "flex",
        "reasoning": {"effort": "none"},
        "text": {"verbosity": "low"},
        "prompt_cache_key": "k",
        "tool_choice": {"type": "function", "name": "sub"},
        "logit_bias": {},
    }


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_a_tool_choice_in_a_word_is_sent(choice: str) -> None:
    assert body_of(a_request(tools=(TOOL,), tool_choice=choice))["tool_choice"] == choice


def test_a_tools_schema_keeps_its_order_and_is_not_rewritten() -> None:
    """Without `strict: false` OpenAI makes it strict."""
    body = request_json(a_request(tools=(TOOL,)), ENTRY).decode()

    assert '"parameters":{"type":"object","z":1,"a":2},"strict":false' in body


def test_nothing_is_kept_at_the_provider() -> None:
    """Also if an operator allowed it by mistake."""
    entry = ENTRY.model_copy(update={"extra_fields": ("store", "include")})

    body = body_of(a_request(model="o3", extra={"store": True, "include": ["x"]}), entry)

    assert body["store"] is False
    assert body["include"] == ["reasoning.encrypted_content"]


@pytest.mark.parametrize(
    "name",
    [
        "store", "include", "stream", "background", "background_options", "conversation", "prompt",
        "previous_response_id", "context_management", "truncation", "text", "reasoning", "instructions", "input",
        "max_output_tokens", "max_tool_calls", "tools", "metadata",
    ],
)  # fmt: skip
def test_extra_never_has_what_keeps_state_or_costs_more(name: str) -> None:
    with pytest.raises(ValueError, match="callgate decides"):
        ProviderEntry(extra_fields=(name,))


@pytest.mark.parametrize("name", ["n", "seed", "stop", "top_k", "thinking_tokens"])
def test_what_responses_cannot_express_is_refused_at_submit(name: str) -> None:
    value = {"stop": ("x",)}.get(name, 2)

    assert why_inexpressible(a_request(**{name: value}), ENTRY) is not None
    assert why_inexpressible(a_request(), ENTRY) is None


def test_what_an_operator_says_a_server_knows_is_sent() -> None:
    """It is not dropped in silence: OpenAI refuses unknown parameters."""
    body = body_of(a_request(n=2, seed=1, stop=("x",), top_k=3, thinking_tokens=4))

    assert (body["n"], body["seed"], body["stop"], body["top_k"]) == (2, 1, ["x"], 3)
    assert body["reasoning"] == {"max_tokens": 4}


@pytest.mark.parametrize(
    ("model", "is_asked"),
    [
        *((name, True) for name in ("o3", "o4-mini", "gpt-5", "gpt-5-mini", "gpt-5-codex", "gpt-5-2025-08-07")),
        *((name, False) for name in ("gpt-4o-mini", "gpt-4.1", "gpt-5-chat-latest", "local")),
    ],
)  # fmt: skip
def test_only_models_that_think_are_asked_for_encrypted_reasoning(
    model: str, is_asked: bool
) -> None:
    """Others refuse the request."""
    assert ("include" in body_of(a_request(model=model))) is is_asked


def test_the_schema_is_sent_unchanged() -> None:
    schema = '{"type":"object","z":1.0,"a":{"\u00fc":1.0,"b":2}}'

    body = request_json(a_request(response_schema=schema, verbosity="high"), ENTRY)

    assert body.endswith(
        '"text":{"verbosity":"high","format":{"type":"json_schema","name":"response","strict":false,"schema":'
        '{"type":"object","z":1.0,"a":{"\u00fc":1.0,"b":2}}}}}'.encode()
    )


def test_a_suitable_schema_is_sent_as_strict() -> None:
    body = body_of(a_request(response_schema=Invoice))

    assert body["text"]["format"]["strict"] is True
    assert body["text"]["format"]["schema"] == Invoice.model_json_schema()


def test_all_roles_are_sent() -> None:
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="developer", content="\u4e2d\U0001f600\u0000"),
        Message(role="user", content="1 + 2?"),
        Message(role="assistant", content="I add.", tool_calls=(ASKED,)),
        TOOL_RESULT,
    ]

    assert body_of(a_request(messages=messages))["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "\u4e2d\U0001f600\u0000"},
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": "I add."},
        SENT_CALL,
        {"type": "function_call_output", "call_id": "call_1", "output": ""},
    ]


def test_items_are_sent_on_in_their_order() -> None:
    """OpenAI refuses reasoning without the item that followed it."""
    other = ASKED.model_copy(update={"id": "call_2"})
    block = a_block(
        THOUGHT,
        {"type": "message", "phase": "commentary"},
        {**THOUGHT, "encrypted_content": "gBBB"},
        {"type": "function_call", "call_id": "call_1"},
        {**THOUGHT, "encrypted_content": "gCCC"},
        {"type": "function_call", "call_id": "call_2"},
    )

    assert sent_on(block, content="I add.", calls=(other, ASKED)) == [
        SENT_THOUGHT,
        {"role": "assistant", "content": "I add.", "phase": "commentary"},
        {**SENT_THOUGHT, "encrypted_content": "gBBB"},
        SENT_CALL,
        {**SENT_THOUGHT, "encrypted_content": "gCCC"},
        {**SENT_CALL, "call_id": "call_2"},
    ]


def test_what_the_block_does_not_name_is_sent_too() -> None:
    block = a_block(THOUGHT, {"type": "function_call", "call_id": "gone"})

    assert sent_on(block, content="I add.", calls=(ASKED, ASKED)) == [
        SENT_THOUGHT,
        {"role": "assistant", "content": "I add."},
        SENT_CALL,
        SENT_CALL,
    ]


@pytest.mark.parametrize(
    "block",
    [
        a_block(THOUGHT, protocol="openai"),
        a_block(THOUGHT, protocol="anthropic"),
        ReasoningBlock(protocol=PROTOCOL, data="not JSON"),
        ReasoningBlock(protocol=PROTOCOL, data="[" * 200),
        ReasoningBlock(protocol=PROTOCOL, data='{"type":"reasoning"}'),
        a_block({"type": "reasoning", "id": "rs_1", "summary": []}),
        a_block({"type": "item_reference", "id": "rs_1"}),
        a_block({"type": "additional_tools", "tools": [{"type": "web_search"}]}),
        a_block({"type": "message", "phase": "commentary", "role": "system"}),
        a_block(7, None, [THOUGHT], {"type": ["reasoning"]}),
    ],
    ids=str,
)
def test_foreign_and_odd_blocks_add_nothing(block: ReasoningBlock) -> None:
    """A block was in the hands of the caller, and some items cost money."""
    assert sent_on(block, calls=(ASKED,)) == [SENT_CALL]


def test_a_reasoning_item_has_known_fields_only() -> None:
    odd = {**THOUGHT, "tools": [1], "content": [{"type": "x", "text": "so"}, 7], "summary": 7}

    assert sent_on(a_block(odd), content="3") == [
        {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "so"}],
            "encrypted_content": "gAAA",
        },
        {"role": "assistant", "content": "3"},
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.just("\ud800"),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "call_id", "phase", "summary", "content", "text", "encrypted_content"]),
            children | st.sampled_from(["reasoning", "message", "function_call", "call_1"]),
            max_size=4,
        )
    ),
    max_leaves=15,
)  # fmt: skip


@given(JSON)
def test_any_block_can_be_sent(data: object) -> None:
    """Text and tool calls are sent whatever the block says."""
    block = ReasoningBlock(protocol=PROTOCOL, data=json.dumps(data))
    items = sent_on(block, content="3", calls=(ASKED,))

    assert isinstance(items, list)
    assert SENT_CALL in items
    assert [item["content"] for item in items if "role" in item] == ["3"]
    assert {item.get("type", "message") for item in items} <= {
        "reasoning",
        "message",
        "function_call",
    }
