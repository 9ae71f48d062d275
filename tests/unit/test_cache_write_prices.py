"""What a cache costs where the provider has marks: 1.25 times the input for five minutes, twice for an hour."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callgate.adapters.cost_calculator import CostCalculator
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.requests import LLMRequest, Message, ServiceTier, Tool, Usage
from tests.support.priced_models import NOW, a_request, a_row, priced_models, usages

DEFAULT = ServiceTier.DEFAULT
ANTHROPIC = ProviderEntry(protocol="anthropic", sends_service_tier=True, cache_marks_max=4)
COSTS = CostCalculator(Catalogue(providers={"anthropic": ANTHROPIC}))
MODELS = sorted(model for provider, model, _ in priced_models() if provider == "anthropic")
MARKS: tuple[Literal["5m", "1h"], ...] = ("5m", "1h")


def cost(model: str, **tokens: int) -> int:
    """The cost of a usage in nano-USD."""
    return COSTS.cost("anthropic", model, Usage(**tokens), DEFAULT, NOW).nano_usd


def marked(model: str, mark: Literal["5m", "1h"] | None, **fields: Any) -> LLMRequest:
    """A request with a mark at its message."""
    message = Message(role="user", content="hello", cache=mark)
    return a_request(provider="anthropic", model=model, messages=(message,), **fields)


@st.composite
def long_writes(draw: st.DrawFn) -> Usage:
    """Any consistent usage with a part of the cache written for an hour."""
    usage = draw(usages())
    part = draw(st.integers(0, usage.cache_write_tokens))
    return usage.model_copy(update={"cache_write_1h_tokens": part})


def test_an_hour_costs_twice_the_input() -> None:
    """
    Claude Opus 4.5: 5 USD per million of input, 6.25 for five minutes, 10 for an hour, 0.50 read, 25 output.

    Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching, "Pricing" (2026-11-29).
    100 x 5 + 200 x 0.5 + 300 x 6.25 + 400 x 10 + 50 x 25 = 7,725 micro-USD.
    """
    assert (
        cost(
            "claude-opus-4-5",
            input_tokens=1_000,
            cached_input_tokens=200,
            cache_write_tokens=700,
            cache_write_1h_tokens=400,
            output_tokens=50,
        )
        == 7_725_000
    )


def test_each_listed_model_has_the_published_factors() -> None:
    """Claude 3 Haiku's price for five minutes is rounded: 0.30 instead of 0.3125."""
    written = 1_000_000
    for model in MODELS:
        plain = cost(model, input_tokens=written)
        short = cost(model, input_tokens=written, cache_write_tokens=written)
        long = cost(
            model, input_tokens=written, cache_write_tokens=written, cache_write_1h_tokens=written
        )
        assert long == 2 * plain, model
        assert short == plain * Decimal("1.25") or model == "claude-3-haiku", model


def test_a_row_without_prices_of_the_cache_has_the_factors() -> None:
    """2 USD of input: 2.5 for five minutes, 4 for an hour."""
    row = a_row(provider="anthropic", model="negotiated", input_usd_per_million=Decimal(2))
    costs = CostCalculator(Catalogue(providers={"anthropic": ANTHROPIC}, prices=(row,)))
    usage = Usage(input_tokens=30, cache_write_tokens=30, cache_write_1h_tokens=10)

    priced = costs.cost("anthropic", "negotiated", usage, DEFAULT, NOW)

    assert priced.nano_usd == 20 * 2_500 + 10 * 4_000
    assert "write=2.5 write-1h=4" in priced.price_source


def test_a_row_can_name_the_price_of_an_hour() -> None:
    row = a_row(cache_write_1h_usd_per_million=Decimal(3))
    costs = CostCalculator(Catalogue(prices=(row,)))
    usage = Usage(input_tokens=10, cache_write_tokens=10, cache_write_1h_tokens=10)

    assert costs.cost("openai", "gpt-4o-mini", usage, DEFAULT, NOW).nano_usd == 30_000


def test_more_for_an_hour_than_at_all_is_contradictory() -> None:
    with pytest.raises(ValueError, match="contradictory"):
        cost("claude-opus-4-5", input_tokens=9, cache_write_tokens=1, cache_write_1h_tokens=2)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), st.sampled_from(MARKS), long_writes(), st.integers(0, 5_000))
def test_a_hold_with_marks_covers_any_write(
    model: str, mark: Literal["5m", "1h"], usage: Usage, slack: int
) -> None:
    request = marked(model, mark, max_output_tokens=max(1, usage.output_tokens))

    hold = COSTS.worst_case(request, usage.input_tokens + slack, NOW)

    assert COSTS.cost("anthropic", model, usage, DEFAULT, NOW).nano_usd <= hold.nano_usd


def test_only_marks_make_a_hold_larger() -> None:
    """A mark of a tool does too. A provider without marks ignores them, so nothing more is held."""
    at = datetime(2026, 11, 29, tzinfo=UTC)
    model = "claude-opus-4-5"
    tool = Tool(name="look_up", cache="5m")
    hold = COSTS.worst_case(marked(model, None), 1_000, at).nano_usd
    long = COSTS.worst_case(marked(model, "1h"), 1_000, at)
    other = CostCalculator(Catalogue(providers={"anthropic": ProviderEntry()}))

    assert hold == 1_000 * 6_250 + 300 * 25_000
    assert long.nano_usd == 1_000 * 10_000 + 300 * 25_000
    assert "in=10 " in long.price_source
    assert COSTS.worst_case(marked(model, None, tools=(tool,)), 1_000, at) == long
    assert other.worst_case(marked(model, "1h"), 1_000, at).nano_usd == hold
