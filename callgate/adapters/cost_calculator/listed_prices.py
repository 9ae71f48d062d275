"""
The prices of the package genai-prices, offline.

Only its data is used, because its `calc_price` gives answers where it should refuse: an unknown service tier costs the
standard price, a provider may match by part of its name, a missing price is 0. Here providers must match exactly, and
the tier and the prices must be listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import genai_prices
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider, TieredPrices

from callgate.adapters.cost_calculator.steps import WRITE_1H_FACTOR, highest_step, or_default
from callgate.domain.errors import UnpricedModel
from callgate.domain.model_prices import PriceStep, Rates
from callgate.domain.requests import ServiceTier

_LIST = f"genai-prices {genai_prices.__version__}"
_REQUESTS_PER_PRICE = 1_000


_BOUNDED_OUTPUTS = frozenset({"output_mtok", "output_reasoning_mtok", "output_audio_mtok"})
"""Kinds of output that are ordinary tokens or come only on request. Others (images, citations) have no bound."""
_SEARCH_MODELS = re.compile(r"-search-|deep-research")
"""Models that search on their own. They bill every search, and a request cannot limit the number."""
_LISTED_TOO_LOW = {
    "openrouter": (
        re.compile(""),
        "OpenRouter bills what the host that it chooses charges, and the list has the price of one host",
    ),
    "x-ai": (
        re.compile(r"grok-4-|grok-4$"),
        "above 128,000 tokens it costs more than the list says",
    ),
}
"""
Models whose bill can be above their listed price, by provider. They need rows of the catalogue.

Source: openrouter.ai/docs/guides/routing/provider-selection ("load balance requests across providers");
openrouter.ai/x-ai/grok-4 ("pricing increases once the total tokens in a given request is greater than 128k"); both
read 2026-11-29.
"""


def listed_steps(
    listed_as: str, model: str, tier: ServiceTier, at: datetime, write_factor: Decimal
) -> tuple[PriceStep, ...]:
    """The price steps of one model in genai-prices. Its own lookup caches are avoided because they have no bound."""
    providers = get_snapshot().providers
    provider = next((p for p in providers if p.id == listed_as), None)
    if provider is None:
        raise UnpricedModel(f"{_LIST} has no provider {listed_as!r} (see pricing_provider)")
    info = provider.find_model(model, all_providers=providers)
    if info is None:
        raise UnpricedModel(f"{_LIST} has no such model of {listed_as!r}")
    if _SEARCH_MODELS.search(model):
        raise UnpricedModel("it searches on its own, and the number of searches has no bound")
    too_low, why = _LISTED_TOO_LOW.get(listed_as, (None, ""))
    if too_low and too_low.match(model):
        raise UnpricedModel(why)
    prices = _listed_prices(provider, info, tier, at)
    source = f"{_LIST} {listed_as}/{info.id}"
    if tier is not ServiceTier.DEFAULT:
        source += f" {tier}"
    tiered = [price for price in prices.values() if isinstance(price, TieredPrices)]
    starts = sorted({-1} | {step.start for price in tiered for step in price.tiers})
    steps = tuple(_listed_step(prices, start, source, write_factor) for start in starts)
    if tier is ServiceTier.DEFAULT:
        return steps
    # A tier may list no price for long inputs although they cost more in the default tier. Then the dearer one counts.
    default = listed_steps(listed_as, model, ServiceTier.DEFAULT, at, write_factor)
    longer = (step for step in default if step.above_input_tokens > starts[-1])
    return steps + tuple(
        highest_step([steps[-1], step], step.above_input_tokens) for step in longer
    )


def _listed_prices(
    provider: Provider, info: ModelInfo, tier: ServiceTier, at: datetime
) -> dict[str, Decimal | TieredPrices]:
    """The prices of one tier by genai-prices' keys. UnpricedModel if they do not cover everything a call can cost."""
    context = {"service_tier": tier.value}
    if tier is not ServiceTier.DEFAULT and not (
        any(info is own for own in provider.models) and _has_variant(info, context, at)
    ):
        raise UnpricedModel(f"{_LIST} lists no price for its service tier '{tier}'")
    prices = {k: v for k, v in vars(info.get_prices(at, context)).items() if v is not None}
    if "input_mtok" not in prices or "output_mtok" not in prices:
        raise UnpricedModel(f"{_LIST} lists no price for both its input and its output tokens")
    unbounded = {key for key in prices if key.startswith("output_")} - _BOUNDED_OUTPUTS
    if unbounded:
        raise UnpricedModel(f"it has output without a bound: {', '.join(sorted(unbounded))}")
    return prices


def _has_variant(info: ModelInfo, context: dict[str, str], at: datetime) -> bool:
    """True if input and output prices are listed for exactly this context."""
    return any(
        variant.when == context
        and (variant.constraint is None or variant.constraint.active(at))
        and {"input_mtok", "output_mtok"} <= vars(variant.prices).keys()
        for variant in info.price_variants or ()
    )


def _listed_step(
    prices: Mapping[str, Decimal | TieredPrices], start: int, source: str, write_factor: Decimal
) -> PriceStep:
    """The rates of a model for inputs above `start` tokens; genai-prices lists some of them in steps."""

    def rate(key: str) -> Decimal | None:
        """The price of this key for an input above `start` tokens."""
        price = prices.get(key)
        if not isinstance(price, TieredPrices):
            return price
        reached = [step.price for step in price.tiers if step.start <= start]
        return reached[-1] if reached else price.base

    input_rate, output_rate = rate("input_mtok"), rate("output_mtok")
    assert input_rate is not None
    assert output_rate is not None
    rates = Rates(
        input=input_rate,
        cached_input=or_default(rate("cache_read_mtok"), input_rate),
        cache_write=or_default(rate("cache_write_mtok"), input_rate * write_factor),
        cache_write_1h=or_default(rate("cache_write_1h_mtok"), input_rate * WRITE_1H_FACTOR),
        output=output_rate,
        reasoning=or_default(rate("output_reasoning_mtok"), output_rate),
        request_usd=or_default(rate("requests_kcount"), Decimal(0)) / _REQUESTS_PER_PRICE,
        source=source,
    )
    return PriceStep(start, rates, rates.label)
