"""What presets change of requests and replies, over real sockets: paths, keys, tiers, statuses, reasoning."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from callgate.adapters.catalogue_file import known_presets
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest, Message
from tests.support.provider_worlds import (
    KEY,
    Exchange,
    Received,
    SocketServer,
    adapter_for,
    chat,
    sends_json,
)

ATTEMPT = UUID("01890000-0000-7000-8000-000000000002")
PRESETS = known_presets()["openai"]


pytestmark = pytest.mark.usefixtures("no_proxies")


def ask(
    preset: str, exchange: Exchange, *, key: str | None = KEY, **fields: Any
) -> tuple[ProviderReply | Failure, Received, str]:
    """One request to a server that is told apart only by its preset."""
    request = LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "x",
            "provider": "openai",
            "model": "my deployment/1".replace(" ", "-"),
            "messages": (Message(role="user", content="ping"),),
            "max_output_tokens": 50,
            **fields,
        }
    )

    async def asked() -> tuple[ProviderReply | Failure, Received, str]:
        lines = {k: v for k, v in PRESETS.below(preset).items() if k != "base_url"}
        async with (
            SocketServer(exchange) as server,
            adapter_for(server.base_url, key=key, **lines) as adapter,
        ):
            answer = await adapter.complete(request, attempt_id=ATTEMPT, timeout_s=10)
            return answer, server.received[0], server.base_url

    return asyncio.run(asked())


@pytest.mark.parametrize("preset", PRESETS.names)
def test_every_preset_gets_an_answer(preset: str) -> None:
    """With the output bound in its own field, and nothing that it does not know."""
    answer, received, _ = ask(preset, sends_json(chat()))

    assert isinstance(answer, ProviderReply)
    assert answer.texts == ("pong",)
    field = PRESETS.below(preset)["output_bound_field"]
    assert received.fields[field] == 50
    assert {"max_tokens", "max_completion_tokens"} & received.fields.keys() == {field}
    assert not set(PRESETS.below(preset)["cannot"]) & received.fields.keys()


def test_azure_has_the_deployment_in_the_path_and_the_key_in_a_header_of_its_own() -> None:
    answer, received, _ = ask("azure", sends_json(chat()))

    assert isinstance(answer, ProviderReply)
    path = "/v1/deployments/my-deployment%2F1/chat/completions?api-version=2024-10-21"
    assert received.head == f"POST {path} HTTP/1.1"
    assert received.headers["api-key"] == KEY
    assert "authorization" not in received.headers


def test_the_undated_api_of_azure_has_the_deployment_in_the_body() -> None:
    _, received, _ = ask("azure_v1", sends_json(chat()))

    assert received.head == "POST /v1/chat/completions HTTP/1.1"
    assert received.headers["api-key"] == KEY
    assert received.fields["model"] == "my-deployment/1"


def test_without_a_key_no_header_has_one() -> None:
    _, received, _ = ask("ollama", sends_json(chat()), key=None)

    assert not {"api-key", "authorization"} & received.headers.keys()


def test_groq_names_the_tiers_in_its_own_words() -> None:
    answer, received, _ = ask("groq", sends_json(chat(service_tier="on_demand")))

    assert received.fields["service_tier"] == "on_demand"
    assert isinstance(answer, ProviderReply)
    assert answer.service_tier == "default"


def test_a_status_may_have_a_bill_of_its_own() -> None:
    """Groq's 498: no capacity. Nothing says that it is free, so the hold stays."""
    answer, _, _ = ask("groq", sends_json({"error": {"code": "capacity_exceeded"}}, status=498))

    assert isinstance(answer, Failure)
    assert (answer.code, answer.retryable, answer.billing) == (
        "server_error",
        True,
        Billing.UNKNOWN,
    )


@pytest.mark.parametrize("status", [500, 502, 503, 529])
@pytest.mark.parametrize("preset", PRESETS.names)
def test_only_an_own_machine_fails_for_free(preset: str, status: int) -> None:
    answer, _, _ = ask(preset, sends_json({"error": {"message": "no"}}, status=status))

    assert isinstance(answer, Failure)
    own = preset in ("llama_cpp", "vllm", "ollama")
    assert answer.billing is (Billing.UNBILLED if own else Billing.UNKNOWN)


def test_deepseeks_reasoning_goes_back_with_the_next_turn() -> None:
    thought = chat()
    thought["choices"][0]["message"]["reasoning_content"] = "hm"
    first, _, _ = ask("deepseek", sends_json(thought))
    assert isinstance(first, ProviderReply)
    turn = Message(role="assistant", content="pong", reasoning=first.reasoning)

    _, received, _ = ask(
        "deepseek",
        sends_json(chat()),
        messages=(Message(role="user", content="ping"), turn, Message(role="user", content="more")),
    )

    assert received.fields["messages"][1]["reasoning_content"] == "hm"
