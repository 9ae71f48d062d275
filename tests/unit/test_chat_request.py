"""The JSON that is sent to OpenAI's chat completions."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from callgate.adapters.providers.openai.chat_request import request_json
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.requests import LLMRequest, Message, ServiceTier


class Line(BaseModel):
    """A part of `Invoice`."""

    model_config = ConfigDict(extra="forbid")

    text: str
    amount: float | None


class Invoice(BaseModel):
    """A model whose schema satisfies strict mode as Pydantic writes it."""

    model_config = ConfigDict(extra="forbid")

    number: str
    currency: Literal["EUR", "USD"]
    lines: list[Line]


def a_request(**fields: Any) -> LLMRequest:
    """A request with everything that must be set."""
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "extraction",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "messages": (Message(role="user", content="ping"),),
            "max_output_tokens": 50,
            **fields,
        }
    )


def body_of(request: LLMRequest, **entry: Any) -> dict[str, Any]:
    """The request body, read back."""
    body: dict[str, Any] = json.loads(request_json(request, ProviderEntry(**entry)))
    return body


def test_unset_fields_are_not_sent() -> None:
    """Small servers refuse unknown parameters."""
    assert body_of(a_request()) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "ping"}],
        "max_completion_tokens": 50,
    }


def test_set_fields_are_sent() -> None:
    """Zero is a value too."""
    request = a_request(
        n=2, temperature=0, top_p=0.5, seed=0, stop=("END",), service_tier=ServiceTier.PRIORITY
    )

    assert body_of(request, sends_service_tier=True) == {
        **body_of(a_request()),
        "n": 2,
        "temperature": 0,
        "top_p": 0.5,
        "seed": 0,
        "stop": ["END"],
        "service_tier": "priority",
    }


def test_the_output_bound_is_sent_in_the_declared_field() -> None:
    """An endpoint that ignores the bound could bill more than the hold."""
    body = body_of(a_request(), output_bound_field="max_tokens")

    assert body["max_tokens"] == 50
    assert "max_completion_tokens" not in body


def test_the_schema_is_sent_unchanged() -> None:
    schema = '{"type":"object","z":1e2,"a":{"\u00fc":1.0,"b":2}}'

    body = request_json(a_request(response_schema=schema), ProviderEntry())

    assert body.endswith(
        '"response_format":{"type":"json_schema","json_schema":'
        '{"name":"response","strict":false,"schema":'
        '{"type":"object","z":100.0,"a":{"\u00fc":1.0,"b":2}}}}}'.encode()
    )
    assert json.loads(body)["model"] == "gpt-4o-mini"


def test_a_suitable_schema_is_sent_as_strict() -> None:
    body = body_of(a_request(response_schema=Invoice))

    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == Invoice.model_json_schema()


def test_a_fine_tuned_model_has_its_own_strict_rules() -> None:
    class Code(BaseModel):
        model_config = ConfigDict(extra="forbid")
        code: str = Field(pattern="^[A-Z]+$")

    asked = [
        body_of(a_request(model=model, response_schema=Code))
        for model in ("gpt-4o-mini", "ft:gpt-4o-mini-2024-07-18:acme::7")
    ]

    strict = [body["response_format"]["json_schema"]["strict"] for body in asked]
    assert strict == [True, False]
