"""The simulator's messages, as Anthropic's own client and callgate's adapter receive them."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest
from pydantic import BaseModel

from callgate.adapters.providers.anthropic.messages_request import request_json
from callgate.domain.limits import Measure
from callgate.domain.messages import Message, Tool, ToolCall
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Usage
from callgate.services.review import flaw_of
from devkit.simulator.simulator import (
    ErrorBody,
    Kind,
    ProviderLimits,
    ReportedUsage,
    Simulator,
    Step,
)
from tests.support.anthropic_preset import ENTRY, PRESET
from tests.support.simulator_client import a_request, answers_of, only

ADD = Tool(name="add", cache="1h")
CALL = ToolCall(id="toolu_1", name="add", arguments='{"a": 1}')


class Invoice(BaseModel):
    number: str
    total: int


def root(provider: Simulator) -> str:
    """Where Anthropic's paths begin: they have the `/v1`."""
    return provider.base_url.removesuffix("/v1")


def refused(provider: Simulator, **changes: Any) -> str:
    """The message of the simulator's refusal of a good request with changes; None removes a field."""
    body = {**json.loads(request_json(a_request(), ENTRY)), **changes}
    body = {name: value for name, value in body.items() if value is not None}
    response = httpx2.post(f"{provider.base_url}/messages", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    return str(error["message"])


def test_the_default_answer_is_a_complete_message(provider: Simulator) -> None:
    """As the SDK's own client reads it, strictly."""
    with anthropic.Anthropic(base_url=root(provider), api_key="any", max_retries=0) as client:
        message = client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}]
        )

    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "ok"}]
    assert (message.stop_reason, message.usage.service_tier) == ("end_turn", "standard")
    assert (message._request_id or "").startswith("req_")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (2, 1)
    assert provider.counts().by_fault == {"ok": 1}


def test_a_requested_schema_is_satisfied(provider: Simulator) -> None:
    (answer,) = answers_of(root(provider), PRESET, a_request(response_schema=Invoice))

    assert isinstance(answer, ProviderReply)
    assert Invoice.model_validate_json(answer.texts[0]) == Invoice(number="ok", total=0)


def test_everything_that_the_protocol_has_is_accepted(provider: Simulator) -> None:
    """A second opinion on what the adapter writes: this refuses what Anthropic would refuse."""
    provider.script(only(Step(usage=ReportedUsage(reasoning_tokens=3))))
    (thought,) = answers_of(root(provider), PRESET, a_request())
    assert isinstance(thought, ProviderReply)
    turn = Message(
        role="assistant",
        content=" ",
        tool_calls=(CALL, CALL.model_copy(update={"id": "toolu_2"})),
        reasoning=thought.reasoning,
    )
    request = a_request(
        Message(role="system", content="Be brief.", cache="1h"),
        Message(role="developer", content="In English."),
        Message(role="user", content="a"),
        Message(role="user", content="b", cache="5m"),
        turn.model_copy(update={"content": ""}),
        Message(role="tool", content="3", tool_call_id="toolu_1"),
        Message(role="tool", content="", tool_call_id="toolu_2", cache="5m"),
        tools=(ADD,),
        tool_choice="required",
        temperature=1.0,
        top_p=0.5,
        top_k=7,
        stop=("END",),
        thinking_tokens=1024,
        max_output_tokens=2048,
    )

    (answer,) = answers_of(root(provider), PRESET, request)

    assert isinstance(answer, ProviderReply), answer
    assert answer.usage is not None
    assert answer.usage.reasoning_tokens == 3
    assert [block.text for block in answer.reasoning] == ["Let me see."]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n": 2}, "n: Extra inputs"),
        ({"max_tokens": None}, "malformed"),
        ({"max_tokens": 0}, "below 1"),
        ({"temperature": 1.1}, "temperature"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1023}}, "at least 1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "less than max_tokens"),
        ({"messages": []}, "first message"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "first message"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty"),
        ({"stream": True}, "streams"),
    ],
)
def test_what_anthropic_refuses_is_refused(
    provider: Simulator, changes: dict[str, Any], says: str
) -> None:
    assert says in refused(provider, **changes)


def test_a_system_message_in_the_middle_is_refused(provider: Simulator) -> None:
    turns = [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]

    assert "role 'system' is not supported" in refused(provider, messages=turns)


def test_too_many_marks_are_refused(provider: Simulator) -> None:
    marked = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    late = {**marked, "cache_control": {"type": "ephemeral", "ttl": "1h"}}

    assert "maximum of 4" in refused(provider, system=[marked] * 5)
    assert "must not come after" in refused(provider, system=[marked, late])


