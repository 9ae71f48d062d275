"""Where the requests to a provider go, and what they are called there: paths, keys, models, tiers and statuses."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from callgate.domain.requests import Name, ServiceTier

Path = Annotated[
    str, StringConstraints(pattern=r"^/(?:[A-Za-z0-9._~/-]|\{model\})*$", max_length=256)
]
"""A path after the base URL; `{model}` stands for the request's model."""
KeyHeader = Literal["authorization", "api-key"]
Bill = Literal["unknown", "unbilled"]
OWN_STATUSES = frozenset({400, 401, 402, 403, 404, 407, 408, 409, 413, 422, 429})
"""Statuses whose meaning is the same for all providers."""


class Endpoint(BaseModel):
    """The part of a provider's entry that says how it is addressed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str | None = None
    """The preset below this entry: a table of `presets.toml` in the folder of its protocol."""
    path: Path | None = None
    """Where requests are posted, after `base_url`. None: the path of the protocol's author."""
    api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    """Sent as the parameter `api-version` of each URL."""
    key_header: KeyHeader = "authorization"
    """The header with the key: `Authorization: Bearer KEY`, or `api-key: KEY`."""
    models: dict[Name, Name] = {}
    """
    Models by the names that requests use, for prices and tokenizers: `{ my-deployment = "gpt-4o-mini" }`.

    Requests are sent with their own name. A name that is not here is the model's.
    """
    lists_models: bool = False
    """True if a name says nothing about the model, as with Azure's deployments. Then `models` must have each."""
    tier_names: dict[ServiceTier, Annotated[str, Field(min_length=1, max_length=64)]] = {
        tier: tier.value for tier in ServiceTier
    }
    """What the provider calls the tiers. A request for a tier that is not here is refused at submit."""
    status_bills: dict[Annotated[int, Field(ge=402, le=599)], Bill] = {}
    """The bill of single statuses, for example `{ 529 = "unbilled" }`. Such a request is tried again."""
    free_check: Path | None = None
    """A path that the provider documents, and that costs nothing to GET with the key. Only the doctor asks it."""

    @field_validator("tier_names")
    @classmethod
    def _has_a_default_tier(cls, names: dict[ServiceTier, str]) -> dict[ServiceTier, str]:
        if ServiceTier.DEFAULT not in names:
            raise ValueError("tier_names needs the tier default")
        return names

    @field_validator("status_bills")
    @classmethod
    def _statuses_are_free(cls, bills: dict[int, Bill]) -> dict[int, Bill]:
        """Refuse statuses with a fixed meaning."""
        if taken := sorted(OWN_STATUSES & bills.keys()):
            raise ValueError(f"the meaning of {', '.join(map(str, taken))} is fixed")
        return bills

    @field_validator("free_check")
    @classmethod
    def _check_has_no_model(cls, path: str | None) -> str | None:
        if path is not None and "{" in path:
            raise ValueError("free_check cannot have a model")
        return path

    def priced_model(self, name: str) -> str:
        """The model that a name in a request stands for."""
        return self.models.get(name, name)

    def tier_of(self, name: str | None) -> str | None:
        """Callgate's word for a tier that a reply names; the name itself if it is another one."""
        return next((tier.value for tier, own in self.tier_names.items() if own == name), name)

    def path_of(self, model: str, default: str) -> str:
        """The path for requests of one model, with its parameters."""
        path = (self.path or default).replace("{model}", quote(model, safe=""))
        return self.with_version(path)

    def with_version(self, path: str) -> str:
        """A path with the parameters that every URL has."""
        return f"{path}?api-version={self.api_version}" if self.api_version else path
