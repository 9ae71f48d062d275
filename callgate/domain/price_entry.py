"""A price as an operator declares it: one row of `[[prices]]` in the catalogue."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from callgate.domain.requests import ServiceTier

UsdPerMillion = Annotated[Decimal, Field(ge=0, le=1_000_000)]


class PriceEntry(BaseModel):
    """
    A price that overrides the genai-prices package, in USD per million tokens; or a model that is declared free.

    Rows of one model and tier are the steps of its price: the whole request has the price of the last step that its
    input is above.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: str
    """A provider of the catalogue."""
    model: str
    """The exact model."""
    free: bool = False
    """The model costs nothing, whatever is asked of it: for example, it runs on an own machine."""
    service_tier: ServiceTier = ServiceTier.DEFAULT
    """The tier that this is the price of."""
    above_input_tokens: Annotated[int, Field(ge=0)] = 0
    """The step begins above so many input tokens. A provider's "200K or more" is 199_999 here."""
    input_usd_per_million: UsdPerMillion = Decimal(0)
    """For input tokens."""
    output_usd_per_million: UsdPerMillion = Decimal(0)
    """For output tokens."""
    cached_input_usd_per_million: UsdPerMillion | None = None
    """None: cached input costs as much as other input."""
    cache_write_usd_per_million: UsdPerMillion | None = None
    """None: 1.25 times the input where the provider knows cache marks, else as much as other input."""
    cache_write_1h_usd_per_million: UsdPerMillion | None = None
    """What is written to the cache for an hour. None: twice the input."""
    reasoning_usd_per_million: UsdPerMillion | None = None
    """None: reasoning costs as much as other output."""
    request_usd: Annotated[Decimal, Field(ge=0, le=1_000_000)] = Decimal(0)
    """A fee per request."""
    source: str
    """Where the price was read: a page, a contract."""
    as_of: date
    """The day on which it was read."""

    @model_validator(mode="after")
    def _has_a_price_or_none(self) -> Self:
        """Refuse a row without a price that does not say `free`, and a free row with a price."""
        priced = {name for name in self.model_fields_set if "_usd" in name}
        if self.free and (priced or self.model_fields_set & {"service_tier", "above_input_tokens"}):
            raise ValueError("a free model has no prices, tiers or steps")
        if not self.free and not {"input_usd_per_million", "output_usd_per_million"} <= priced:
            raise ValueError(
                "give input_usd_per_million and output_usd_per_million, or free = true for a model that costs nothing"
            )
        return self
