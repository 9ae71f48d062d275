"""A cost is what the price list or the catalogue's row says. A model without a sure price is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    StartDateConstraint,
    TimeOfDateConstraint,
)
from hypothesis import assume, given, settings

from callgate.adapters.cost_calculator import PRICE_CHANGE_SLACK, CostCalculator
from callgate.domain.budgets import cost_nano_usd
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.errors import UnpricedModel
from callgate.domain.price_entry import PriceEntry
from callgate.domain.requests import ServiceTier, Usage
from tests.support.priced_models import (
    COSTS,
    NOW,
    PRICED,
    a_request,
    usages,
    with_row,
    with_rows,
)


@settings(max_examples=500, deadline=None)
@given(PRICED, usages())
def test_costs_equal_those_of_genai_prices(
    priced: tuple[str, str, ServiceTier], usage: Usage
) -> None:
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

    # Long inputs in a tier without a price for them; see test_worked_prices.
    assume("at most" not in cost.price_source)
    assert cost.nano_usd == cost_nano_usd(listed.total_price)


def test_cached_input_has_its_own_price() -> None:
    """800 plain at 0.15, 200 cached at 0.075, 50 output at 0.6 USD per million: 165 micro-USD."""
    usage = Usage(input_tokens=1_000, cached_input_tokens=200, output_tokens=50)

    cost = COSTS.cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)

    version = genai_prices.__version__
    assert cost.nano_usd == 165_000
    assert (
        cost.price_source
        == f"genai-prices {version} openai/gpt-4o-mini in=0.15 out=0.6 cached=0.075 USD/M"
    )


def test_one_token_over_the_step_reprices_the_whole_request() -> None:
    """gpt-5.5 doubles its input price above 272,000 tokens, for every token."""

    def cost(tokens: int) -> int:
        usage = Usage(input_tokens=tokens)
        return COSTS.cost("openai", "gpt-5.5", usage, ServiceTier.DEFAULT, NOW).nano_usd

    assert cost(272_000) == 272_000 * 5_000
    assert cost(272_001) == 272_001 * 10_000


def test_a_price_is_that_of_its_day() -> None:
    """o3 became cheaper on 2025-06-10 (UTC)."""
    usage = Usage(input_tokens=1_000_000)
    midnight = datetime(2025, 6, 10, tzinfo=UTC)

    before = COSTS.cost("openai", "o3", usage, ServiceTier.DEFAULT, midnight - timedelta(seconds=1))
    after = COSTS.cost("openai", "o3", usage, ServiceTier.DEFAULT, midnight)

    assert before.nano_usd == 10_000_000_000
    assert after.nano_usd == 2_000_000_000


def test_listed_prices_change_at_whole_minutes_only() -> None:
    """Resolved prices are cached for a minute, and a hold looks one hour ahead and back."""
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
        ("azure", "phi-4-reasoning:free", "both its input and its output"),
    ],
)
def test_a_model_without_a_sure_price_is_refused(provider: str, model: str, says: str) -> None:
    """With a guess, a near match or a silent 0 the hold would not be a bound."""
    with pytest.raises(UnpricedModel, match=says) as raised:
        COSTS.worst_case(a_request(provider=provider, model=model), 1_000, NOW)

    assert f"{provider}/{model}" in str(raised.value)


@pytest.mark.parametrize("tier", [ServiceTier.FLEX, ServiceTier.PRIORITY])
@pytest.mark.parametrize("model", ["gpt-4", "o1-pro"])
def test_a_tier_without_a_listed_price_is_refused(model: str, tier: ServiceTier) -> None:
    """genai-prices alone would use the standard price."""
    with pytest.raises(UnpricedModel, match=f"service tier '{tier}'"):
        COSTS.cost("openai", model, Usage(input_tokens=1), tier, NOW)


def test_a_tier_that_is_not_sent_is_refused() -> None:
    """The priced tier must be the requested one."""
    costs = CostCalculator(Catalogue(providers={"openai": ProviderEntry()}))

    with pytest.raises(UnpricedModel, match="sends_service_tier"):
        costs.worst_case(a_request(model="gpt-5", service_tier=ServiceTier.FLEX), 1_000, NOW)


def test_pricing_provider_names_the_price_list() -> None:
    entry = ProviderEntry(pricing_provider="openai")
    costs = CostCalculator(Catalogue(providers={"openai-eu": entry}))

    aliased = costs.worst_case(a_request(provider="openai-eu"), 1_000, NOW)

    assert aliased == COSTS.worst_case(a_request(), 1_000, NOW)


def test_a_catalogue_row_takes_precedence() -> None:
    """The source of the row is stored with every cost."""
    usage = Usage(input_tokens=100, cached_input_tokens=40, output_tokens=10)

    cost = with_row().cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)

    assert cost.nano_usd == 120_000
    assert cost.price_source == "overlay 2026-11-01: agreement in=1 out=2 USD/M"


def test_a_catalogue_row_prices_each_kind_of_token_and_the_request() -> None:
    """The hold is at the highest of the rates."""
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


def test_a_catalogue_row_is_for_its_tier_only() -> None:
    """The list's price of another tier is not the negotiated one."""
    with pytest.raises(UnpricedModel, match="service tier default, not for 'priority'"):
        with_row().worst_case(a_request(service_tier=ServiceTier.PRIORITY), 100, NOW)


