"""
Computes holds and costs with prices from the catalogue's own rows or from the genai-prices package (offline).

A catalogue row takes precedence. Only the data of genai-prices is used, because its `calc_price` gives answers where it
should refuse: an unknown service tier costs the standard price, a provider may match by part of its name, a missing
price is 0. Here providers must match exactly, and the tier and the prices must be listed. A resolved price is cached
for a minute, because prices may change at any minute (off-peak prices, announced increases).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import product

import genai_prices
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider, TieredPrices

from callgate.domain.budgets import cost_nano_usd, hold_nano_usd
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import UnpricedModel
from callgate.domain.price_entry import PriceEntry
from callgate.domain.provider import Priced
from callgate.domain.rates import PriceStep, Rates
from callgate.domain.requests import LLMRequest, ServiceTier, Usage

PRICE_CHANGE_SLACK = timedelta(hours=1)
"""
How far the provider's time of pricing may be from the time of the hold: the longest deadline of a call type.

A hold uses the highest price within this time, so a price that rises during a call cannot exceed the hold.
"""
RESOLVED_MAX = 1_024
"""Cached prices per calculator, one per provider, model, tier and minute: about 1 kB each."""

WRITE_FACTOR = Decimal("1.25")
WRITE_1H_FACTOR = Decimal(2)
"""
How many times the price of input Anthropic charges for what is written to its cache, for five minutes and for an hour.

