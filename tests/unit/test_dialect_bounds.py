"""What a provider knows, but only within bounds or in an order, is refused at submit too."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.catalogue import ProviderEntry
from callgate.domain.dialect import why_inexpressible
from callgate.domain.messages import CacheTime, Message, Tool, ToolCall
from callgate.domain.requests import LLMRequest
from tests.support.anthropic_preset import ENTRY

FREE = ProviderEntry(cannot=())
"""A provider without bounds."""
USER = Message(role="user", content="?")
MARKS = st.lists(st.sampled_from([None, "5m", "1h"]), max_size=4)


def why(entry: ProviderEntry, *messages: Message, **fields: Any) -> str:
    """Why a request cannot be sent to a provider; empty if it can."""
    request = LLMRequest(
        org_id="acme",
        call_type="extraction",
        provider="p",
        model="m",
        **{"max_output_tokens": 4096, "messages": messages or (USER,), **fields},
    )
    return why_inexpressible(request, entry) or ""


def system(role: str = "system") -> Message:
    """A message of the system."""
    return Message.model_validate({"role": role, "content": "Be brief."})


def test_what_anthropics_protocol_cannot_express() -> None:
    """As its preset declares. Nothing of it is left out in silence."""
    for name, value in (
        ("n", 2),
        ("seed", 7),
        ("verbosity", "low"),
        ("prompt_cache_key", "k"),
        ("service_tier", "flex"),
        ("service_tier", "priority"),
    ):
        assert why(ENTRY, **{name: value}) == f"provider 'p' knows no {name}"
    assert not why(
        ENTRY,
        n=1,
        temperature=1,
        top_p=0.5,
        top_k=1,
        stop=("x",),
        response_schema='{"type":"null"}',
    )


def test_a_temperature_above_the_providers_scale_is_refused() -> None:
    """Scaled down it would be another request."""
    assert "at most 1" in why(ENTRY, temperature=1.01)
    assert not why(ENTRY, temperature=1.0)
    assert not why(FREE, temperature=2.0)


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh"])
def test_an_effort_must_be_one_of_the_providers(effort: str) -> None:
    assert bool(why(ENTRY, reasoning_effort=effort)) is (effort == "minimal")
    assert not why(FREE, reasoning_effort=effort)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [(1023, "at least 1024"), (1024, ""), (4095, ""), (4096, "less than max_output_tokens")],
)
def test_a_thinking_budget_has_two_bounds(tokens: int, says: str) -> None:
    refused = why(ENTRY, thinking_tokens=tokens)

    assert says in refused
    assert bool(refused) is bool(says)


@given(MARKS, MARKS)
def test_marks_are_few_and_the_longer_come_first(
    of_tools: list[CacheTime | None], of_messages: list[CacheTime | None]
) -> None:
    """In the order in which the provider reads them: tools, then messages."""
    tools = tuple(Tool(name=f"t{n}", cache=cache) for n, cache in enumerate(of_tools))
    messages = (*(Message(role="user", content="x", cache=cache) for cache in of_messages), USER)
    marks = [mark for mark in (*of_tools, *of_messages) if mark]

    refused = why(ENTRY, *messages, tools=tools)

    assert bool(refused) is (len(marks) > 4 or marks != sorted(marks))
    assert not why(FREE, *messages, tools=tools)


@pytest.mark.parametrize(("role", "place"), [*product(["system", "developer"], range(3))])
def test_a_system_message_in_the_middle_is_refused(role: str, place: int) -> None:
    """Folded into the first ones, or into the user's words, it would mean something else."""
    messages = [system(), USER, Message(role="assistant", content="!"), USER]
    messages.insert(1 + place, system(role))

    refused = why(ENTRY, *messages)

    assert ("before all others" in refused) is (place > 0)
    assert not why(FREE, *messages)


def test_a_message_of_another_kind_must_follow() -> None:
    assert "needs a message" in why(ENTRY, system(), system("developer"))
    assert not why(FREE, system())


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ("{}", True),
        ('{"a": [1, {"b": null}]}', True),
        ("", True),
        ("[]", False),
        ("7", False),
        ('{"PRIVATE": 1', False),
        ('{"PRIVATE": NaN}', False),
        ('{"PRIVATE": "\\ud800"}', False),
        ("{" * 20_000, False),
    ],
)
def test_arguments_of_a_tool_call_that_is_sent_on_are_an_object(arguments: str, fits: bool) -> None:
    """Another model may have written anything. The refusal does not quote it."""
    call = ToolCall(id="c1", name="t", arguments=arguments)
    turn = Message(role="assistant", tool_calls=(call,))
    result = Message(role="tool", tool_call_id="c1")

    refused = why(ENTRY, USER, turn, result, tools=(Tool(name="t"),))

    assert not refused if fits else refused.startswith("messages[1]: ")
    assert "PRIVATE" not in refused
    assert not why(FREE, USER, turn, result, tools=(Tool(name="t"),))