def test_each_tier_can_have_a_row() -> None:
    costs = with_rows({}, {"service_tier": "flex", "input_usd_per_million": Decimal("0.5")})
    usage = Usage(input_tokens=100, output_tokens=10)

    default = costs.cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)
    flex = costs.cost("openai", "gpt-4o-mini", usage, ServiceTier.FLEX, NOW)

    assert (default.nano_usd, flex.nano_usd) == (120_000, 70_000)
    assert flex.price_source == "overlay 2026-11-01: agreement flex in=0.5 out=2 USD/M"


def test_rows_can_be_steps() -> None:
    """One token above the step, the whole request has its price. A hold knows which steps its bound reaches."""
    costs = with_rows({"above_input_tokens": 99, "input_usd_per_million": Decimal(3)}, {})

    def cost(tokens: int) -> int:
        usage = Usage(input_tokens=tokens)
        return costs.cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW).nano_usd

    assert (cost(0), cost(99), cost(100)) == (0, 99_000, 300_000)
    request = a_request(max_output_tokens=1)
    assert costs.worst_case(request, 99, NOW).nano_usd == 99_000 + 2_000
    assert costs.worst_case(request, 100, NOW).nano_usd == 300_000 + 2_000


@pytest.mark.parametrize("tier", ServiceTier)
def test_a_free_model_is_free_in_all_tiers(tier: ServiceTier) -> None:
    """It is declared. A model of the same server that is not declared has no price."""
    row = PriceEntry(
        provider="openai",
        model="gemma",
        free=True,
        source="own machine",
        as_of=date(2026, 11, 1),
    )
    providers = {"openai": ProviderEntry(sends_service_tier=True, pricing_provider="nobody")}
    costs = CostCalculator(Catalogue(providers=providers, prices=(row,)))
    usage = Usage(input_tokens=10**6, cache_write_tokens=9, output_tokens=10**6)

    assert costs.worst_case(a_request(model="gemma", service_tier=tier), 10**6, NOW).nano_usd == 0
    assert costs.cost("openai", "gemma", usage, tier, NOW).nano_usd == 0
    with pytest.raises(UnpricedModel):
        costs.worst_case(a_request(model="llama", service_tier=tier), 10**6, NOW)


def test_a_row_of_zero_is_free_too() -> None:
    """Catalogues of 0.1.0 have such rows. A local model without a row is refused."""
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
def test_a_contradictory_usage_has_no_cost(usage: Usage) -> None:
    """The caller posts the whole hold."""
    with pytest.raises(ValueError, match="contradictory usage"):
        COSTS.cost("openai", "gpt-4o-mini", usage, ServiceTier.DEFAULT, NOW)
