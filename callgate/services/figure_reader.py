"""The figures of the ledger as this process knows them: read now and then, shown from memory, left out when old."""

from __future__ import annotations

from callgate.domain.metric_ports import FiguresPort, LedgerFigures
from callgate.domain.ports import ClockPort

KEPT_INTERVALS = 4
"""Figures that are older than so many intervals are not shown: they would hide newer ones of other processes."""


class FigureReader:
    """One per process. One thread at a time reads, any thread asks for what was read."""

    def __init__(
        self, figures: FiguresPort, clock: ClockPort, *, interval_s: float, orgs_max: int
    ) -> None:
        self._figures = figures
        self._clock = clock
        self._interval_s = interval_s
        self._orgs_max = orgs_max
        self._newest: tuple[LedgerFigures, float] | None = None
        """What was read, and until when it is shown, by this process's clock."""

    def run(self) -> None:
        """
        Read the figures.

        Raises:
            LedgerUnavailable: What was read before is shown until it is too old.
        """
        asked_at = self._clock.monotonic()
        found = self._figures.read_figures(interval_s=self._interval_s, orgs_max=self._orgs_max)
        self._newest = found, asked_at + KEPT_INTERVALS * self._interval_s - found.age_s

    def newest(self) -> LedgerFigures | None:
        """What was read last; None if that is too old. It asks nobody."""
        newest = self._newest
        return newest[0] if newest and self._clock.monotonic() < newest[1] else None
