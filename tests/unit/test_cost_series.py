"""Steps of time in a time zone, and the lines of a chart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.cost_series import Grid, SeriesPoint, Step, grid_of, series_of

BERLIN, KATHMANDU = "Europe/Berlin", "Asia/Kathmandu"
ZONES = ("UTC", BERLIN, KATHMANDU, "America/St_Johns", "Pacific/Apia", "Africa/Cairo")
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


def test_a_day_of_a_zone_begins_at_its_midnight() -> None:
    day = Grid(Step.DAY, KATHMANDU)

    assert day.start_of(NOON) == datetime(2026, 11, 17, 18, 15, tzinfo=UTC)
    assert Grid(Step.MONTH, BERLIN).start_of(NOON) == datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert Grid(Step.HOUR, KATHMANDU).start_of(NOON) == datetime(2026, 11, 18, 11, 15, tzinfo=UTC)


def test_a_day_of_25_hours_has_25_steps() -> None:
    """When clocks are set back; and the day after begins at midnight again."""
    hours = Grid(Step.HOUR, BERLIN)
    since = Grid(Step.DAY, BERLIN).start_of(datetime(2026, 10, 25, 12, tzinfo=UTC))
    days = list(Grid(Step.DAY, BERLIN).starts(since, since + timedelta(days=2)))

    assert days[1] - days[0] == timedelta(hours=25)
    assert len(list(hours.starts(days[0], days[1]))) == 25


@given(
    minutes=st.integers(0, 4 * 366 * 24 * 60),
    zone=st.sampled_from(ZONES),
    step=st.sampled_from(list(Step)),
    days=st.integers(1, 70),
)
def test_steps_cover_a_time_without_gaps(minutes: int, zone: str, step: Step, days: int) -> None:
    """Each begins where a step begins, and the first is that of the beginning."""
    grid, at = Grid(step, zone), NOON - timedelta(minutes=minutes)
    starts = list(grid.starts(at, at + timedelta(days=days)))

    assert starts[0] == grid.start_of(at) <= at
    assert starts == sorted(set(starts))
    assert all(grid.start_of(start) == start for start in starts)
    for start, end in pairwise(starts):
        assert grid.start_of(end - timedelta(microseconds=1)) == start


@pytest.mark.parametrize(
    ("days", "step", "zone"),
    [
        (1, Step.HOUR, BERLIN),
        (2, Step.HOUR, BERLIN),
        (7, Step.DAY, BERLIN),
        (31, Step.DAY, BERLIN),
        (60, Step.DAY, "UTC"),
        (366, Step.DAY, "UTC"),
        (800, Step.MONTH, "UTC"),
    ],
)
def test_long_times_have_long_steps(days: int, step: Step, zone: str) -> None:
    """Beyond a month in days of UTC, which are summed up already."""
    assert grid_of(NOON - timedelta(days=days), NOON, BERLIN) == Grid(step, zone)


def test_lines_of_a_chart_have_a_value_for_each_step() -> None:
    """The largest first, what has no name last; a step without a point is 0."""
    starts = [NOON, NOON + timedelta(hours=1)]
    points = [
        SeriesPoint(starts[0], "small", 1, 0, 1),
        SeriesPoint(starts[0], None, 50, 0, 1),
        SeriesPoint(starts[1], "large", 20, 0, 1),
        SeriesPoint(NOON + timedelta(days=9), "outside", 99, 0, 1),
    ]

    lines = [(series.name, series.values) for series in series_of(points, starts)]

    assert lines == [("large", (0, 20)), ("small", (1, 0)), (None, (50, 0))]
