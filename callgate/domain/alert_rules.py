"""From when on something is alerted: the table `alerts` of the catalogue."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

Percents = tuple[Annotated[int, Field(ge=1, le=100)], ...]
PerHour = Annotated[int, Field(ge=1, le=20_000)]
Seconds = Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OrganisationAlerts(_Entry):
    """Other thresholds of one organisation; None: those of all."""

    budget_percents: Percents | None = None
    """Instead of `budget_percents` of `[alerts]`."""
    dead_letters_per_hour: PerHour | None = None
    """Instead of `dead_letters_per_hour` of `[alerts]`."""


class AlertRules(_Entry):
    """Thresholds of all organisations, and of the ledger as a whole."""

    budget_percents: Percents = (50, 80, 100)
    """Each budget is alerted when so many percent are spent or held, once in each of its periods. Empty: never."""
    dead_letters_per_hour: PerHour = 20
    """So many calls of an organisation that died within an hour are alerted."""
    blocked_key_s: Seconds = 60.0
    """A key that its provider blocks for its rate is alerted after so long. Other open breakers are at once."""
    unknown_usd: Annotated[Decimal, Field(gt=0, le=1_000_000_000)] = Decimal(10)
    """Unknown bills are alerted when they have posted so much together."""
    queue_age_s: Seconds = 300.0
    """The queue is alerted when a call has been in it for so long."""
    workers_differ_s: Seconds = 600.0
    """Workers that differ are alerted when they have been alive beside each other for so long. A rolling upgrade takes
    less."""
    dead_after_days: Annotated[float, Field(gt=0, le=90, allow_inf_nan=False)] = 3.0
    """A webhook message that still fails after so many days is dead."""
    orgs: dict[str, OrganisationAlerts] = {}
    """Organisations with other thresholds."""

    @field_validator("unknown_usd", mode="after")
    @classmethod
    def _is_plain(cls, amount: Decimal) -> Decimal:
        return amount.normalize()

    def percents(self, org_id: str) -> Percents:
        """The `budget_percents` of an organisation."""
        own = self.orgs.get(org_id, OrganisationAlerts()).budget_percents
        return self.budget_percents if own is None else own

    def deaths_per_hour(self, org_id: str) -> int:
        """The `dead_letters_per_hour` of an organisation."""
        own = self.orgs.get(org_id, OrganisationAlerts()).dead_letters_per_hour
        return self.dead_letters_per_hour if own is None else own

    def to_json(self) -> dict[str, Any]:
        """What the ledger's functions read. Thresholds that an organisation does not have are left out."""
        fields = self.model_dump(mode="json", exclude_none=True)
        return {**fields, "unknown_usd": float(self.unknown_usd)}
