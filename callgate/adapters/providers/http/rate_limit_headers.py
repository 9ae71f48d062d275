"""
The limits that a provider names in the headers of a response, and when an exhausted one is available again.

Which headers a provider sends is its *dialect*: a table below. Values come from the network, so each is read on its
own: one that is malformed, negative or too large is ignored, and the others count. The tables with their sources are
also in `docs/flow-control.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import floor
from types import MappingProxyType

from callgate.domain.catalogue import HeaderDialect
from callgate.domain.limits import DAY_S, MINUTE_S, LearnedLimit, Measure
from callgate.domain.retry_after import bounded_s, epoch_s

VALUE_CHARS_MAX = 128
"""A longer value is ignored."""
AMOUNT_MAX = 10**12
_NUMBER = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,9})?")
_STEP = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(d|h|ms|m|us|µs|ns|s)"
_STEPS = re.compile(_STEP)
_DURATION = re.compile(f"(?:{_STEP})+")
_UNITS_S = {
    "d": DAY_S,
    "h": 3_600.0,
    "m": MINUTE_S,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}

Reset = Callable[[str, float | None], float | None]
"""Reads one reset as seconds from the response's own date; that date may be missing."""


def duration_s(text: str, _now: float | None) -> float | None:
    """Read a duration as Go writes it: `1s`, `6m0s`, `12ms`, `2m59.56s`."""
    if _DURATION.fullmatch(text) is None:
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _STEPS.findall(text))


def whole_s(text: str, _now: float | None) -> float | None:
    """Read a number of seconds."""
    return float(text) if _NUMBER.fullmatch(text) else None


def until_s(text: str, now: float | None) -> float | None:
    """Read a time of RFC 3339, as seconds after `now`; negative if it has passed."""
    try:
        time = datetime.fromisoformat(text)
        return None if time.tzinfo is None or now is None else time.timestamp() - now
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """The three headers of one limit."""

    measure: Measure
    window_s: float
    limit: str
    remaining: str
    reset: str
    source: str
    """Where the provider, or what it sends, is documented; and when that was read."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a provider sends about its limits."""

    lines: tuple[HeaderLine, ...]
    reset: Reset
    """How its resets are written."""


def _x(measure: Measure, window_s: float, name: str, source: str) -> HeaderLine:
    """A line of `x-ratelimit-{limit,remaining,reset}-NAME`."""
    limit, remaining, reset = (f"x-ratelimit-{what}-{name}" for what in _X_ORDER)
    return HeaderLine(measure, window_s, limit, remaining, reset, source)


def _anthropic(measure: Measure, name: str) -> HeaderLine:
    """A line of `anthropic-ratelimit-NAME-{limit,remaining,reset}`."""
    limit, remaining, reset = (f"anthropic-ratelimit-{name}-{what}" for what in _X_ORDER)
    return HeaderLine(measure, MINUTE_S, limit, remaining, reset, _ANTHROPIC)


_X_ORDER = ("limit", "remaining", "reset")
_OPENAI = "https://developers.openai.com/api/docs/guides/rate-limits (2026-06-26)"
_GROQ = "https://console.groq.com/docs/rate-limits (2026-11-29)"
_ANTHROPIC = "https://platform.claude.com/docs/en/api/rate-limits (2026-11-29)"
_AZURE = "https://learn.microsoft.com/en-us/answers/questions/5625878 (2025-11-17)"

