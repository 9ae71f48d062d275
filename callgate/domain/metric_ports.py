"""The ports of metrics: where services count, and where the figures of the ledger come from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from callgate.domain.metrics import Metric


class Meter(Protocol):
    """Counts what happens in this process. Every method is cheap, does no I/O and raises nothing."""

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add to a counter; `labels` in the order of `Metric.labels`, `amount` not negative."""

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add one value to a histogram."""


class NoMeter:
    """Counts nothing."""

    def count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Do nothing."""

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Do nothing."""


NO_METER = NoMeter()


@dataclass(frozen=True, slots=True)
class Figure:
    """One value that the ledger knows."""

    name: str
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """All such values at one moment."""

    read_at: datetime
    age_s: float
    """How old they are, by the ledger's clock."""
    figures: tuple[Figure, ...]


class FiguresPort(Protocol):
    """The figures of the ledger, read once for all processes."""

    def read_figures(self, *, interval_s: float, orgs_max: int) -> LedgerFigures:
        """
        Return the stored figures. If they are older than `interval_s`, and nobody else reads them now, read them first.

        Args:
            orgs_max: How many organisations are named, those that used most of their budgets' money; the others are
                summed.

        Raises:
            LedgerUnavailable
        """

    def current_figures(self, *, orgs_max: int) -> tuple[Figure, ...]:
        """
        Return the figures of this moment, and store nothing: for a person who looks once.

        Raises:
            LedgerUnavailable, NotPermitted
        """
