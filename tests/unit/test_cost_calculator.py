"""Money: a hold is never below the cost, a cost is what the price list says, and no price is never a price of 0."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from genai_prices.types import (
    ClauseEquals,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    TimeOfDateConstraint,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from callgate.adapters.cost_calculator import PRICE_CHANGE_SLACK, CostCalculator
from callgate.domain.budgets import cost_nano_usd
from callgate.domain.catalogue import Catalogue, PriceEntry, ProviderEntry
from callgate.domain.errors import UnpricedModel
from callgate.domain.requests import LLMRequest, ServiceTier, Usage

NOW = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
PROVIDERS = (
    "openai", "anthropic", "azure", "deepseek", "google", "groq", "mistral", "openrouter", "perplexity", "x-ai",
)  # fmt: skip
CATALOGUE = Catalogue(
    providers={name: ProviderEntry(sends_service_tier=True) for name in PROVIDERS}
)
COSTS = CostCalculator(CATALOGUE)


def a_request(**fields: Any) -> LLMRequest:
    """A request for at most 300 tokens from gpt-4o-mini."""
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "extraction",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "hello"}],
            "max_output_tokens": 300,
            **fields,
        }
    )


def a_row(**fields: Any) -> PriceEntry:
    """A negotiated price of gpt-4o-mini: 1 and 2 USD per million."""
    return PriceEntry(
        **{
            "provider": "openai",
            "model": "gpt-4o-mini",
            "input_usd_per_million": Decimal(1),
            "output_usd_per_million": Decimal(2),
            "source": "agreement",
            "as_of": date(2026, 11, 1),
            **fields,
        }
    )


def with_row(**fields: Any) -> CostCalculator:
    """A calculator whose catalogue has that row."""
    providers = {"openai": ProviderEntry(sends_service_tier=True), "local": ProviderEntry()}
    return CostCalculator(Catalogue(providers=providers, prices=(a_row(**fields),)))


@cache
def priced_models() -> list[tuple[str, str, ServiceTier]]:
    """Every provider, model and tier of the list that callgate has a price for today."""
    found = []
    for provider in (p for p in get_snapshot().providers if p.id in PROVIDERS):
        for model, tier in ((m.id, tier) for m in provider.models for tier in ServiceTier):
            try:
                a_request(provider=provider.id, model=model)
                COSTS.cost(provider.id, model, Usage(), tier, NOW)
            except (ValidationError, UnpricedModel):
                continue
            found.append((provider.id, model, tier))
    return found


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


PRICED = st.deferred(lambda: st.sampled_from(priced_models()))
PRICED_IN_PRIORITY = st.deferred(
    lambda: st.sampled_from([p for p in priced_models() if p[2] is ServiceTier.PRIORITY])
)
TOKENS = st.one_of(st.integers(0, 3_000), st.integers(199_990, 272_010), st.integers(0, 1_000_000))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Any usage whose buckets add up."""
    inputs, outputs = draw(TOKENS), draw(st.integers(0, 20_000))
    cached = draw(st.integers(0, inputs))
    return Usage(
        input_tokens=inputs,
        cached_input_tokens=cached,
        cache_write_tokens=draw(st.integers(0, inputs - cached)),
        output_tokens=outputs,
        reasoning_tokens=draw(st.integers(0, outputs)),
    )


def extremes(inputs: int, outputs: int) -> list[Usage]:
    """The corners of what a call may use: everything plain, cached, written to the cache, reasoned."""
    return [
        Usage(input_tokens=inputs, output_tokens=outputs, **buckets)
        for reasoning in ({}, {"reasoning_tokens": outputs})
        for buckets in (
            reasoning,
            {**reasoning, "cached_input_tokens": inputs},
            {**reasoning, "cache_write_tokens": inputs},
        )
    ]


def test_enough_models_are_priced_for_these_tests_to_mean_anything() -> None:
    """The list has hundreds of chat models, OpenAI's in three tiers."""
    openai = [tier for provider, _, tier in priced_models() if provider == "openai"]

    assert len(priced_models()) > 500
    assert min(openai.count(tier) for tier in ServiceTier) > 10


