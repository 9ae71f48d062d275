"""The simulator's rate limits over HTTP, as a real AsyncOpenAI client meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from pydantic import ValidationError

from devkit.simulator.simulator import ProviderLimits, Rule, Simulator, SimulatorFailed, Step
from tests.support.simulator_client import Ask


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """A simulator that has a limit from its start."""
    with Simulator(ProviderLimits(requests=2)) as running:
        yield running


async def ask_together(provider: Simulator, count: int) -> list[object]:
    """Send requests at the same time; return answers and errors."""
    async with openai.AsyncOpenAI(
        base_url=provider.base_url, api_key="any", max_retries=0
    ) as client:
        requests = [
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hello"}]
            )
            for _ in range(count)
        ]
        return list(await asyncio.gather(*requests, return_exceptions=True))


def test_a_request_beyond_the_limit_is_refused(provider: Simulator, ask: Ask) -> None:
    """The error is that of a rate limit, and tells when to try again."""
    ask()
    ask()

    with pytest.raises(openai.RateLimitError) as refused:
        ask()

    assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
    headers = refused.value.response.headers
    assert 50 <= int(headers["Retry-After"]) <= 60
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert provider.counts().by_fault == {"ok": 2, "rate_limited": 1}
    counts = provider.limit_counts()
    assert (counts.accepted, counts.refused, counts.in_flight) == (2, 1, 0)
    assert [arrival.is_accepted for arrival in provider.arrivals()] == [True, True, False]


def test_an_accepted_request_names_what_is_left(provider: Simulator) -> None:
    raw = asyncio.run(headers_of_one(provider))

    assert raw["x-ratelimit-limit-requests"] == "2"
    assert raw["x-ratelimit-remaining-requests"] == "1"


async def headers_of_one(provider: Simulator) -> dict[str, str]:
    """Return the headers of one answer."""
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "hello"}]
        )
        return dict(raw.headers)


def test_a_refused_request_takes_no_step_of_the_script(provider: Simulator, ask: Ask) -> None:
    provider.limit(ProviderLimits(requests=1))
    provider.script([Rule(reply=[Step(text="first"), Step(text="second")])])
    assert ask().choices[0].message.content == "first"
    with pytest.raises(openai.RateLimitError):
        ask()

    provider.limit(None)

    assert ask().choices[0].message.content == "second"


def test_too_many_at_the_same_time_are_refused(provider: Simulator) -> None:
    """A complete answer makes room again."""
    provider.limit(ProviderLimits(concurrency=3))
    provider.script([Rule(reply=[Step(latency_s=0.5)])])
    for _ in range(2):
        answers = asyncio.run(ask_together(provider, 5))
        assert sum(isinstance(answer, openai.RateLimitError) for answer in answers) == 2


def test_the_output_bound_of_a_request_counts(provider: Simulator, ask: Ask) -> None:
    """Not the one token that the answer has."""
    provider.limit(ProviderLimits(output_tokens=100))
    ask(max_completion_tokens=50)

    with pytest.raises(openai.RateLimitError) as refused:
        ask(max_completion_tokens=51)

    assert refused.value.type == "tokens"
    ask(max_completion_tokens=50)


def test_a_reset_restores_the_first_limits_and_forgets_arrivals(
    provider: Simulator, ask: Ask
) -> None:
    provider.limit(ProviderLimits(requests=1))
    ask()

    provider.reset()

    assert provider.arrivals() == ()
    ask()
    ask()
    with pytest.raises(openai.RateLimitError):
        ask()


def test_malformed_limits_change_nothing(provider: Simulator) -> None:
    with pytest.raises(ValidationError):
        ProviderLimits(requests=0)
    with pytest.raises(SimulatorFailed, match="400"):
        provider._ask("POST", "/__control/limits", b'{"requests": 0}')
