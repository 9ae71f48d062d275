"""An outage of the provider."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outage:
    """Every request of some models and keys fails alike for a while."""

    kind: str
    until: float
    models: tuple[str, ...] = ("sim-1", "sim-2")
    credentials: tuple[str, ...] = ("",)
    org_id: str | None = None
    """Of one organisation only."""
