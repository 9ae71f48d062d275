"""Prices of one model as they apply to one request: rates, and the steps of them above a length of the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of one model in one price step: USD per million tokens of each kind, and USD per request."""

    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    output: Decimal
    reasoning: Decimal
    request_usd: Decimal
    source: str

    @property
    def label(self) -> str:
        """Source and rates as text, for the column `price_source`."""
        kinds = {"in": self.input, "out": self.output}
        if self.cached_input != self.input:
            kinds["cached"] = self.cached_input
        if self.cache_write != self.input:
            kinds["write"] = self.cache_write
            kinds["write-1h"] = self.cache_write_1h
        if self.reasoning != self.output:
            kinds["reasoning"] = self.reasoning
        return f"{self.source} {_rates_text(kinds)}{_fee_text(self.request_usd)}"


@dataclass(frozen=True, slots=True)
class PriceStep:
    """The rates for a whole request whose input has more than `above_input_tokens` tokens."""

    above_input_tokens: int
    rates: Rates
    label: str


def _rates_text(rates: Mapping[str, Decimal]) -> str:
    return " ".join(f"{kind}={_plain(rate)}" for kind, rate in rates.items()) + " USD/M"


def _fee_text(request_usd: Decimal) -> str:
    return f" + {_plain(request_usd)} USD/request" if request_usd else ""


def _plain(amount: Decimal) -> str:
    """The amount without an exponent or trailing zeros: `0.15`, not `1.50E-1`."""
    return f"{amount.normalize():f}"
