"""How long a server asks to wait: headers of an answer, and a field that some providers put into the body."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz

RETRY_AFTER_MAX_S = 86_400.0
"""A longer or infinite wait is cut to this."""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """
    Read `retry-after-ms` or `retry-after` (seconds or a date).

    A date is compared with the response's own `date` header, never with the local clock.

    Returns:
        Seconds, above 0 and at most `RETRY_AFTER_MAX_S`; None if the headers do not ask for a wait.

    Source: RFC 9110, 10.2.3; `retry-after-ms` is OpenAI's.
    """
    for name, per_s in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if (number := _number(headers.get(name))) is not None:
            return bounded_s(number / per_s)
    until, now = epoch_s(headers.get("retry-after")), epoch_s(headers.get("date"))
    return None if until is None or now is None else bounded_s(until - now)


def retry_after_in_body_s(error: Mapping[str, object]) -> float | None:
    """Read the seconds in an error's own `retry_after` field; bounds as in `retry_after_s`."""
    value = error.get("retry_after")
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    number = _number(str(value)) if is_number else None
    return None if number is None else bounded_s(number)


def bounded_s(seconds: float) -> float | None:
    """Cut to `RETRY_AFTER_MAX_S`; None if the wait is not above 0."""
    return min(seconds, RETRY_AFTER_MAX_S) if seconds > 0 else None


def _number(text: str | None) -> float | None:
    """A number in text, infinite ones included; None for NaN and other text."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(number) else number


def epoch_s(text: str | None) -> float | None:
    """An HTTP date as seconds since 1970; None if it is not a date."""
    try:
        fields = parsedate_tz(text or "")
        return None if fields is None else float(mktime_tz(fields))
    except (ValueError, OverflowError):
        return None
