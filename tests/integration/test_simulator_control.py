"""The rules of the simulator, its control requests and its records."""

from __future__ import annotations

import asyncio

import openai
import pytest
from pydantic import ValidationError

from devkit.simulator.simulator import (
    ATTEMPT_HEADER,
    Simulator,
    Step,
)
from tests.support.simulator_client import Ask, only


def test_rules_are_chosen_by_model_and_text(provider: Simulator, ask: Ask) -> None:
    """Conditions are compared with what the client sent."""
    provider.script(
        [
            {"match": {"model": "m", "text": "hello"}, "reply": [{"text": "both"}]},
            {"match": {"model": "other"}, "reply": [{"text": "model"}]},
        ]
    )

    assert ask().choices[0].message.content == "both"
    assert ask(model="other").choices[0].message.content == "model"


def test_the_catalogue_and_unknown_paths_answer_like_openai(provider: Simulator) -> None:
    """A client may list models. An unknown path is a 404 in the format of OpenAI."""

    async def look() -> list[str]:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client:
            models = await client.models.list()
            with pytest.raises(openai.NotFoundError, match="Invalid URL"):
                await client.files.list()
            return [model.id for model in models.data]

    assert asyncio.run(look()) == ["simulator"]
    assert provider.counts().total == 0


def test_a_malformed_script_leaves_the_old_one_in_force(provider: Simulator, ask: Ask) -> None:
    """A script is accepted as a whole or not at all."""
    provider.script(only(Step(text="old")))

    with pytest.raises(ValidationError):
        provider.script([{"reply": [{"text": "new"}]}, {"reply": []}])

    assert ask().choices[0].message.content == "old"


def test_a_reset_forgets_requests_and_rules(provider: Simulator, ask: Ask) -> None:
    """One simulator serves many tests, and each finds it as after a start."""
    provider.script(only(Step(text="scripted")))
    ask()

    provider.reset()

    assert provider.requests().records == ()
    assert provider.counts().total == 0
    assert ask().choices[0].message.content == "ok"


def test_records_keep_the_order_of_arrival(provider: Simulator, ask: Ask) -> None:
    """Every record names its attempt and model."""
    for number in range(3):
        ask(model=f"m{number}", extra_headers={ATTEMPT_HEADER: f"attempt-{number}"})

    records = provider.requests().records

    assert [(record.attempt_id, record.model) for record in records] == [
        ("attempt-0", "m0"),
        ("attempt-1", "m1"),
        ("attempt-2", "m2"),
    ]
    assert provider.counts().attempt_ids == 3
