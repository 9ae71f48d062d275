"""How pages write values. Each function returns text, which templates escape, or markup that is marked as such."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, ROUND_UP, Decimal
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

ZONE_COOKIE = "callgate_zone"
NANO = 1_000_000_000
CENT = Decimal("0.01")


def zone_of(name: str) -> ZoneInfo:
    """The time zone of a name; UTC if there is none of that name."""
    return ZoneInfo(name if name in _zone_names() else "UTC")


def when(at: datetime | None, zone: ZoneInfo) -> str:
    """A time to the second; empty if there is none."""
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S") if at else "—"


def ago(at: datetime, now: datetime) -> str:
    """How long ago a time was."""
    return f"{duration((now - at).total_seconds())} ago"


def duration(seconds: float | None) -> str:
    """A duration in two units at most."""
    if seconds is None:
        return "—"
    if seconds < 1:
        return f"{max(0, seconds) * 1_000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, size_below, below in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // size_below
            return f"{whole // size} {unit} {rest} {below}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def usd(nano_usd: float | None, rounding: str = ROUND_HALF_EVEN) -> str:
    """An amount to the cent; below a cent with two digits that are not zero."""
    if nano_usd is None:
        return "—"
    dollars = Decimal(round(nano_usd)).scaleb(-9)
    decimals = 2 if not dollars or abs(dollars) >= CENT else min(1 - dollars.adjusted(), 9)
    rounded = abs(dollars).quantize(Decimal(1).scaleb(-decimals), rounding)
    text = f"{rounded:,f}"
    if decimals > 2:
        text = text.rstrip("0").ljust(4, "0")
    return f"{'-' if dollars < 0 else ''}${text}"


def at_most_usd(nano_usd: float | None) -> str:
    """What something can cost at worst: an amount that is rounded up."""
    return usd(nano_usd, ROUND_UP)


def number(count: float, bound: int | None = None) -> str:
    """A count with thousands; with a `+` if it was counted no further than a bound."""
    mark = "+" if bound is not None and count >= bound else ""
    return f"{count:,.0f}{mark}"


def now() -> datetime:
    """The time of this machine, for what has no time of the ledger."""
    return datetime.now(UTC)


@cache
def _zone_names() -> frozenset[str]:
    """Read once: each look at the folders of time zones takes a tenth of a second."""
    return frozenset(available_timezones())