def test_the_worst_case_covers_every_corner_of_every_priced_model() -> None:
    """Every model, every tier, at both sides of the long-context steps: the hold covers the cost."""
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
def test_the_worst_case_covers_any_usage_within_the_bounds(
    priced: tuple[str, str, ServiceTier], usage: Usage, slack: int, n: int
) -> None:
    """Whatever the split into cached, written and reasoned tokens."""
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
    """Off-peak prices end, announced increases begin: the hold is at the dearest price within an hour."""
    provider, model = priced
    at = datetime(2026, 8, 1, tzinfo=UTC) + timedelta(minutes=minute)
    usage = Usage(input_tokens=10_000, output_tokens=300)
    hold = COSTS.worst_case(a_request(provider=provider, model=model), 10_000, at)

    cost = COSTS.cost(provider, model, usage, ServiceTier.DEFAULT, at + timedelta(minutes=later))

    assert cost.nano_usd <= hold.nano_usd


def test_a_priority_call_is_held_at_the_default_price_if_that_is_dearer(
    cheap_priority: CostCalculator,
) -> None:
    """No listed model is so today; the bound does not rely on it."""
    request = a_request(model="odd", service_tier=ServiceTier.PRIORITY)

    hold = cheap_priority.worst_case(request, 1_000, NOW)

    assert hold.nano_usd == 10_000_000 + 300 * 10_000


@settings(max_examples=100, deadline=None)
@given(PRICED_IN_PRIORITY, usages())
def test_a_priority_call_that_is_served_as_default_is_covered(
    priced: tuple[str, str, ServiceTier], usage: Usage
) -> None:
    """OpenAI bills what it served, not what was asked for."""
    provider, model, tier = priced
    request = a_request(
        provider=provider, model=model, service_tier=tier, max_output_tokens=usage.output_tokens + 1
    )

    hold = COSTS.worst_case(request, usage.input_tokens, NOW)

    assert COSTS.cost(provider, model, usage, ServiceTier.DEFAULT, NOW).nano_usd <= hold.nano_usd


@settings(max_examples=500, deadline=None)
@given(PRICED, usages())
def test_the_cost_is_what_the_price_list_calculates(
    priced: tuple[str, str, ServiceTier], usage: Usage
) -> None:
    """callgate's own arithmetic and genai-prices' agree to the nano-USD."""
    provider, model, tier = priced
    listed = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_input_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
            output_reasoning_tokens=usage.reasoning_tokens,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=NOW,
        price_context={"service_tier": tier.value},
    )
    assume(listed.provider.id == provider)

    cost = COSTS.cost(provider, model, usage, tier, NOW)

    assert cost.nano_usd == cost_nano_usd(listed.total_price)


def test_cached_input_costs_its_own_price_and_the_row_says_which() -> None:
    """800 plain at 0.15, 200 cached at 0.075, 50 written at 0.6 USD per million: 165 micro-USD."""
    usage = Usage(input_tokens=1_000, cached_input_tokens=200, output_tokens=50)

    cost = COSTS.cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)

    version = genai_prices.__version__
    assert cost.nano_usd == 165_000
    assert (
        cost.price_source
        == f"genai-prices {version} openai/gpt-4o-mini in=0.15 out=0.6 cached=0.075 USD/M"
    )


def test_the_worst_case_is_the_bound_at_the_dearest_input_and_all_answers() -> None:
    """1,000 x 0.15 + 3 x 300 x 0.6 USD per million."""
    priced = COSTS.worst_case(a_request(n=3), 1_000, NOW)

    assert priced.nano_usd == 690_000
    assert priced.price_source.endswith("openai/gpt-4o-mini at most in=0.15 out=0.6 USD/M")


