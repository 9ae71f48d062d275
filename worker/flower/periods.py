"""Times that pages are about: today, a week, days of one's own, in the page's time zone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from callgate.domain.errors import InvalidRequest

DAY = timedelta(days=1)
OWN_MAX_DAYS = 1_100
"""Three years."""
OWN, EVER = "own", "ever"
NAMES = {
    "today": "Today",
    "yesterday": "Yesterday",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    OWN: "Own",
}


@dataclass(frozen=True, slots=True)
class Span:
    """A time, from the beginning of a day to the end of another; None: without limit."""

    name: str
    since: datetime | None
    until: datetime | None
    first: str = ""
    """Its first and last day as a form has them; empty without limit."""
    last: str = ""

    @property
    def words(self) -> dict[str, str]:
        """The arguments of an address that mean this time."""
        if self.name != OWN:
            return {"period": self.name}
        return {"period": OWN, "from": self.first, "to": self.last}


def span_of(name: str, first: str, last: str, *, now: datetime, zone: ZoneInfo) -> Span:
    """
    Read which time is meant.

    Args:
        first: With `own`: the first day, and `last` the last one, like 2026-11-28. None given: today.

    Raises:
        InvalidRequest: There is no such time.
    """
    if name == EVER:
        return Span(EVER, None, None)
    today = now.astimezone(zone).date()
    days = {
        "today": (today, today),
        "yesterday": (today - DAY, today - DAY),
        "7d": (today - 6 * DAY, today),
        "30d": (today - 29 * DAY, today),
        "month": (today.replace(day=1), today),
    }
    if name in days:
        return _span(name, *days[name], zone)
    if name != OWN:
        raise InvalidRequest(f"{name[:20]!r} is not one of {', '.join(NAMES)}")
    begin = _day(first, today)
    end = _day(last, max(begin, today))
    if not begin <= end < begin + OWN_MAX_DAYS * DAY:
        raise InvalidRequest(f"choose 1 to {OWN_MAX_DAYS:,} days, the first one first")
    return _span(OWN, begin, end, zone)


def _day(text: str, default: date) -> date:
    if not text:
        return default
    try:
        found = datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a day has no zone
    except ValueError:
        raise InvalidRequest(f"{text[:20]!r} is not a day like 2026-11-28") from None
    if not 2000 <= found.year < 2200:
        raise InvalidRequest("choose a day of this century")
    return found


def _span(name: str, first: date, last: date, zone: ZoneInfo) -> Span:
    since = datetime.combine(first, time(), zone)
    until = datetime.combine(last + DAY, time(), zone)
    return Span(name, since, until, str(first), str(last))
