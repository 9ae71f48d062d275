"""What a provider cannot be asked for is refused at submit."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from callgate.domain.catalogue import Catalogue, ProviderEntry, RequestField
from callgate.domain.dialect import why_inexpressible
from callgate.domain.errors import InvalidRequest
from callgate.domain.gates import check_size
from callgate.domain.messages import Message, ToolCall
from callgate.domain.requests import LLMRequest
from callgate.domain.reserved_fields import RESERVED_FIELDS, plain_name
from tests.unit.test_messages import TOOL, a_request

SET: dict[str, Any] = {
    "n": 2,
    "temperature": 0.0,
    "top_p": 0.5,
    "top_k": 1,
    "seed": 0,
    "stop": ("x",),
    "response_schema": "{}",
    "service_tier": "flex",
    "tools": (TOOL,),
    "tool_choice": "auto",
    "reasoning_effort": "none",
    "thinking_tokens": 1,
    "verbosity": "low",
    "prompt_cache_key": "k",
}


def why(entry: ProviderEntry, **fields: Any) -> str | None:
    """Why a request with these fields cannot be sent to a provider."""
    if "tool_choice" in fields:
        fields["tools"] = (TOOL,)
    return why_inexpressible(a_request(**fields), entry)


@pytest.mark.parametrize("name", get_args(RequestField))
def test_each_field_can_be_declared_as_unknown(name: RequestField) -> None:
    knows = ProviderEntry(cannot=())
    knows_not = ProviderEntry(cannot=(name,))

    assert why(knows_not) is None
    assert why(knows, **{name: SET[name]}) is None
    assert why(knows_not, **{name: SET[name]}) == f"provider 'openai' knows no {name}"


@pytest.mark.parametrize("index", [1, 2])
def test_turns_with_tools_are_refused_where_tools_are_unknown(index: int) -> None:
    """Without them the conversation would be another one."""
    call = ToolCall(id="c1", name="add", arguments="{}")
    turns = (
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="3", tool_call_id="c1"),
    )
    first, plain = Message(role="user", content="1+2?"), Message(role="assistant", content="well")
    messages = (first, turns[0]) if index == 1 else (first, plain, turns[1])

    refused = why(ProviderEntry(cannot=("tools",)), messages=messages)

    assert refused == f"messages[{index}]: provider 'openai' knows no tools"
    assert why(ProviderEntry(), messages=messages) is None


def test_the_gate_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="knows no top_k"):
        check_size(a_request(top_k=1), Catalogue())


def test_extra_needs_the_operators_word_for_each_name() -> None:
    entry = ProviderEntry(extra_fields=("logit_bias",))

    assert why(entry, extra={"logit_bias": {"7": 1}}) is None
    refused = why(entry, extra={"logit_bias": {}, "PRIVATE": 1})
    assert refused is not None
    assert "1 fields" in refused
    assert "PRIVATE" not in refused


@pytest.mark.parametrize("name", ["model", "n", "stream", "max_tokens", "store", "Model", "tools"])
def test_extra_can_never_change_what_is_paid(name: str) -> None:
    with pytest.raises(ValidationError, match="callgate decides"):
        ProviderEntry(extra_fields=(name,))


@pytest.mark.parametrize(
    "name",
    [
        "n_predict", "max_new_tokens", "max_tokens_to_sample", "num_predict", "candidate_count", "engine", "streaming",
        "options", "generation_config", "thinking_budget", "maxTokens", "max-tokens", "max_tokens ", "generationConfig",
        "candidateCount", "serviceTier", "n_cmpl",
    ],
)  # fmt: skip
def test_extra_has_no_other_server_s_name_for_it_either(name: str) -> None:
    """llama.cpp takes both `n_predict` and `max_tokens`, and obeys the first."""
    with pytest.raises(ValidationError, match="callgate decides"):
        ProviderEntry(extra_fields=(name,))


@pytest.mark.parametrize("name", ["logit_bias", "user", "random_seed", "min_p", "safety_settings"])
def test_extra_can_have_what_changes_only_the_answer(name: str) -> None:
    assert ProviderEntry(extra_fields=(name,)).extra_fields == (name,)


def test_every_field_of_a_request_is_reserved() -> None:
    """Whatever callgate may write itself; names that only it uses need no place in the list."""
    own = {"org_id", "call_type", "on_budget", "trace_id", "document_pages", "sample_index"}
    own |= {"prompt_version", "extra", "response_schema", "thinking_tokens"}
    hints = {"temperature", "top_p", "top_k", "seed", "stop", "verbosity", "prompt_cache_key"}

    assert {
        plain_name(name) for name in set(LLMRequest.model_fields) - own - hints
    } <= RESERVED_FIELDS


def test_thinking_is_within_the_output_bound() -> None:
    entry = ProviderEntry(cannot=())

    assert why(entry, thinking_tokens=49) is None
    assert "less than max_output_tokens" in (why(entry, thinking_tokens=50) or "")
