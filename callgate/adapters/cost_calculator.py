"""
Prices from the genai-prices package, which ships its price list (no network), and from the catalogue's own rows.

A catalogue row wins over the list. genai-prices' `calc_price` answers where it should refuse: an unknown service tier
costs the standard price, a provider may match by a part of its name, a missing price is 0. So only its data is used:
providers match exactly, tiers and prices must be listed, and what is resolved is kept for a minute, because
prices may change at any whole minute (off-peak prices, announced increases).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import product

import genai_prices
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider, TieredPrices

from callgate.domain.budgets import cost_nano_usd, hold_nano_usd
from callgate.domain.catalogue import Catalogue, PriceEntry
from callgate.domain.errors import UnpricedModel
from callgate.domain.provider import Priced
from callgate.domain.requests import LLMRequest, ServiceTier, Usage

PRICE_CHANGE_SLACK = timedelta(hours=1)
"""
How far the time a provider prices a request at may be from ours: the longest deadline of a call type.

A hold is made at the dearest price within it, so a price that rises during a call cannot exceed its hold.
"""
RESOLVED_MAX = 1_024
"""Resolved prices kept per calculator, one per provider, model, tier and minute: about 1 kB each."""

_LIST = f"genai-prices {genai_prices.__version__}"
_TOKENS_PER_PRICE = 1_000_000
_REQUESTS_PER_PRICE = 1_000

_ASKED_FOR_OUTPUTS = frozenset({"output_mtok", "output_reasoning_mtok", "output_audio_mtok"})
"""What a model writes as plain tokens, or only when asked. Others (images, citations) come unasked and unbounded."""
_SEARCHES_UNASKED = re.compile(r"-search-|deep-research")
"""Models that search by themselves bill every search, and no request says how many there may be."""


@dataclass(frozen=True, slots=True)
class Rates:
    """One price step of one model: USD per million tokens of each kind, and USD per request."""

    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    output: Decimal
    reasoning: Decimal
    request_usd: Decimal
    source: str

    @property
    def label(self) -> str:
        """The source and the rates, for `price_source`."""
        kinds = {"in": self.input, "out": self.output}
        if self.cached_input != self.input:
            kinds["cached"] = self.cached_input
        if self.cache_write != self.input:
            kinds["write"] = self.cache_write
        if self.reasoning != self.output:
            kinds["reasoning"] = self.reasoning
        return f"{self.source} {_labelled(kinds)}{_fee(self.request_usd)}"


@dataclass(frozen=True, slots=True)
class PriceStep:
    """Rates of every token of a request whose input is longer than `above_input_tokens`."""

    above_input_tokens: int
    rates: Rates
    label: str


class CostCalculator:
    """
    Turns tokens into money: holds at the dearest rate a request could meet, costs at the rates it met. Thread-safe.

    Ignored, because nothing callgate sends asks for it: prices of audio, images, searches as tools, one-hour caches.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._overlay = {(row.provider, row.model): row for row in catalogue.prices}
        self._steps_at = lru_cache(maxsize=RESOLVED_MAX)(self._resolve)
        self._dearest_steps_at = lru_cache(maxsize=RESOLVED_MAX)(self._resolve_dearest)

    def worst_case(self, request: LLMRequest, input_token_bound: int, at: datetime) -> Priced:
        """
        A true upper bound, rounded up.

        `input_token_bound` x the dearest input rate (plain, cached, cache write, every long-context step up to it)
        + `n` x `max_output_tokens` x the dearest output rate (reasoning included) + the fee per request.

        Raises:
            UnpricedModel: No price is known, or the provider is not told the service tier.
        """
        assert request.max_output_tokens is not None, "gates.with_output_bound comes first"
        provider, model, tier = request.provider, request.model, request.service_tier
        self._check_tier_is_sent(provider, tier)
        step = _met(self._dearest_steps_at(provider, model, tier, _minute(at)), input_token_bound)
        output_tokens = request.n * request.max_output_tokens
        amount = input_token_bound * step.rates.input + output_tokens * step.rates.output
        amount_usd = amount / _TOKENS_PER_PRICE + step.rates.request_usd
        return Priced(hold_nano_usd(amount_usd), step.label)

    def cost(
        self, provider: str, model: str, usage: Usage, tier: ServiceTier, at: datetime
    ) -> Priced:
        """
        The cost of what was used, half-even; `at` is when the attempt started.

        Raises:
            UnpricedModel: No price is known for the provider and model, or for the tier.
            ValueError: The usage contradicts itself, so nobody knows the cost.
        """
        plain_input = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        plain_output = usage.output_tokens - usage.reasoning_tokens
        if plain_input < 0 or plain_output < 0:
            raise ValueError(f"{provider}/{model}: contradictory usage: {usage!r}")
        step = _met(self._steps_at(provider, model, tier, _minute(at)), usage.input_tokens)
        rates = step.rates
        amount = (
            plain_input * rates.input
            + usage.cached_input_tokens * rates.cached_input
            + usage.cache_write_tokens * rates.cache_write
            + plain_output * rates.output
            + usage.reasoning_tokens * rates.reasoning
        )
        amount_usd = amount / _TOKENS_PER_PRICE + rates.request_usd
        return Priced(cost_nano_usd(amount_usd), step.label)

    def _check_tier_is_sent(self, provider: str, tier: ServiceTier) -> None:
        entry = self._catalogue.providers.get(provider)
        if tier is not ServiceTier.DEFAULT and not (entry and entry.sends_service_tier):
            raise UnpricedModel(
                f"provider {provider!r} is not told the service tier '{tier}': ask for the default "
                "tier, or set sends_service_tier in the catalogue if its endpoint knows tiers"
            )

    def _resolve_dearest(
        self, provider: str, model: str, tier: ServiceTier, minute: int
    ) -> tuple[PriceStep, ...]:
        """The dearest rates that could be met: now or within the slack; priority may be served as default."""
        steps = list(self._steps_at(provider, model, tier, minute))
        slack = int(PRICE_CHANGE_SLACK.total_seconds() // 60)
        tiers = (tier, ServiceTier.DEFAULT) if tier is ServiceTier.PRIORITY else (tier,)
        for other, moment in product(tiers, (minute - slack, minute, minute + slack)):
            with suppress(UnpricedModel):
                steps += self._steps_at(provider, model, other, moment)
        starts = sorted({step.above_input_tokens for step in steps})
        return tuple(_dearest_step(steps, start) for start in starts)

    def _resolve(
        self, provider: str, model: str, tier: ServiceTier, minute: int
    ) -> tuple[PriceStep, ...]:
        """The price steps of a model at a minute, those of the shortest inputs first."""
        row = self._overlay.get((provider, model))
        if row is not None:
            return _overlay_steps(row, tier)
        entry = self._catalogue.providers.get(provider)
        listed_as = (entry.pricing_provider if entry else None) or provider
        at = datetime.fromtimestamp(minute * 60, UTC)
        try:
            return _listed_steps(listed_as, model, tier, at)
        except UnpricedModel as exc:
            raise UnpricedModel(
                f"no price for {provider}/{model}: {exc}; check the name, or add a [[prices]] row "
                "to the catalogue"
            ) from None


def _minute(at: datetime) -> int:
    assert at.tzinfo is not None, "a time without a zone names no moment"
    return int(at.timestamp() // 60)


def _met(steps: Sequence[PriceStep], input_tokens: int) -> PriceStep:
    """The step a request of this input length is priced at; the first one holds for any length."""
    return next(step for step in reversed(steps) if input_tokens > step.above_input_tokens)


def _dearest_step(steps: Sequence[PriceStep], start: int) -> PriceStep:
    """The dearest rates among the steps that an input in the step at `start` may meet."""
    met = [step.rates for step in steps if step.above_input_tokens <= start]
    input_rate = max(max(r.input, r.cached_input, r.cache_write) for r in met)
    output_rate = max(max(r.output, r.reasoning) for r in met)
    fee_usd = max(r.request_usd for r in met)
    rates = Rates(
        input=input_rate,
        cached_input=input_rate,
        cache_write=input_rate,
        output=output_rate,
        reasoning=output_rate,
        request_usd=fee_usd,
        source=f"{met[0].source} at most",
    )
    return PriceStep(start, rates, rates.label)


def _overlay_steps(row: PriceEntry, tier: ServiceTier) -> tuple[PriceStep, ...]:
    if tier is not ServiceTier.DEFAULT:
        raise UnpricedModel(
            f"the catalogue's own price of {row.provider}/{row.model} is for the default service "
            f"tier, not for '{tier}'"
        )
    rates = Rates(
        input=row.input_usd_per_million,
        cached_input=_first(row.cached_input_usd_per_million, row.input_usd_per_million),
        cache_write=_first(row.cache_write_usd_per_million, row.input_usd_per_million),
        output=row.output_usd_per_million,
        reasoning=_first(row.reasoning_usd_per_million, row.output_usd_per_million),
        request_usd=row.request_usd,
        source=f"overlay {row.as_of}: {row.source}",
    )
    return (PriceStep(-1, rates, rates.label),)


def _listed_steps(
    listed_as: str, model: str, tier: ServiceTier, at: datetime
) -> tuple[PriceStep, ...]:
    """Read one model's prices from genai-prices; the lookup never uses its caches, which have no bound."""
    providers = get_snapshot().providers
    provider = next((p for p in providers if p.id == listed_as), None)
    if provider is None:
        raise UnpricedModel(f"{_LIST} has no provider {listed_as!r} (see pricing_provider)")
    info = provider.find_model(model, all_providers=providers)
    if info is None:
        raise UnpricedModel(f"{_LIST} has no such model of {listed_as!r}")
    if _SEARCHES_UNASKED.search(model):
        raise UnpricedModel("it searches by itself, and its searches have no bound")
    prices = _listed_prices(provider, info, tier, at)
    source = f"{_LIST} {listed_as}/{info.id}"
    if tier is not ServiceTier.DEFAULT:
        source += f" {tier}"
    tiered = [price for price in prices.values() if isinstance(price, TieredPrices)]
    starts = sorted({-1} | {step.start for price in tiered for step in price.tiers})
    return tuple(_listed_step(prices, start, source) for start in starts)


def _listed_prices(
    provider: Provider, info: ModelInfo, tier: ServiceTier, at: datetime
) -> dict[str, Decimal | TieredPrices]:
    """The prices of one tier by genai-prices' keys, refused where they do not cover what a call can cost."""
    wanted = {"service_tier": tier.value}
    if tier is not ServiceTier.DEFAULT and not (
        any(info is own for own in provider.models) and _has_variant(info, wanted, at)
    ):
        raise UnpricedModel(f"{_LIST} lists no price for its service tier '{tier}'")
    prices = {k: v for k, v in vars(info.get_prices(at, wanted)).items() if v is not None}
    if "input_mtok" not in prices or "output_mtok" not in prices:
        raise UnpricedModel(f"{_LIST} lists no price for both its input and its output tokens")
    unasked = {key for key in prices if key.startswith("output_")} - _ASKED_FOR_OUTPUTS
    if unasked:
        raise UnpricedModel(f"it writes what has no bound: {', '.join(sorted(unasked))}")
    return prices


def _has_variant(info: ModelInfo, wanted: dict[str, str], at: datetime) -> bool:
    """True if prices of input and output are listed for this very context."""
    return any(
        variant.when == wanted
        and (variant.constraint is None or variant.constraint.active(at))
        and {"input_mtok", "output_mtok"} <= vars(variant.prices).keys()
        for variant in info.price_variants or ()
    )


def _listed_step(
    prices: Mapping[str, Decimal | TieredPrices], start: int, source: str
) -> PriceStep:
    def rate(key: str) -> Decimal | None:
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
        cached_input=_first(rate("cache_read_mtok"), input_rate),
        cache_write=_first(rate("cache_write_mtok"), input_rate),
        output=output_rate,
        reasoning=_first(rate("output_reasoning_mtok"), output_rate),
        request_usd=_first(rate("requests_kcount"), Decimal(0)) / _REQUESTS_PER_PRICE,
        source=source,
    )
    return PriceStep(start, rates, rates.label)


def _first(rate: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if rate is None else rate


def _labelled(rates: Mapping[str, Decimal]) -> str:
    return " ".join(f"{kind}={_plain(rate)}" for kind, rate in rates.items()) + " USD/M"


def _fee(request_usd: Decimal) -> str:
    return f" + {_plain(request_usd)} USD/request" if request_usd else ""


def _plain(amount: Decimal) -> str:
    """Digits without an exponent or trailing zeros: `0.15`, not `1.50E-1`."""
    return f"{amount.normalize():f}"
