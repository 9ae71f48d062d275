"""Price steps, and what is taken where a price list does not say."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from callgate.domain.model_prices import PriceStep, Rates

WRITE_FACTOR = Decimal("1.25")
WRITE_1H_FACTOR = Decimal(2)
"""
How many times the price of input Anthropic charges for what is written to its cache, for five minutes and for an hour.

They apply where a price list does not say: the first to providers with cache marks, the second to all.
Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching, "Pricing" (2026-11-29).
"""


def highest_step(steps: Sequence[PriceStep], start: int) -> PriceStep:
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


def or_default(rate: Decimal | None, default: Decimal) -> Decimal:
    """The rate, or what is taken if there is none."""
    return default if rate is None else rate
