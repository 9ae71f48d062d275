"""A budget's period lies between local midnights, without gaps, in any time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.budgets import (
    Window,
    period_of,
)

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]


@pytest.mark.parametrize(
    ("at", "window", "timezone", "starts_at", "ends_at"),
    [
        ("2026-11-18T12:00Z", Window.DAY, "UTC", "2026-11-18T00:00Z", "2026-11-19T00:00Z"),
        ("2026-11-18T00:00Z", Window.DAY, "UTC", "2026-11-18T00:00Z", "2026-11-19T00:00Z"),
        ("2026-11-17T23:59Z", Window.DAY, "UTC", "2026-11-17T00:00Z", "2026-11-18T00:00Z"),
        # In that zone the next day has begun.
        ("2026-11-18T20:00Z", Window.DAY, "Asia/Kolkata", "2026-11-18T18:30Z", "2026-11-19T18:30Z"),
        # Clocks go forward: 23 hours; and back: 25.
        (
            "2026-03-29T12:00Z",
            Window.DAY,
            "Europe/Berlin",
            "2026-03-28T23:00Z",
            "2026-03-29T22:00Z",
        ),
        (
            "2026-10-25T12:00Z",
            Window.DAY,
            "Europe/Berlin",
            "2026-10-24T22:00Z",
            "2026-10-25T23:00Z",
        ),
        # The repeated hour belongs to the same day both times.
        (
            "2026-10-25T00:30Z",
            Window.DAY,
            "Europe/Berlin",
            "2026-10-24T22:00Z",
            "2026-10-25T23:00Z",
        ),
        (
            "2026-10-25T01:30Z",
            Window.DAY,
            "Europe/Berlin",
            "2026-10-24T22:00Z",
            "2026-10-25T23:00Z",
        ),
        # A month with a clock change in it begins and ends at local midnights.
        (
            "2026-10-31T22:59Z",
            Window.MONTH,
            "Europe/Berlin",
            "2026-09-30T22:00Z",
            "2026-10-31T23:00Z",
        ),
        (
            "2026-10-31T23:00Z",
            Window.MONTH,
            "Europe/Berlin",
            "2026-10-31T23:00Z",
            "2026-11-30T23:00Z",
        ),
        # The ends of months: the 31st, leap years, the year.
        ("2026-01-31T12:00Z", Window.MONTH, "UTC", "2026-01-01T00:00Z", "2026-02-01T00:00Z"),
        ("2028-02-29T12:00Z", Window.MONTH, "UTC", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        ("2026-12-31T23:59Z", Window.MONTH, "UTC", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("2026-12-31T23:59Z", Window.DAY, "UTC", "2026-12-31T00:00Z", "2027-01-01T00:00Z"),
    ],
)
def test_a_period_is_between_local_midnights(
    at: str, window: Window, timezone: str, starts_at: str, ends_at: str
) -> None:
    """In the budget's own time zone, returned in UTC."""
    expected = (datetime.fromisoformat(starts_at), datetime.fromisoformat(ends_at))

    assert period_of(datetime.fromisoformat(at), window, timezone) == expected


MOMENTS = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - Hypothesis wants naive bounds and adds the zone itself
    datetime(2090, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(at=MOMENTS, window=st.sampled_from(Window), timezone=st.sampled_from(ZONES))
def test_periods_follow_each_other_without_a_gap(
    at: datetime, window: Window, timezone: str
) -> None:
    """Every moment is in exactly one period, whose end is the start of the next."""
    period = starts_at, ends_at = the_period_of(at, window, timezone)

    assert starts_at <= at < ends_at
    assert the_period_of(starts_at, window, timezone) == period
    assert the_period_of(ends_at - timedelta(microseconds=1), window, timezone) == period
    assert the_period_of(ends_at, window, timezone)[0] == ends_at


def the_period_of(at: datetime, window: Window, timezone: str) -> tuple[datetime, datetime]:
    """The period of a zone that exists."""
    period = period_of(at, window, timezone)
    assert period is not None
    return period


@pytest.mark.parametrize(
    "timezone", ["Mars/Olympus", "", "Europe", "/etc/passwd", "../UTC", "a\0b"]
)
def test_an_unknown_zone_has_no_periods(timezone: str) -> None:
    """The result is None, whatever the library raises."""
    assert period_of(NOON, Window.DAY, timezone) is None


@given(at=MOMENTS, timezone=st.sampled_from(ZONES))
def test_a_period_does_not_depend_on_the_moments_zone(at: datetime, timezone: str) -> None:
    elsewhere = at.astimezone(ZoneInfo("Pacific/Auckland"))

    assert period_of(elsewhere, Window.DAY, timezone) == period_of(at, Window.DAY, timezone)
