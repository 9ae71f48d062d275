"""Which days a page is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from callgate.domain.errors import InvalidRequest
from worker.flower.periods import EVER, NAMES, OWN, Span, span_of

NOW = datetime(2026, 11, 18, 23, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def spanned(name: str, first: str = "", last: str = "", zone: ZoneInfo = BERLIN) -> Span:
    """The time of a name."""
    return span_of(name, first, last, now=NOW, zone=zone)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("today", "2026-11-19", "2026-11-19"),
        ("yesterday", "2026-11-18", "2026-11-18"),
        ("7d", "2026-11-13", "2026-11-19"),
        ("30d", "2026-10-21", "2026-11-19"),
        ("month", "2026-11-01", "2026-11-19"),
    ],
)
def test_times_are_whole_days_of_the_time_zone(name: str, first: str, last: str) -> None:
    """In Berlin the next day has begun."""
    span = spanned(name)

    assert (span.first, span.last) == (first, last)
    assert span.since == datetime.fromisoformat(first).replace(tzinfo=BERLIN)
    assert span.until == datetime.fromisoformat(last).replace(tzinfo=BERLIN) + timedelta(days=1)
    assert span.words == {"period": name}
    assert spanned("today", zone=ZoneInfo("UTC")).first == "2026-11-18"


def test_a_day_of_25_hours_is_a_day() -> None:
    span = spanned(OWN, "2026-10-25", "2026-10-25")

    assert span.since is not None
    assert span.until is not None
    assert span.until.astimezone(UTC) - span.since.astimezone(UTC) == timedelta(hours=25)
    assert span.words == {"period": OWN, "from": "2026-10-25", "to": "2026-10-25"}


def test_own_days_have_defaults() -> None:
    """From today, to today."""
    assert spanned(OWN, "2026-11-01").last == "2026-11-19"
    assert spanned(OWN).first == "2026-11-19"
    assert spanned(EVER) == Span(EVER, None, None)
    assert all(spanned(name).since for name in NAMES)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("soon", "", ""),
        (OWN, "yesterday", ""),
        (OWN, "2026-11-31", ""),
        (OWN, "2026-11-02", "2026-11-01"),
        (OWN, "2020-01-01", "2026-01-01"),
        (OWN, "0001-01-01", "0001-01-02"),
        (OWN, "9999-12-31", "9999-12-31"),
    ],
)
def test_other_times_are_refused(name: str, first: str, last: str) -> None:
    with pytest.raises(InvalidRequest):
        spanned(name, first, last)