DIALECTS: Mapping[HeaderDialect, Dialect] = MappingProxyType(
    {
        "openai": Dialect(
            (
                _x(Measure.REQUESTS, MINUTE_S, "requests", _OPENAI),
                _x(Measure.TOKENS, MINUTE_S, "tokens", _OPENAI),
                # A project can have a limit of its own beside the organisation's. Both hold.
                _x(Measure.TOKENS, MINUTE_S, "project-tokens", _OPENAI),
            ),
            duration_s,
        ),
        "groq": Dialect(
            (
                # "Always refers to Requests Per Day".
                _x(Measure.REQUESTS, DAY_S, "requests", _GROQ),
                _x(Measure.TOKENS, MINUTE_S, "tokens", _GROQ),
            ),
            duration_s,
        ),
        "anthropic": Dialect(
            (
                _anthropic(Measure.REQUESTS, "requests"),
                _anthropic(Measure.INPUT_TOKENS, "input-tokens"),
                _anthropic(Measure.OUTPUT_TOKENS, "output-tokens"),
                # The most restrictive limit in effect: a workspace's, or input and output together.
                _anthropic(Measure.TOKENS, "tokens"),
            ),
            until_s,
        ),
        "azure": Dialect(
            (
                # `x-ratelimit-renewalperiod-requests: 10` beside it is no window: the limit is still per minute.
                _x(Measure.REQUESTS, MINUTE_S, "requests", _AZURE),
                _x(Measure.TOKENS, MINUTE_S, "tokens", _AZURE),
            ),
            whole_s,
        ),
        "none": Dialect((), duration_s),
    }
)
"""The headers of each dialect, in the order in which limits are returned."""


def learned_limits(headers: Mapping[str, str], dialect: HeaderDialect) -> tuple[LearnedLimit, ...]:
    """
    Read the limits that a response names.

    Returns:
        At most one limit per measure and window: of several the lower amount, and the lower remaining one. Amounts are
        from 1 to `AMOUNT_MAX`; what remains is at most the amount.
    """
    found: dict[tuple[Measure, float], LearnedLimit] = {}
    for line in DIALECTS[dialect].lines:
        amount = _whole(headers, line.limit, at_least=1)
        if amount is None:
            continue
        remaining = _whole(headers, line.remaining, at_least=0)
        key = line.measure, line.window_s
        if key in found:
            amount = min(amount, found[key].amount)
            remaining = _lower(remaining, found[key].remaining)
        remaining = _lower(remaining, amount) if remaining is not None else None
        found[key] = LearnedLimit(*key, amount, remaining)
    return tuple(found.values())


def reset_s(headers: Mapping[str, str], dialect: HeaderDialect) -> float | None:
    """
    After how many seconds everything that is exhausted is available again.

    A time is compared with the response's own `date` header, never with the local clock.

    Returns:
        The longest reset of a limit of which 0 remains: above 0 and at most `RETRY_AFTER_MAX_S`. None without one.
    """
    now, read = epoch_s(headers.get("date")), DIALECTS[dialect].reset
    waits = (
        _wait_s(read(text, now) for text in _values(headers, line.reset))
        for line in DIALECTS[dialect].lines
        if _whole(headers, line.remaining, at_least=0) == 0
    )
    return max(filter(None, waits), default=None)


def _wait_s(resets: Iterable[float | None]) -> float | None:
    """The shortest of the resets in one header, bounded; None without one above 0."""
    waits = (bounded_s(reset) for reset in resets if reset is not None)
    return min(filter(None, waits), default=None)


def _whole(headers: Mapping[str, str], name: str, *, at_least: int) -> int | None:
    """The lowest number in a header, rounded down; None without one from `at_least` to `AMOUNT_MAX`."""
    numbers = (floor(float(text)) for text in _values(headers, name) if _NUMBER.fullmatch(text))
    return min((number for number in numbers if at_least <= number <= AMOUNT_MAX), default=None)


def _values(headers: Mapping[str, str], name: str) -> Iterator[str]:
    """
    The values of a header: one, or several if it was sent more than once.

    httpx joins those with a comma and a space. A comma alone is part of a malformed number.
    """
    value = headers.get(name, "")
    if len(value) <= VALUE_CHARS_MAX:
        yield from (part.strip() for part in value.split(", "))


def _lower(one: int | None, other: int | None) -> int | None:
    """The lower of two numbers that may be missing."""
    return min((number for number in (one, other) if number is not None), default=None)
