"""A hold is never below the cost, for any model, tier, usage and time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import DataSnapshot, set_custom_snapshot
from genai_prices.types import (
    ClauseEquals,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from callgate.adapters.cost_calculator import CostCalculator
from callgate.domain.requests import ServiceTier, Usage
from tests.support.priced_models import (
    CATALOGUE,
    COSTS,
    NOW,
    PRICED,
    a_request,
    priced_models,
    usages,
    with_row,
    with_rows,
)


@pytest.fixture
def cheap_priority() -> Iterator[CostCalculator]:
    """A calculator over a price list with one model, whose priority tier is cheaper than its default."""
    ten, one = Decimal(10), Decimal(1)
    model = ModelInfo(
        id="odd",
        match=ClauseEquals("odd"),
        prices=ModelPrice(input_mtok=ten, output_mtok=ten),
        price_variants=[
            PriceVariant({"service_tier": "priority"}, ModelPrice(input_mtok=one, output_mtok=one))
        ],
    )
    provider = Provider(id="openai", name="OpenAI", api_pattern="x", models=[model])
    set_custom_snapshot(DataSnapshot(providers=[provider], from_auto_update=False))
    yield CostCalculator(CATALOGUE)
    set_custom_snapshot(None)


PRICED_IN_PRIORITY = st.deferred(
    lambda: st.sampled_from([p for p in priced_models() if p[2] is ServiceTier.PRIORITY])
)


def extremes(inputs: int, outputs: int) -> list[Usage]:
    """The extreme usages of a call: all tokens plain, cached, written to the cache, or reasoning."""
    return [
        Usage(input_tokens=inputs, output_tokens=outputs, **buckets)
        for reasoning in ({}, {"reasoning_tokens": outputs})
        for buckets in (
            reasoning,
            {**reasoning, "cached_input_tokens": inputs},
            {**reasoning, "cache_write_tokens": inputs},
        )
    ]


def test_hundreds_of_models_are_priced() -> None:
    """Otherwise the tests below would prove nothing."""
    openai = [tier for provider, _, tier in priced_models() if provider == "openai"]

    assert len(priced_models()) > 300
    assert min(openai.count(tier) for tier in ServiceTier) > 10


def test_the_hold_covers_extreme_usages_of_every_model() -> None:
    """Every model and tier, on both sides of the long-context steps."""
    for provider, model, tier in priced_models():
        for bound in (1, 1_000, 200_000, 272_000, 272_001, 900_000):
            request = a_request(provider=provider, model=model, service_tier=tier, n=2)
            hold = COSTS.worst_case(request, bound, NOW).nano_usd
            for inputs in (bound, min(bound, 200_001), 1):
                for usage in extremes(inputs, 600):
                    cost = COSTS.cost(provider, model, usage, tier, NOW).nano_usd
                    assert cost <= hold, (provider, model, tier, bound, usage)


@settings(max_examples=500, deadline=None)
@given(PRICED, usages(), st.integers(0, 50_000), st.integers(1, 16))
def test_the_hold_covers_any_usage_within_the_bounds(
    priced: tuple[str, str, ServiceTier], usage: Usage, slack: int, n: int
) -> None:
    provider, model, tier = priced
    output_tokens = max(1, -(-usage.output_tokens // n))
    request = a_request(
        provider=provider, model=model, service_tier=tier, n=n, max_output_tokens=output_tokens
    )

    hold = COSTS.worst_case(request, usage.input_tokens + slack, NOW)

    assert COSTS.cost(provider, model, usage, tier, NOW).nano_usd <= hold.nano_usd


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [
            ("deepseek", "deepseek-v4-flash"),
            ("deepseek", "deepseek-chat"),
            ("google", "gemini-4-argon"),
            ("mistral", "mistral-large-4"),
            ("openai", "gpt-5.6-sol"),
        ]
    ),
    st.integers(0, 183 * 24 * 60),
    st.integers(-60, 60),
)
def test_a_price_that_changes_during_a_call_cannot_exceed_its_hold(
    priced: tuple[str, str], minute: int, later: int
) -> None:
    """Off-peak prices end and increases begin: the hold uses the highest price within an hour."""
    provider, model = priced
    at = datetime(2026, 8, 1, tzinfo=UTC) + timedelta(minutes=minute)
    usage = Usage(input_tokens=10_000, output_tokens=300)
    hold = COSTS.worst_case(a_request(provider=provider, model=model), 10_000, at)

    cost = COSTS.cost(provider, model, usage, ServiceTier.DEFAULT, at + timedelta(minutes=later))

    assert cost.nano_usd <= hold.nano_usd


def test_a_priority_hold_uses_the_default_price_if_it_is_higher(
    cheap_priority: CostCalculator,
) -> None:
    """No listed model is like this today."""
    request = a_request(model="odd", service_tier=ServiceTier.PRIORITY)

    hold = cheap_priority.worst_case(request, 1_000, NOW)

    assert hold.nano_usd == 10_000_000 + 300 * 10_000


@settings(max_examples=100, deadline=None)
@given(PRICED_IN_PRIORITY, usages())
def test_a_priority_hold_covers_default_service(
    priced: tuple[str, str, ServiceTier], usage: Usage
) -> None:
    """OpenAI bills the tier that it served."""
    provider, model, tier = priced
    request = a_request(
        provider=provider, model=model, service_tier=tier, max_output_tokens=usage.output_tokens + 1
    )

    hold = COSTS.worst_case(request, usage.input_tokens, NOW)

    assert COSTS.cost(provider, model, usage, ServiceTier.DEFAULT, NOW).nano_usd <= hold.nano_usd


@settings(max_examples=200, deadline=None)
@given(usages(), st.sampled_from(ServiceTier), st.booleans())
def test_the_hold_covers_rows_with_tiers_and_steps(
    usage: Usage, tier: ServiceTier, is_served_as_default: bool
) -> None:
    """Each kind of token may be the dearest one, in any step; priority may be served as default."""
    costs = with_rows(
        {"cache_write_usd_per_million": Decimal(9)},
        {"above_input_tokens": 1_000, "reasoning_usd_per_million": Decimal(40)},
        {"above_input_tokens": 200_000, "request_usd": Decimal("0.5")},
        {"service_tier": "flex"},
        {"service_tier": "flex", "above_input_tokens": 2_000, "output_usd_per_million": 50},
        {"service_tier": "priority", "cached_input_usd_per_million": Decimal(20)},
    )
    request = a_request(service_tier=tier, max_output_tokens=usage.output_tokens + 1)
    served = ServiceTier.DEFAULT if is_served_as_default and tier is ServiceTier.PRIORITY else tier

    hold = costs.worst_case(request, usage.input_tokens, NOW)

    assert costs.cost("openai", "gpt-4o-mini", usage, served, NOW).nano_usd <= hold.nano_usd


def test_the_hold_is_the_bound_at_the_highest_rates_for_all_answers() -> None:
    """1,000 x 0.15 + 3 x 300 x 0.6 USD per million."""
    priced = COSTS.worst_case(a_request(n=3), 1_000, NOW)

    assert priced.nano_usd == 690_000
    assert priced.price_source.endswith("openai/gpt-4o-mini at most in=0.15 out=0.6 USD/M")


def test_the_cached_rate_may_be_the_highest() -> None:
    costs = with_row(cached_input_usd_per_million=Decimal(5))

    assert costs.worst_case(a_request(max_output_tokens=1), 100, NOW).nano_usd == 502_000
