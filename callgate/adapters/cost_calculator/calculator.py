"""
Computes holds and costs with prices from the catalogue's own rows or from the genai-prices package (offline).

A catalogue row takes precedence. A resolved price is cached for a minute, because prices may change at any minute
(off-peak prices, announced increases).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import product

from callgate.adapters.cost_calculator.steps import (
    WRITE_1H_FACTOR,
    WRITE_FACTOR,
    highest_step,
    or_default,
)
from callgate.domain.budgets import cost_nano_usd, hold_nano_usd
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import UnpricedModel
from callgate.domain.model_prices import PriceStep, Rates
from callgate.domain.price_entry import PriceEntry
from callgate.domain.provider import Priced
from callgate.domain.requests import LLMRequest, ServiceTier, Usage

PRICE_CHANGE_SLACK = timedelta(hours=1)
"""
How far the provider's time of pricing may be from the time of the hold: the longest deadline of a call type.

A hold uses the highest price within this time, so a price that rises during a call cannot exceed the hold.
"""
RESOLVED_MAX = 1_024
"""Cached prices per calculator, one per provider, model, tier and minute: about 1 kB each."""

_TOKENS_PER_PRICE = 1_000_000


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
        """The highest rates within `PRICE_CHANGE_SLACK` of a minute, of each tier that may serve the request."""
        steps = list(self._steps_at(provider, model, tier, minute))
        slack = int(PRICE_CHANGE_SLACK.total_seconds() // 60)
        tiers = (tier, ServiceTier.DEFAULT) if tier is ServiceTier.PRIORITY else (tier,)
        for other, moment in product(tiers, (minute - slack, minute, minute + slack)):
            with suppress(UnpricedModel):
                steps += self._steps_at(provider, model, other, moment)
        starts = sorted({step.above_input_tokens for step in steps})
        return tuple(highest_step(steps, start) for start in starts)

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
        # The list takes 0.2 s to import, and a price of the catalogue does not need it.
        from callgate.adapters.cost_calculator.listed_prices import listed_steps

        listed_as = (entry.pricing_provider if entry else None) or provider
        at = datetime.fromtimestamp(minute * 60, UTC)
        try:
            return listed_steps(listed_as, model, tier, at, write_factor)
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
        cached_input=or_default(row.cached_input_usd_per_million, row.input_usd_per_million),
        cache_write=or_default(
            row.cache_write_usd_per_million, row.input_usd_per_million * write_factor
        ),
        cache_write_1h=or_default(
            row.cache_write_1h_usd_per_million, row.input_usd_per_million * WRITE_1H_FACTOR
        ),
        output=row.output_usd_per_million,
        reasoning=or_default(row.reasoning_usd_per_million, row.output_usd_per_million),
        request_usd=row.request_usd,
        source=source,
    )
    return PriceStep(row.above_input_tokens or -1, rates, rates.label)
