"""The local model implements the parts of the OpenAI protocol that callgate uses."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError
from openai.types.chat import ChatCompletion

from callgate.adapters.providers.openai.chat_request import request_json
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.requests import LLMRequest
from devkit.local_model import CONTEXT_TOKENS, LocalModel
from devkit.servers.embedded import FolderInUse

DOCUMENT = (
    "INVOICE 4711. Acme Ltd, Bristol. Two gear motors at 312.00 EUR each. Total due: 624.00 EUR."
)

INVOICE = {
    "type": "object",
    "properties": {
        "number": {"type": "string", "maxLength": 20},
        "currency": {"enum": ["EUR", "USD"]},
        "total": {"type": "number"},
    },
    "required": ["number", "currency", "total"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the model file is assembled once."""
    return tmp_path_factory.mktemp("a model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[LocalModel]:
    """One running model with two slots."""
    with LocalModel(folder, slots=2) as model:
        yield model


def test_a_reply_follows_the_schema(model: LocalModel) -> None:
    """The reply follows `response_format: json_schema`, and `usage` is present."""
    [reply] = ask(model, [f"Extract as JSON.\n{DOCUMENT}"], response_format=schema(), max_tokens=80)

    invoice = json.loads(text(reply))
    assert invoice.keys() == {"number", "currency", "total"}
    assert invoice["currency"] in {"EUR", "USD"}
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert 0 < reply.usage.completion_tokens < 80
    assert reply.usage.prompt_tokens > len(DOCUMENT.split())


def test_a_reply_is_never_longer_than_asked_for(model: LocalModel) -> None:
    """A hold relies on `max_tokens`: the reply is cut there, with the finish reason `length`."""
    [reply] = ask(model, ["Count from one to one hundred in words."], max_tokens=5)

    assert reply.usage is not None
    assert reply.usage.completion_tokens == 5
    assert reply.choices[0].finish_reason == "length"


def test_several_calls_share_one_client(model: LocalModel) -> None:
    """With more calls than slots, calls wait; none is refused."""
    replies = ask(model, [f"Say {word}." for word in ("one", "two", "three", "four")], max_tokens=4)

    assert len({reply.id for reply in replies}) == 4


def test_a_prompt_beyond_the_context_is_refused(model: LocalModel) -> None:
    """The prompt is refused with status 400 and not shortened silently."""
    with pytest.raises(BadRequestError, match="exceeds the available context size"):
        ask(model, ["word " * CONTEXT_TOKENS], max_tokens=5)


def test_a_killed_model_comes_back_at_the_same_url(model: LocalModel) -> None:
    """It can be killed and restarted like the servers, at the same URL."""
    model.server.kill()
    model.server.start()

    [reply] = ask(model, ["Say hello."], max_tokens=3)
    assert reply.model == model.model


def test_a_model_folder_in_use_is_refused(model: LocalModel, folder: Path) -> None:
    """A second process would kill the first one as a process without an owner."""
    with pytest.raises(FolderInUse), LocalModel(folder):
        pass

    assert model.server.is_alive()


TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the rate of the euro?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "call_1", "name": "rate", "arguments": '{"currency": "EUR", "days": [1, 2]}'}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"rate": 1.17}'},
    {"role": "user", "content": "And of the pound?"},
]


@pytest.mark.parametrize("turns", [TURNS[:1], TURNS])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_schema": INVOICE},
        {"tools": [{"name": "rate", "description": "The rate.\n\ufdfa", "parameters": INVOICE}]},
        {"tools": [{"name": f"rate_{n}", "parameters": INVOICE} for n in range(8)]},
    ],
)
def test_the_bound_is_above_what_the_server_counts(
    model: LocalModel, turns: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    """Its chat template writes tools and tool calls in a way that callgate does not know."""
    request = LLMRequest(
        org_id="acme",
        call_type="t",
        provider="local",
        model=model.model,
        messages=turns,
        max_output_tokens=1,
        **fields,
    )
    entry = ProviderEntry(output_bound_field="max_tokens")
    reply = httpx2.post(
        f"{model.base_url}/chat/completions", content=request_json(request, entry), timeout=60
    )
    counted = reply.json()["usage"]["prompt_tokens"]

    bound = TokenEstimator(Catalogue(providers={"local": entry})).input_bound(request)

    assert 0 < counted <= bound.tokens
    assert bound.method == "utf8-bytes"


def ask(model: LocalModel, prompts: list[str], **options: Any) -> list[ChatCompletion]:
    """Send all prompts at once through one client."""

    async def gather() -> list[ChatCompletion]:
        async with AsyncOpenAI(
            base_url=model.base_url, api_key="any", max_retries=0, timeout=60
        ) as client:
            return await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model=model.model,
                        messages=[{"role": "user", "content": prompt}],
                        temperature=0,
                        **options,
                    )
                    for prompt in prompts
                )
            )

    return asyncio.run(gather())


def schema() -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "invoice", "schema": INVOICE, "strict": True},
    }


def text(reply: ChatCompletion) -> str:
    return reply.choices[0].message.content or ""
