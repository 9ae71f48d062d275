"""Tools, tool calls, reasoning, extra and schemas never have more tokens than their bound, however they are written."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callgate.adapters.token_estimator import (
    FRAME_TOKENS,
    TOOLS_HEADING_TOKENS,
    TokenEstimator,
    framed_bound,
)
from callgate.domain.requests import LLMRequest
from tests.support.token_texts import CATALOGUE, ENCODINGS, TEXTS, a_request, exact, the_end

pytestmark = pytest.mark.long
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(-99, 99), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)


@st.composite
def tools(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few tools with any parameters."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return [
        {"name": name, "description": draw(TEXTS), "parameters": draw(OBJECTS)} for name in names
    ]


def _functions(request: LLMRequest) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": json.loads(tool.parameters),
            },
        }
        for tool in request.tools
    ]


def as_indented(request: LLMRequest) -> str:
    """As Llama 3.1's template does it, and once more indented for the list."""
    return json.dumps(_functions(request), indent=4, ensure_ascii=False)


def as_escaped(request: LLMRequest) -> str:
    """As Jinja's `tojson` does it: ASCII with spaces, `<` and `&` as they are in newer templates."""
    return "\n".join(json.dumps(function) for function in _functions(request))


def as_tags(request: LLMRequest) -> str:
    """With a tag for each text, names before values."""
    return "\n".join(
        f"<tool>\n<tool_name>{tool.name}</tool_name>\n<description>{tool.description}</description>\n"
        f"<parameters>\n{tool.parameters}\n</parameters>\n</tool>"
        for tool in request.tools
    )


def as_types(request: LLMRequest) -> str:
    """As OpenAI's harmony format does it for the outermost properties."""
    lines = ["namespace functions {"]
    for tool in request.tools:
        lines.append(f"// {tool.description}\ntype {tool.name} = (_: {{")
        for name, value in json.loads(tool.parameters).items():
            lines.append(f"// {json.dumps(value, ensure_ascii=False)}\n{name}?: any,")
        lines.append("}) => any;\n")
    return "\n".join(lines)


@pytest.mark.parametrize("written", [as_indented, as_escaped, as_tags, as_types])
@settings(max_examples=100, deadline=None)
@given(definitions=tools())
@example([{"name": "f", "description": "\ufdfa" * 40, "parameters": {"\ufdfa": "\ufdfa" * 40}}])
@example([{"name": "f", "description": '"' * 40, "parameters": {"a": {"b": {"c": [[[1, 2]]]}}}}])
def test_tools_have_no_more_tokens_than_their_bound(
    written: Callable[[LLMRequest], str],
    definitions: list[dict[str, Any]],
) -> None:
    """Not counting the heading, which each provider has of its own."""
    request = a_request(provider="local", tools=definitions)
    bare = TokenEstimator(CATALOGUE).input_bound(a_request(provider="local")).tokens
    prompt = written(request)
    forms = [prompt, *(unicodedata.normalize(form, prompt) for form in ("NFKC", "NFKD"))]

    bound = TokenEstimator(CATALOGUE).input_bound(request).tokens - bare - TOOLS_HEADING_TOKENS

    assert max(len(form.encode()) for form in forms) <= bound
    assert max(exact(encoding)(form) for form in forms for encoding in ENCODINGS) <= bound


@settings(max_examples=200, deadline=None)
@given(OBJECTS, TEXTS)
def test_tool_calls_and_reasoning_have_no_more_tokens_than_their_bound(
    arguments: dict[str, Any], thought: str
) -> None:
    """Arguments may come back as JSON, or as a string in JSON, and a model may write anything there."""
    data = json.dumps({"type": "thinking", "thinking": thought, "signature": "x" * 40})
    for text in (json.dumps(arguments), json.dumps(arguments, ensure_ascii=False), thought):
        call = {"id": "call_1", "name": "f", "arguments": text}
        block = {"protocol": "anthropic", "data": data}
        turns = [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "", "tool_calls": [call], "reasoning": [block]},
            {"role": "tool", "tool_call_id": "call_1", "content": ""},
        ]
        request = a_request(provider="local", messages=turns)
        written = (
            f'<tool_call>{{"id": "call_1", "name": "f", "arguments": {json.dumps(text)}}}</tool_call>'
            f"<think>{data}</think><tool_response id=call_1></tool_response>"
        )

        bound = TokenEstimator(CATALOGUE).input_bound(request).tokens

        assert len(unicodedata.normalize("NFKD", written).encode()) <= bound


@settings(max_examples=300, deadline=None)
@given(st.one_of(OBJECTS.map(json.dumps), TEXTS))
@example('"\\')
@example('{"a" : [1, {"b": "}]"}]}')
def test_a_framed_text_is_at_least_its_bytes(text: str) -> None:
    """In every normal form, and escaped."""
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]

    bound = framed_bound(text) - FRAME_TOKENS

    assert bound >= max(len(form.encode()) for form in (text, *forms))
    assert bound >= len(json.dumps(text))


@pytest.mark.parametrize("text", ['"' * 100_001, "\\" * 100_001, '"\\' * 50_000, "[" * 100_001])
def test_no_text_takes_long(text: str) -> None:
    begun = time.process_time()

    assert framed_bound(text) >= len(text)
    assert time.process_time() - begun < 1


def test_counting_stops_at_the_limit_in_tools_too() -> None:
    """Of 128 tools the first is enough. Nothing is laid out that is over the limit anyway."""
    text = json.dumps({"enum": ["x" * 50] * 4_000})
    request = a_request(tools=[{"name": f"f{n}", "parameters": text} for n in range(16)])

    steps = list(TokenEstimator(CATALOGUE).counting(request, 10_000))

    assert len(steps) <= 3
    assert the_end(TokenEstimator(CATALOGUE).counting(request, 10_000)).tokens > 10_000


@pytest.mark.parametrize("provider", ["openai", "local"])
def test_the_method_of_messages_does_not_change_with_tools(provider: str) -> None:
    """Also beside exactly counted messages tools are bounded by bytes; docs/prices.md says so."""
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {}}}]
    bare = TokenEstimator(CATALOGUE).input_bound(a_request(provider=provider))

    bound = TokenEstimator(CATALOGUE).input_bound(a_request(provider=provider, tools=tools))

    assert bound.method == bare.method
    assert bound.tokens - bare.tokens > TOOLS_HEADING_TOKENS + len(json.dumps(tools))
