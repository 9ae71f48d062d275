"""Requests, catalogue rows and usages, for every model that genai-prices has a price for."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from genai_prices.data_snapshot import get_snapshot
from hypothesis import strategies as st
from pydantic import ValidationError

from callgate.adapters.cost_calculator import CostCalculator
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.errors import UnpricedModel
from callgate.domain.price_entry import PriceEntry
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
    """A calculator whose catalogue has the row of `a_row`."""
    providers = {"openai": ProviderEntry(sends_service_tier=True), "local": ProviderEntry()}
    return CostCalculator(Catalogue(providers=providers, prices=(a_row(**fields),)))


def with_rows(*rows: dict[str, Any]) -> CostCalculator:
    """A calculator whose catalogue has several rows of `a_row`."""
    providers = {"openai": ProviderEntry(sends_service_tier=True)}
    return CostCalculator(Catalogue(providers=providers, prices=tuple(a_row(**r) for r in rows)))


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


PRICED = st.deferred(lambda: st.sampled_from(priced_models()))
TOKENS = st.one_of(st.integers(0, 3_000), st.integers(199_990, 272_010), st.integers(0, 1_000_000))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Any consistent usage."""
    inputs, outputs = draw(TOKENS), draw(st.integers(0, 20_000))
    cached = draw(st.integers(0, inputs))
    return Usage(
        input_tokens=inputs,
        cached_input_tokens=cached,
        cache_write_tokens=draw(st.integers(0, inputs - cached)),
        output_tokens=outputs,
        reasoning_tokens=draw(st.integers(0, outputs)),
    )