They apply where a price list does not say: the first to providers with cache marks, the second to all.
Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching, "Pricing" (2026-11-29).
"""

_LIST = f"genai-prices {genai_prices.__version__}"
_TOKENS_PER_PRICE = 1_000_000
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


class CostCalculator:
    """
    Computes holds at the highest rates that could apply, and costs at the rates that did apply. Thread-safe.

    Prices of audio, images and search tools are ignored: callgate never requests these. See docs/prices.md.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._overlay: dict[tuple[str, str], list[PriceEntry]] = {}
        for row in sorted(catalogue.prices, key=lambda row: row.above_input_tokens):
            self._overlay.setdefault((row.provider, row.model), []).append(row)
        self._steps_at = lru_cache(maxsize=RESOLVED_MAX)(self._resolve)
        self._highest_steps_at = lru_cache(maxsize=RESOLVED_MAX)(self._resolve_highest)

    def worst_case(self, request: LLMRequest, input_token_bound: int, at: datetime) -> Priced:
        """
        The hold of a request in nano-USD, rounded up: an upper bound of its cost.

        It is `input_token_bound` x the highest input rate (plain, cached, cache write, every long-context step that the
        bound reaches) + `n` x `max_output_tokens` x the highest output rate (reasoning included) + the fee per request.
        What is written to a cache for an hour counts only if the request has cache marks and the provider knows them.

        Args:
            at: The time of the hold, with a time zone.

        Raises:
            UnpricedModel: No price is known, or the provider's entry does not send the requested service tier.
        """
        assert request.max_output_tokens is not None, "gates.with_output_bound comes first"
        provider, model, tier = request.provider, request.model, request.service_tier
        self._check_tier_is_sent(provider, tier)
        step = _step_for(
            self._highest_steps_at(provider, model, tier, _minute(at)), input_token_bound
        )
        output_tokens = request.n * request.max_output_tokens
        entry = self._catalogue.providers.get(provider)
        is_marked = bool(entry and entry.cache_marks_max and request.cache_marks())
        rates = _all_at(step.rates, step.rates.cache_write_1h) if is_marked else step.rates
        amount = input_token_bound * rates.input + output_tokens * rates.output
        amount_usd = amount / _TOKENS_PER_PRICE + rates.request_usd
        return Priced(hold_nano_usd(amount_usd), rates.label if is_marked else step.label)

    def cost(
        self, provider: str, model: str, usage: Usage, tier: ServiceTier, at: datetime
    ) -> Priced:
        """
        The cost of one attempt in nano-USD, rounded half to even.

        Args:
            at: When the attempt started, with a time zone.

        Raises:
            UnpricedModel: No price is known for the provider and model, or for the tier.
            ValueError: The usage is contradictory, so its cost is unknown.
        """
        plain_input = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        plain_output = usage.output_tokens - usage.reasoning_tokens
        write_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
        if plain_input < 0 or plain_output < 0 or write_5m < 0:
            raise ValueError(f"{provider}/{model}: contradictory usage: {usage!r}")
        step = _step_for(self._steps_at(provider, model, tier, _minute(at)), usage.input_tokens)
        rates = step.rates
        amount = (
            plain_input * rates.input
            + usage.cached_input_tokens * rates.cached_input
            + write_5m * rates.cache_write
            + usage.cache_write_1h_tokens * rates.cache_write_1h
            + plain_output * rates.output
            + usage.reasoning_tokens * rates.reasoning
        )
        amount_usd = amount / _TOKENS_PER_PRICE + rates.request_usd
        return Priced(cost_nano_usd(amount_usd), step.label)

    def _check_tier_is_sent(self, provider: str, tier: ServiceTier) -> None:
        """UnpricedModel for a non-default tier that the provider's requests do not name."""
        entry = self._catalogue.providers.get(provider)
        if tier is not ServiceTier.DEFAULT and not (entry and entry.sends_service_tier):
            raise UnpricedModel(
                f"requests to provider {provider!r} do not send the service tier '{tier}': use the default "
                "tier, or set sends_service_tier in the catalogue if the endpoint knows tiers"
            )

    def _resolve_highest(
        self, provider: str, model: str, tier: ServiceTier, minute: int
    ) -> tuple[PriceStep, ...]:
        """The highest rates within `PRICE_CHANGE_SLACK` of a minute. Priority may also be served as default."""
        steps = list(self._steps_at(provider, model, tier, minute))
        slack = int(PRICE_CHANGE_SLACK.total_seconds() // 60)
        tiers = (tier, ServiceTier.DEFAULT) if tier is ServiceTier.PRIORITY else (tier,)
        for other, moment in product(tiers, (minute - slack, minute, minute + slack)):
            with suppress(UnpricedModel):
                steps += self._steps_at(provider, model, other, moment)
        starts = sorted({step.above_input_tokens for step in steps})
        return tuple(_highest_step(steps, start) for start in starts)

    def _resolve(
        self, provider: str, model: str, tier: ServiceTier, minute: int
    ) -> tuple[PriceStep, ...]:
        """The price steps of a model at a minute since 1970, in ascending order of input tokens."""
        entry = self._catalogue.providers.get(provider)
        name, model = model, entry.priced_model(model) if entry else model
        write_factor = WRITE_FACTOR if entry and entry.cache_marks_max else Decimal(1)
        # A row of the name that requests use comes before one of its model.
        rows = self._overlay.get((provider, name)) or self._overlay.get((provider, model))
        if rows is not None:
            return _overlay_steps(rows, tier, write_factor)
        listed_as = (entry.pricing_provider if entry else None) or provider
        at = datetime.fromtimestamp(minute * 60, UTC)
        try:
            return _listed_steps(listed_as, model, tier, at, write_factor)
        except UnpricedModel as exc:
            raise UnpricedModel(
                f"no price for {provider}/{model}: {exc}; check the name, or add a [[prices]] row "
                "to the catalogue"
            ) from None


def _minute(at: datetime) -> int:
    """Minutes since 1970."""
    assert at.tzinfo is not None, "the time needs a time zone"
    return int(at.timestamp() // 60)


def _step_for(steps: Sequence[PriceStep], input_tokens: int) -> PriceStep:
    """The price step of a request with so many input tokens. The first step applies to any length."""
    return next(step for step in reversed(steps) if input_tokens > step.above_input_tokens)


def _highest_step(steps: Sequence[PriceStep], start: int) -> PriceStep:
    """The highest rates of all steps up to `start`, as the step at `start`."""
    rates_up_to = [step.rates for step in steps if step.above_input_tokens <= start]
    input_rate = max(max(r.input, r.cached_input, r.cache_write) for r in rates_up_to)
    write_1h_rate = max(r.cache_write_1h for r in rates_up_to)
    output_rate = max(max(r.output, r.reasoning) for r in rates_up_to)
    fee_usd = max(r.request_usd for r in rates_up_to)
    rates = Rates(
        input=input_rate,
        cached_input=input_rate,
        cache_write=input_rate,
        cache_write_1h=max(input_rate, write_1h_rate),
        output=output_rate,
        reasoning=output_rate,
        request_usd=fee_usd,
        source=f"{rates_up_to[0].source} at most",
    )
    return PriceStep(start, rates, rates.label)


def _all_at(rates: Rates, input_rate: Decimal) -> Rates:
    """The rates with one price for all input."""
    return replace(rates, input=input_rate, cached_input=input_rate, cache_write=input_rate)


def _overlay_steps(
    rows: Sequence[PriceEntry], tier: ServiceTier, write_factor: Decimal
) -> tuple[PriceStep, ...]:
    """The price steps of a catalogue's rows of one model; UnpricedModel for a tier without a row, unless it is free."""
    fitting = [row for row in rows if row.free or row.service_tier is tier]
    if not fitting:
        tiers = ", ".join(sorted({row.service_tier for row in rows}))
        raise UnpricedModel(
            f"the catalogue's own price of {rows[0].provider}/{rows[0].model} is for the service tier {tiers}, not "
            f"for '{tier}': add a [[prices]] row with service_tier = \"{tier}\""
        )
    return tuple(_overlay_step(row, write_factor) for row in fitting)


def _overlay_step(row: PriceEntry, write_factor: Decimal) -> PriceStep:
    """One row as a step. The first one applies to any length, also to an input of 0 tokens."""
    source = f"overlay {row.as_of}: {row.source}"
    if row.service_tier is not ServiceTier.DEFAULT:
        source += f" {row.service_tier}"
    rates = Rates(
        input=row.input_usd_per_million,
        cached_input=_or_default(row.cached_input_usd_per_million, row.input_usd_per_million),
        cache_write=_or_default(
            row.cache_write_usd_per_million, row.input_usd_per_million * write_factor
        ),
        cache_write_1h=_or_default(
            row.cache_write_1h_usd_per_million, row.input_usd_per_million * WRITE_1H_FACTOR
        ),
        output=row.output_usd_per_million,
        reasoning=_or_default(row.reasoning_usd_per_million, row.output_usd_per_million),
        request_usd=row.request_usd,
        source=source,
    )
    return PriceStep(row.above_input_tokens or -1, rates, rates.label)


def _listed_steps(
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
    default = _listed_steps(listed_as, model, ServiceTier.DEFAULT, at, write_factor)
    longer = (step for step in default if step.above_input_tokens > starts[-1])
    return steps + tuple(
        _highest_step([steps[-1], step], step.above_input_tokens) for step in longer
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
        cached_input=_or_default(rate("cache_read_mtok"), input_rate),
        cache_write=_or_default(rate("cache_write_mtok"), input_rate * write_factor),
        cache_write_1h=_or_default(rate("cache_write_1h_mtok"), input_rate * WRITE_1H_FACTOR),
        output=output_rate,
        reasoning=_or_default(rate("output_reasoning_mtok"), output_rate),
        request_usd=_or_default(rate("requests_kcount"), Decimal(0)) / _REQUESTS_PER_PRICE,
        source=source,
    )
    return PriceStep(start, rates, rates.label)


def _or_default(rate: Decimal | None, default: Decimal) -> Decimal:
    return default if rate is None else rate