def test_one_token_over_the_step_reprices_the_whole_request() -> None:
    """gpt-5.5 doubles its input price above 272,000 tokens, for every token."""

    def cost(tokens: int) -> int:
        usage = Usage(input_tokens=tokens)
        return COSTS.cost("openai", "gpt-5.5", usage, ServiceTier.DEFAULT, NOW).nano_usd

    assert cost(272_000) == 272_000 * 5_000
    assert cost(272_001) == 272_001 * 10_000


def test_a_price_is_the_one_of_its_day() -> None:
    """o3 became cheaper on 2025-06-10 (UTC)."""
    usage = Usage(input_tokens=1_000_000)
    midnight = datetime(2025, 6, 10, tzinfo=UTC)

    before = COSTS.cost("openai", "o3", usage, ServiceTier.DEFAULT, midnight - timedelta(seconds=1))
    after = COSTS.cost("openai", "o3", usage, ServiceTier.DEFAULT, midnight)

    assert before.nano_usd == 10_000_000_000
    assert after.nano_usd == 2_000_000_000


def test_listed_prices_change_at_whole_minutes_only() -> None:
    """Resolved prices are kept for a minute, and sampled an hour apart for a hold."""
    for model in (model for provider in get_snapshot().providers for model in provider.models):
        prices = model.prices if isinstance(model.prices, list) else []
        constraints = [price.constraint for price in prices]
        constraints += [variant.constraint for variant in model.price_variants or ()]
        for constraint in constraints:
            assert isinstance(constraint, StartDateConstraint | TimeOfDateConstraint | None)
            if isinstance(constraint, TimeOfDateConstraint):
                start, end = constraint.start_time, constraint.end_time
                assert (start.second, end.second) == (0, 0)
                lasts_s = (end.hour - start.hour) * 3600 + (end.minute - start.minute) * 60
                assert lasts_s % 86_400 >= PRICE_CHANGE_SLACK.total_seconds()


@pytest.mark.parametrize(
    ("provider", "model", "says"),
    [
        ("openai", "gpt-17", "no price for openai/gpt-17"),
        ("nowhere", "gpt-4o", "no provider 'nowhere'"),
        ("my-openai", "gpt-4o", "no provider 'my-openai'"),
        ("openai", "text-embedding-3-small", "both its input and its output"),
        ("openai", "omni-moderation-latest", "both its input and its output"),
        ("openai", "gpt-4o-search-preview", "searches on its own"),
        ("openai", "o3-deep-research", "searches on its own"),
        ("google", "gemini-3-pro-image-preview", "output_image_mtok"),
        ("openrouter", "google/gemma-3-12b-it:free", "both its input and its output"),
    ],
)
def test_what_has_no_sure_price_is_refused(provider: str, model: str, says: str) -> None:
    """A guess, a near match or a silent 0 would make the hold no bound."""
    with pytest.raises(UnpricedModel, match=says) as raised:
        COSTS.worst_case(a_request(provider=provider, model=model), 1_000, NOW)

    assert f"{provider}/{model}" in str(raised.value)


@pytest.mark.parametrize("tier", [ServiceTier.FLEX, ServiceTier.PRIORITY])
@pytest.mark.parametrize("model", ["gpt-4", "o1-pro"])
def test_a_tier_without_a_listed_price_is_refused(model: str, tier: ServiceTier) -> None:
    """genai-prices alone would price it as standard."""
    with pytest.raises(UnpricedModel, match=f"service tier '{tier}'"):
        COSTS.cost("openai", model, Usage(input_tokens=1), tier, NOW)


def test_a_tier_that_the_provider_is_not_told_is_refused() -> None:
    """The tier that is priced must be the tier that is asked for."""
    costs = CostCalculator(Catalogue(providers={"openai": ProviderEntry()}))

    with pytest.raises(UnpricedModel, match="sends_service_tier"):
        costs.worst_case(a_request(model="gpt-5", service_tier=ServiceTier.FLEX), 1_000, NOW)


