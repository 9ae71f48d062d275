"""
Figures worked out by hand from what providers publish. The code must come to the same.

Each line is `tokens x USD per million tokens`, which is micro-USD; a fee per request is `1 x micro-USD`. The rates in
it were read from the provider's page, not from genai-prices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from callgate.adapters.cost_calculator import CostCalculator
from callgate.domain.errors import UnpricedModel
from callgate.domain.requests import ServiceTier, Usage
from tests.support.priced_models import CATALOGUE, COSTS, NOW, a_request

FAST_MODE = "openai.com/API-fast-mode, read 2026-11-29"
OPENAI_LONG = (
    "developers.openai.com/api/docs/models/gpt-5.5 (above 272K input tokens the whole request: 2x input and cached"
    " input, 1.5x output), verified by genai-prices 2026-10-12; base rates: openai.com/API-fast-mode halves"
)
CLAUDE = "platform.claude.com/docs/en/about-claude/pricing, model pricing, read 2026-11-29"
HAIKU = "platform.claude.com/docs/en/models/haiku-5-5/overview, pricing, read 2026-11-29"
DEEPSEEK = "api-docs.deepseek.com/quick_start/pricing, read 2026-11-29"
XAI = "docs.x.ai/docs/models/grok-4.5 and grok-4.6, as genai-prices 0.2.3 quotes them, read 2026-11-30"
GEMINI = "ai.google.dev/gemini-api/docs/pricing, Gemini 2.5 Pro, as quoted 2026-03; thinking is billed as output"
SONAR = "docs.perplexity.ai, pricing as of 2025-07-05: 5, 8 or 12 USD per 1,000 requests by search context"
SPLIT = Usage(
    input_tokens=1_000,
    cached_input_tokens=600,
    cache_write_tokens=300,
    output_tokens=200,
    reasoning_tokens=150,
)
"""100 plain, 600 cached, 300 written, 200 out of which 150 are reasoning."""


@dataclass(frozen=True)
class Worked:
    """One bill."""

    what: str
    provider: str
    model: str
    usage: Usage
    by_hand: str
    nano_usd: int
    source: str
    tier: ServiceTier = ServiceTier.DEFAULT
    at: datetime = field(default=NOW)


def long(**parts: int) -> Usage:
    """A long input of 300,000 tokens."""
    return Usage(input_tokens=300_000, **parts)


CASES = [
    Worked(
        "cache write and read of 5 minutes, thinking as output",
        "anthropic",
        "claude-opus-5",
        SPLIT,
        "100 x 5 + 600 x 0.50 + 300 x 6.25 + 200 x 25",
        7_675_000,
        CLAUDE,
    ),
    Worked(
        "a cache read at a fortieth, not at a tenth",
        "anthropic",
        "claude-fable-5-1",
        Usage(input_tokens=10_000, cached_input_tokens=10_000, output_tokens=10),
        "10_000 x 0.25 + 10 x 50",
        3_000_000,
        CLAUDE,
    ),
    Worked(
        "no dearer step above 200,000 tokens any more",
        "anthropic",
        "claude-sonnet-4-6",
        long(output_tokens=1_000),
        "300_000 x 3 + 1_000 x 15",
        915_000_000,
        CLAUDE,
    ),
    Worked(
        "up to the step",
        "anthropic",
        "claude-haiku-5-5",
        Usage(input_tokens=100_000, cache_write_tokens=50_000, output_tokens=1_000),
        "50_000 x 0.10 + 50_000 x 0.125 + 1_000 x 0.50",
        11_750_000,
        HAIKU,
    ),
    Worked(
        "one token above the step: five times as much for all of it",
        "anthropic",
        "claude-haiku-5-5",
        Usage(input_tokens=100_001, cache_write_tokens=50_000, output_tokens=1_000),
        "50_001 x 0.50 + 50_000 x 0.625 + 1_000 x 2.50",
        58_750_500,
        HAIKU,
    ),
    Worked(
        "priority, short",
        "openai",
        "gpt-5.6-sol",
        Usage(input_tokens=1_000, cached_input_tokens=600, output_tokens=200, reasoning_tokens=150),
        "400 x 8 + 600 x 0.80 + 200 x 40",
        11_680_000,
        FAST_MODE,
        ServiceTier.PRIORITY,
    ),
    Worked(
        "priority, long",
        "openai",
        "gpt-5.6-sol",
        long(cached_input_tokens=100_000, output_tokens=1_000),
        "200_000 x 16 + 100_000 x 1.60 + 1_000 x 60",
        3_420_000_000,
        FAST_MODE,
        ServiceTier.PRIORITY,
    ),
    Worked(
        "priority of a small model",
        "openai",
        "gpt-5.4-mini",
        Usage(input_tokens=1_000, cached_input_tokens=600, output_tokens=200),
        "400 x 1.50 + 600 x 0.15 + 200 x 9",
        2_490_000,
        FAST_MODE,
        ServiceTier.PRIORITY,
    ),
    Worked(
        "default, long",
        "openai",
        "gpt-5.5",
        long(cached_input_tokens=100_000, output_tokens=1_000),
        "200_000 x 10 + 100_000 x 1 + 1_000 x 45",
        2_145_000_000,
        OPENAI_LONG,
    ),
    Worked(
        "flex costs half, also when long",
        "openai",
        "gpt-5.5",
        long(cached_input_tokens=100_000, output_tokens=1_000),
        "200_000 x 5 + 100_000 x 0.50 + 1_000 x 22.5",
        1_072_500_000,
        OPENAI_LONG + "; flex: developers.openai.com/api/docs/pricing",
        ServiceTier.FLEX,
    ),
    Worked(
        "cache writes at 1.25 of the input, in flex",
        "openai",
        "gpt-5.6-sol",
        SPLIT,
        "100 x 2 + 600 x 0.20 + 300 x 2.50 + 200 x 10",
        3_070_000,
        "half of the standard 4 / 0.40 / 5 / 20: developers.openai.com/api/docs/pricing, by genai-prices 2026-10-12",
        ServiceTier.FLEX,
    ),
    Worked(
        "a step above 200,000 tokens, thinking as output",
        "google",
        "gemini-2.5-pro",
        Usage(input_tokens=200_001, output_tokens=1_000, reasoning_tokens=900),
        "200_001 x 2.50 + 1_000 x 15",
        515_002_500,
        GEMINI,
    ),
    Worked(
        "up to that step",
        "google",
        "gemini-2.5-pro",
        Usage(input_tokens=200_000, output_tokens=1_000, reasoning_tokens=900),
        "200_000 x 1.25 + 1_000 x 10",
        260_000_000,
        GEMINI,
    ),
    Worked(
        "off-peak",
        "deepseek",
        "deepseek-v4-pro",
        Usage(input_tokens=1_000, cached_input_tokens=600, output_tokens=200),
        "400 x 0.66 + 600 x 0.022 + 200 x 1.98",
        673_200,
        DEEPSEEK,
        at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    ),
    Worked(
        "peak, 06:00 to 10:00 UTC",
        "deepseek",
        "deepseek-v4-pro",
        Usage(input_tokens=1_000, cached_input_tokens=600, output_tokens=200),
        "400 x 1.32 + 600 x 0.044 + 200 x 3.96",
        1_346_400,
        DEEPSEEK,
        at=datetime(2026, 11, 23, 8, tzinfo=UTC),
    ),
    Worked(
        "cached input",
        "x-ai",
        "grok-4.5",
        Usage(input_tokens=1_000, cached_input_tokens=600, output_tokens=200),
        "400 x 2 + 600 x 0.30 + 200 x 6",
        2_180_000,
        XAI,
    ),
    Worked(
        "cached input",
        "x-ai",
        "grok-4.6",
        Usage(input_tokens=1_000, cached_input_tokens=600, output_tokens=200),
        "400 x 2 + 600 x 0.50 + 200 x 6",
        2_300_000,
        XAI,
    ),
    Worked(
        "a fee per request, at the dearest search context",
        "perplexity",
        "sonar",
        Usage(input_tokens=100, output_tokens=200),
        "100 x 1 + 200 x 1 + 1 x 12_000",
        12_300_000,
        SONAR,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model}: {case.what}")
def test_a_bill_is_what_the_providers_rules_say(case: Worked) -> None:
    products = (product.split(" x ") for product in case.by_hand.split(" + "))
    micro_usd = sum(Decimal(tokens) * Decimal(rate) for tokens, rate in products)

    cost = COSTS.cost(case.provider, case.model, case.usage, case.tier, case.at)

    assert micro_usd * 1_000 == case.nano_usd
    assert cost.nano_usd == case.nano_usd
    assert case.source


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.model}: {case.what}")
def test_its_hold_is_no_less(case: Worked) -> None:
    request = a_request(
        provider=case.provider,
        model=case.model,
        service_tier=case.tier,
        max_output_tokens=case.usage.output_tokens,
    )

    assert COSTS.worst_case(request, case.usage.input_tokens, case.at).nano_usd >= case.nano_usd


def test_a_tier_without_a_price_for_long_inputs_costs_at_least_the_default() -> None:
    """
    OpenAI publishes no long price of gpt-5.5-pro in flex (15 and 90); its default tier has 60 and 270.

    The list would have said 15 and 90. Posting 60 and 270 may be too much, and is never too little.
    """
    usage = long(output_tokens=1_000)

    cost = COSTS.cost("openai", "gpt-5.5-pro", usage, ServiceTier.FLEX, NOW)

    assert cost.nano_usd == (300_000 * 60 + 1_000 * 270) * 1_000
    assert "at most" in cost.price_source
    short = COSTS.cost("openai", "gpt-5.5-pro", Usage(input_tokens=272_000), ServiceTier.FLEX, NOW)
    assert short.nano_usd == 272_000 * 15 * 1_000


@pytest.mark.parametrize(
    ("provider", "model", "says"),
    [
        ("openrouter", "openai/gpt-5", "what the host that it chooses charges"),
        ("x-ai", "grok-4-0709", "above 128,000 tokens"),
        ("x-ai", "grok-4-1-fast-reasoning", "above 128,000 tokens"),
    ],
)
def test_a_model_that_is_listed_too_cheap_needs_rows(provider: str, model: str, says: str) -> None:
    with pytest.raises(UnpricedModel, match=says):
        CostCalculator(CATALOGUE).worst_case(a_request(provider=provider, model=model), 1, NOW)


@pytest.mark.parametrize("provider", ["azure", "anthropic", "groq", "google"])
@pytest.mark.parametrize("tier", [ServiceTier.FLEX, ServiceTier.PRIORITY])
def test_tiers_without_a_published_price_are_refused(provider: str, tier: ServiceTier) -> None:
    """Anthropic's priority tier is sold by contract, Azure's and Groq's are not in the list: rows must price them."""
    models = {
        "azure": "gpt-4o",
        "anthropic": "claude-opus-5",
        "groq": "openai/gpt-oss-20b",
        "google": "gemini-2.5-pro",
    }
    request = a_request(provider=provider, model=models[provider], service_tier=tier)

    with pytest.raises(UnpricedModel, match=f"service tier '{tier}'"):
        COSTS.worst_case(request, 1, NOW)