def test_results_must_match_the_calls(provider: Simulator) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "add", "input": {}}
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2"}]},
    ]

    assert "do not match" in refused(provider, messages=turns)


def test_a_scripted_usage_has_all_kinds_of_tokens(provider: Simulator) -> None:
    usage = ReportedUsage(
        prompt_tokens=90,
        completion_tokens=8,
        cached_tokens=20,
        cache_write_tokens=30,
        cache_write_1h_tokens=10,
        reasoning_tokens=6,
    )
    provider.script(only(Step(usage=usage)))

    (answer,) = answers_of(root(provider), PRESET, a_request())

    assert isinstance(answer, ProviderReply)
    assert answer.usage == Usage(
        input_tokens=90,
        cached_input_tokens=20,
        cache_write_tokens=30,
        output_tokens=8,
        reasoning_tokens=6,
        cache_write_1h_tokens=10,
    )


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Step(refusal="I would rather not"), "refused_by_model"),
        (Step(finish_reason="content_filter"), "refused_by_model"),
        (Step(finish_reason="length", text=" "), "output_truncated"),
        (Step(kind=Kind.EMPTY_CHOICES), "empty_reply"),
    ],
    ids=["refusal", "filtered", "cut", "empty"],
)
def test_a_reply_without_an_answer(provider: Simulator, step: Step, code: str) -> None:
    provider.script(only(step))

    (answer,) = answers_of(root(provider), PRESET, a_request())

    assert isinstance(answer, ProviderReply)
    flaw = flaw_of(answer, ())
    assert flaw is not None
    assert flaw.code == code


@pytest.mark.parametrize(
    ("step", "code", "billing"),
    [
        (Step(kind=Kind.STATUS, status=529), "server_error", Billing.UNKNOWN),
        (Step(kind=Kind.STATUS, status=401), "authentication_failed", Billing.UNBILLED),
        (
            Step(
                kind=Kind.STATUS, status=429, error=ErrorBody(code="enforced_spend_limit_reached")
            ),
            "insufficient_quota",
            Billing.UNBILLED,
        ),
        (Step(kind=Kind.REDIRECT), "redirected", Billing.UNBILLED),
        (Step(kind=Kind.NOT_JSON), "invalid_response", Billing.UNKNOWN),
        (Step(kind=Kind.WRONG_SCHEMA), "invalid_response", Billing.UNKNOWN),
        (Step(kind=Kind.TRUNCATED_BODY), "invalid_response", Billing.UNKNOWN),
        (Step(kind=Kind.RESET_BEFORE_HEADERS), "connection_lost", Billing.UNKNOWN),
        (Step(kind=Kind.HANG), "timeout", Billing.UNKNOWN),
        (Step(kind=Kind.SLOW_DRIP, drip_s=20), "timeout", Billing.UNKNOWN),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Step) else None,
)
def test_a_fault_is_a_failure(provider: Simulator, step: Step, code: str, billing: Billing) -> None:
    provider.script(only(step))

    (answer,) = answers_of(root(provider), PRESET, a_request(), timeout_s=1.0)

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == (code, billing)
    assert provider.counts().total == 1


def test_limits_are_told_in_anthropics_headers(provider: Simulator) -> None:
    """Of requests, input and output tokens; and a refusal says when to come again."""
    provider.limit(ProviderLimits(requests=1, input_tokens=100, output_tokens=500))

    fits, waits = answers_of(root(provider), PRESET, a_request(), a_request())

    assert isinstance(fits, ProviderReply)
    assert {(limit.measure, limit.amount, limit.remaining) for limit in fits.limits} == {
        (Measure.REQUESTS, 1, 0),
        (Measure.INPUT_TOKENS, 100, 98),
        (Measure.OUTPUT_TOKENS, 500, 450),
    }
    assert isinstance(waits, Failure)
    assert waits.code == "rate_limited"
    assert waits.provider_code == "rate_limit_error"
    assert 55 < (waits.retry_after_s or 0) <= 61
    assert provider.limit_counts().refused == 1


def test_a_limit_without_retry_after_has_a_time_of_reset(provider: Simulator) -> None:
    """It is read against the response's own date."""
    provider.limit(ProviderLimits(requests=1, sends_retry_after=False))

    _, waits = answers_of(root(provider), PRESET, a_request(), a_request())

    assert isinstance(waits, Failure)
    assert 55 < (waits.retry_after_s or 0) <= 62


def test_the_journal_knows_the_attempts(provider: Simulator) -> None:
    answers_of(root(provider), PRESET, a_request(), a_request())

    assert provider.counts().attempt_ids == 2
    assert [record.model for record in provider.requests().records] == ["m", "m"]