def test_another_name_for_a_provider_has_its_prices() -> None:
    """`pricing_provider` is the provider's id in the price list."""
    entry = ProviderEntry(pricing_provider="openai")
    costs = CostCalculator(Catalogue(providers={"openai-eu": entry}))

    aliased = costs.worst_case(a_request(provider="openai-eu"), 1_000, NOW)

    assert aliased == COSTS.worst_case(a_request(), 1_000, NOW)


def test_a_catalogue_row_wins_over_the_list() -> None:
    """Negotiated prices, with their source on every row they price."""
    usage = Usage(input_tokens=100, cached_input_tokens=40, output_tokens=10)

    cost = with_row().cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)

    assert cost.nano_usd == 120_000
    assert cost.price_source == "overlay 2026-11-01: agreement in=1 out=2 USD/M"


def test_a_catalogue_row_prices_each_kind_of_token_and_the_request() -> None:
    """Cached, written, reasoned: each at its own rate, and the worst case at the dearest."""
    costs = with_row(
        cached_input_usd_per_million=Decimal("0.5"),
        cache_write_usd_per_million=Decimal("1.25"),
        reasoning_usd_per_million=Decimal(3),
        request_usd=Decimal("0.01"),
    )
    usage = Usage(
        input_tokens=100,
        cached_input_tokens=40,
        cache_write_tokens=20,
        output_tokens=10,
        reasoning_tokens=4,
    )

    cost = costs.cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)
    hold = costs.worst_case(a_request(max_output_tokens=10), 100, NOW)

    assert cost.nano_usd == 40_000 + 20_000 + 25_000 + 12_000 + 12_000 + 10_000_000
    assert hold.nano_usd == 125_000 + 30_000 + 10_000_000
    assert hold.price_source.endswith("at most in=1.25 out=3 USD/M + 0.01 USD/request")


def test_cached_input_may_be_the_dearest() -> None:
    """Some rows are odd, and the hold must cover them too."""
    costs = with_row(cached_input_usd_per_million=Decimal(5))

    assert costs.worst_case(a_request(max_output_tokens=1), 100, NOW).nano_usd == 502_000


def test_a_catalogue_row_is_for_the_default_tier() -> None:
    """A negotiated price says nothing about flex or priority, and the list's price is not the negotiated one."""
    with pytest.raises(UnpricedModel, match="default service tier"):
        with_row().worst_case(a_request(service_tier=ServiceTier.PRIORITY), 100, NOW)


def test_what_is_listed_as_free_costs_nothing() -> None:
    """A local model with a row of 0 is free; one without a row is unpriced."""
    costs = with_row(
        provider="local", model="gemma", input_usd_per_million=0, output_usd_per_million=0
    )

    assert costs.worst_case(a_request(provider="local", model="gemma"), 1_000, NOW).nano_usd == 0
    with pytest.raises(UnpricedModel):
        costs.worst_case(a_request(provider="local", model="llama"), 1_000, NOW)


@pytest.mark.parametrize(("tokens", "hold", "cost"), [(1, 1, 0), (2, 1, 1), (3, 2, 2), (5, 3, 2)])
def test_holds_round_up_and_costs_round_half_even(tokens: int, hold: int, cost: int) -> None:
    """At half a nano-USD per token."""
    costs = with_row(input_usd_per_million=Decimal("0.0005"), output_usd_per_million=Decimal(0))
    usage = Usage(input_tokens=tokens)

    held = costs.worst_case(a_request(), tokens, NOW)
    posted = costs.cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)

    assert (held.nano_usd, posted.nano_usd) == (hold, cost)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=10, cached_input_tokens=11),
        Usage(input_tokens=10, cached_input_tokens=6, cache_write_tokens=5),
        Usage(output_tokens=10, reasoning_tokens=11),
    ],
)
def test_a_usage_that_contradicts_itself_has_no_cost(usage: Usage) -> None:
    """Nobody knows what it costs, so the caller posts the whole hold."""
    with pytest.raises(ValueError, match="contradictory usage"):
        COSTS.cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)
