"""
What was used over time: steps of an hour, a day or a month in a time zone, as charts show them.

A day of a time zone consists of quarter hours, so it is exact. Long times are shown in days of UTC, which are summed up
already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol
from zoneinfo import ZoneInfo

from callgate.domain.sums import CostFilter, CostLine

HOURS_FOR = timedelta(days=2, hours=2)
"""A day of 25 hours and the one before are shown by hour."""
LOCAL_DAYS_FOR = timedelta(days=35)
"""So long a time is summed up from quarter hours; a longer one from days in UTC."""
DAYS_FOR = timedelta(days=400)
TOP_MAX = 8
"""Values of a dimension that have a line of their own; what comes after them is one more line."""
UTC_ZONE = "UTC"


class Step(StrEnum):
    """How long a part of a chart is."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Grid:
    """The steps of a time, in one time zone."""

    step: Step
    zone: str

    @property
    def is_of_days(self) -> bool:
        """True if each step consists of days in UTC."""
        return self.step is not Step.HOUR and self.zone == UTC_ZONE

    def start_of(self, at: datetime) -> datetime:
        """When the step of a moment began."""
        local = at.astimezone(ZoneInfo(self.zone)).replace(minute=0, second=0, microsecond=0)
        if self.step is Step.HOUR:
            return local.astimezone(UTC)
        local = local.replace(hour=0, fold=0)
        return (local.replace(day=1) if self.step is Step.MONTH else local).astimezone(UTC)

    def starts(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """When each step of a time begins. The first may begin before it."""
        at = self.start_of(since)
        while at < until:
            yield at
            at = self._next(at)

    def _next(self, at: datetime) -> datetime:
        if self.step is Step.HOUR:
            return at + timedelta(hours=1)
        local = at.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)
        days = 32 if self.step is Step.MONTH else 1
        later = local.replace(day=1) if self.step is Step.MONTH else local
        # Noon exists on each day, midnight does not.
        noon = (later + timedelta(days=days)).replace(hour=12, tzinfo=ZoneInfo(self.zone))
        return self.start_of(noon)


def grid_of(since: datetime, until: datetime, zone: str) -> Grid:
    """Which steps show a time: not too many, and none that would have to be summed up from very many rows."""
    length = until - since
    if length <= HOURS_FOR:
        return Grid(Step.HOUR, zone)
    if length <= LOCAL_DAYS_FOR:
        return Grid(Step.DAY, zone)
    return Grid(Step.DAY if length <= DAYS_FOR else Step.MONTH, UTC_ZONE)


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """What one value of a dimension used in one step."""

    starts_at: datetime
    name: str | None
    """The value; empty: none. None: all that are not among the largest."""
    posted_nano_usd: int
    saved_nano_usd: int
    attempts: int


class CostSeriesPort(Protocol):
    """What pages of costs ask of the sums. `LedgerUnavailable` as in `callgate.domain.ports`."""

    def cost_lines(self, which: CostFilter, by: Sequence[str], *, limit: int) -> list[CostLine]:
        """
        Sum what was used, grouped by some of `BY_DAY` and `DIMENSIONS`: the lines with the largest amounts first.

        Of no dimension: one line, or none if nothing was used.
        """

    def cost_series(
        self, which: CostFilter, grid: Grid, by: str, *, top_max: int = TOP_MAX
    ) -> list[SeriesPoint]:
        """
        Sum what was used by step and value of one dimension, in the order of time, the largest value first.

        The filter has both times, and 2,000 steps at most. Only steps and values with something in them are listed.
        Values that are not among the `top_max` with the largest amount count as one without a name.
        """


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    name: str | None
    values: tuple[int, ...]
    """One for each step, in nano-USD."""


def series_of(points: Sequence[SeriesPoint], starts: Sequence[datetime]) -> list[Series]:
    """Make lines out of points, the largest first and what has no name last. Steps without a point are 0."""
    index = {at: number for number, at in enumerate(starts)}
    lines: dict[str | None, list[int]] = {}
    for point in points:
        number = index.get(point.starts_at)
        if number is not None:
            lines.setdefault(point.name, [0] * len(starts))[number] += point.posted_nano_usd
    found = [Series(name, tuple(values)) for name, values in lines.items()]
    return sorted(found, key=lambda s: (s.name is None, -sum(s.values), s.name or ""))
