"""The simulator's Responses, as OpenAI's own client and callgate's adapter receive them."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from pydantic import BaseModel

from callgate.domain.limits import Measure
from callgate.domain.messages import Message
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Usage
from callgate.services.review import flaw_of
from devkit.simulator.simulator import (
    Kind,
    ProviderLimits,
    ReportedUsage,
    Rule,
    Simulator,
    Step,
)
from tests.support.simulator_client import ANSWER_TIMEOUT_S, a_request, answers_of, only

ENTRY: dict[str, Any] = {"protocol": "openai_responses", "sends_service_tier": True}
OPENAI: dict[str, Any] = {"model": "m", "input": "hello", "store": False}


class Invoice(BaseModel):
    number: str
    total: int


def create(provider: Simulator, **fields: Any) -> Any:
    """The response that OpenAI's client reads."""
    with openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0) as client:
        return client.responses.create(**{**OPENAI, **fields})


def test_the_default_answer_is_a_complete_response(provider: Simulator) -> None:
    response = create(provider)

    assert response.output_text == "ok"
    assert (response.status, response.service_tier) == ("completed", "default")
    assert response._request_id.startswith("req_")
    assert response.usage.total_tokens == 3
    assert provider.counts().by_fault == {"ok": 1}


def test_a_requested_schema_is_satisfied(provider: Simulator) -> None:
    (answer,) = answers_of(provider.base_url, ENTRY, a_request(response_schema=Invoice))

    assert isinstance(answer, ProviderReply)
    assert Invoice.model_validate_json(answer.texts[0]) == Invoice(number="ok", total=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"stream": True},
        {"tools": [{"type": "web_search"}]},
        {"max_output_tokens": 15},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
        {"extra_body": {"seed": 1}},
    ],
    ids=str,
)
def test_state_and_unknown_parameters_are_refused(
    provider: Simulator, fields: dict[str, Any]
) -> None:
    """As OpenAI refuses what it cannot do."""
    with pytest.raises(openai.BadRequestError):
        create(provider, **fields)

    assert provider.counts().by_fault == {"bad_request": 1}


def test_the_adapter_is_answered(provider: Simulator) -> None:
    usage = ReportedUsage(cached_tokens=2, reasoning_tokens=5)
    provider.script(only(Step(text="pong \u4e2d", usage=usage)))

    (answer,) = answers_of(provider.base_url, ENTRY, a_request(service_tier="flex"))

    assert isinstance(answer, ProviderReply)
    assert answer.texts == ("pong \u4e2d",)
    assert (answer.finish_reason, answer.service_tier, answer.model) == ("stop", "flex", "m")
    assert answer.usage == Usage(
        input_tokens=2, cached_input_tokens=2, output_tokens=7, reasoning_tokens=5
    )
    assert flaw_of(answer, ()) is None


def test_reasoning_is_sent_on(provider: Simulator) -> None:
    """The simulator refuses a reference to what it has not stored."""
    provider.script(only(Step(usage=ReportedUsage(reasoning_tokens=5))))
    (first,) = answers_of(provider.base_url, ENTRY, a_request())
    assert isinstance(first, ProviderReply)
    assert first.reasoning
    turn = Message(role="assistant", content=first.texts[0], reasoning=first.reasoning)

    (second,) = answers_of(
        provider.base_url, ENTRY, a_request(turn, Message(role="user", content="and?"))
    )

    assert isinstance(second, ProviderReply)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Step(text="x" * 1_000), None),
        (
            Step(text="", finish_reason="length", usage=ReportedUsage(reasoning_tokens=50)),
            "output_truncated",
        ),
        (Step(finish_reason="content_filter"), "content_filtered"),
        (Step(refusal="no"), "refused_by_model"),
        (Step(kind=Kind.EMPTY_CHOICES), "empty_reply"),
        (Step(kind=Kind.NO_USAGE), None),
    ],
    ids=["cut", "cut to nothing", "filtered", "refused", "empty", "no usage"],
)
def test_what_an_answer_is(provider: Simulator, step: Step, code: str | None) -> None:
    provider.script(only(step))

    (answer,) = answers_of(provider.base_url, ENTRY, a_request())

    assert isinstance(answer, ProviderReply)
    flaw = flaw_of(answer, ())
    assert (flaw and flaw.code) == code
    assert (answer.usage is None) is (step.kind is Kind.NO_USAGE)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Step(kind=Kind.STATUS, status=429), ("rate_limited", Billing.UNBILLED)),
        (Step(kind=Kind.STATUS, status=503), ("server_error", Billing.UNKNOWN)),
        (Step(kind=Kind.HANG), ("timeout", Billing.UNKNOWN)),
        (Step(kind=Kind.SLOW_DRIP, drip_s=30), ("timeout", Billing.UNKNOWN)),
        (Step(kind=Kind.RESET_BEFORE_HEADERS), ("connection_lost", Billing.UNKNOWN)),
        (Step(kind=Kind.RESET_AFTER_HEADERS), ("invalid_response", Billing.UNKNOWN)),
        (Step(kind=Kind.TRUNCATED_BODY), ("invalid_response", Billing.UNKNOWN)),
        (Step(kind=Kind.NOT_JSON), ("invalid_response", Billing.UNKNOWN)),
        (Step(kind=Kind.WRONG_SCHEMA), ("invalid_response", Billing.UNKNOWN)),
        (Step(kind=Kind.REDIRECT), ("redirected", Billing.UNBILLED)),
        (Step(kind=Kind.HUGE_BODY, huge_bytes=10**7), ("reply_too_large", Billing.UNKNOWN)),
    ],
    ids=lambda value: value.kind if isinstance(value, Step) else "",
)
def test_each_fault_is_a_failure(
    provider: Simulator, step: Step, expected: tuple[str, Billing]
) -> None:
    """One request was made, whatever happened to it."""
    provider.script(only(step))

    (answer,) = answers_of(
        provider.base_url,
        ENTRY,
        a_request(),
        timeout_s=1.0 if expected[0] == "timeout" else ANSWER_TIMEOUT_S,
    )

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == expected
    assert provider.counts().total == 1


def test_limits_are_shared_with_chat_completions_and_named(provider: Simulator) -> None:
    """One account, whatever the protocol."""
    provider.limit(ProviderLimits(requests=1))
    with openai.OpenAI(
        base_url=provider.base_url, api_key="sk-test-0123456789abcdefghij"
    ) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])

    (answer,) = answers_of(provider.base_url, ENTRY, a_request())

    assert isinstance(answer, Failure)
    assert (answer.code, answer.billing) == ("rate_limited", Billing.UNBILLED)
    assert answer.retry_after_s is not None
    assert [(limit.measure, limit.amount) for limit in answer.limits] == [(Measure.REQUESTS, 1)]
    assert provider.counts().by_fault == {"ok": 1, "rate_limited": 1}


def test_rules_match_by_the_last_user_message(provider: Simulator) -> None:
    provider.script([Rule(match={"text": "please"}, reply=[Step(text="polite")])])  # type: ignore[arg-type]

    polite, plain = answers_of(
        provider.base_url, ENTRY, a_request(Message(role="user", content="yes please")), a_request()
    )

    assert isinstance(polite, ProviderReply)
    assert isinstance(plain, ProviderReply)
    assert (polite.texts, plain.texts) == (("polite",), ("ok",))
