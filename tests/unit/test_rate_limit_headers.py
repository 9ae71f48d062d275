"""Which limits a provider's headers name, and when what is exhausted is available again."""

from __future__ import annotations

import math
from typing import get_args

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.adapters.providers.http.rate_limit_headers import (
    AMOUNT_MAX,
    DIALECTS,
    VALUE_CHARS_MAX,
    duration_s,
    learned_limits,
    reset_s,
)
from callgate.domain.catalogue import HeaderDialect
from callgate.domain.limits import DAY_S, MINUTE_S, LearnedLimit, Measure
from callgate.domain.retry_after import RETRY_AFTER_MAX_S

OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}
"""OpenAI, guide to rate limits, "Rate limits in headers" (2026-06-26)."""
GROQ = {
    "x-ratelimit-limit-requests": "14400",
    "x-ratelimit-limit-tokens": "18000",
    "x-ratelimit-remaining-requests": "14370",
    "x-ratelimit-remaining-tokens": "17997",
    "x-ratelimit-reset-requests": "2m59.56s",
    "x-ratelimit-reset-tokens": "7.66s",
}
"""Groq, rate limits, "Rate Limit Headers" (2026-11-29)."""
ANTHROPIC = {
    "date": "Thu, 21 Aug 2025 12:40:29 GMT",
    "anthropic-ratelimit-requests-limit": "1000",
    "anthropic-ratelimit-requests-remaining": "999",
    "anthropic-ratelimit-requests-reset": "2025-08-21T12:40:59Z",
    "anthropic-ratelimit-input-tokens-limit": "80000",
    "anthropic-ratelimit-input-tokens-remaining": "80000",
    "anthropic-ratelimit-input-tokens-reset": "2025-08-21T12:40:59Z",
    "anthropic-ratelimit-output-tokens-limit": "16000",
    "anthropic-ratelimit-output-tokens-remaining": "16000",
    "anthropic-ratelimit-output-tokens-reset": "2025-08-21T12:41:00Z",
    "anthropic-ratelimit-tokens-limit": "96000",
    "anthropic-ratelimit-tokens-remaining": "96000",
    "anthropic-ratelimit-tokens-reset": "2025-08-21T12:40:59Z",
}
"""A recorded response in the tests of the R package tidyllm; its date is thirty seconds earlier here."""
AZURE = {
    "x-ratelimit-limit-requests": "5",
    "x-ratelimit-limit-tokens": "5000",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-renewalperiod-requests": "60",
    "x-ratelimit-reset-requests": "12",
    "x-ratelimit-reset-tokens": "0",
}
"""The form of a recorded 429."""
NAMES = {
    name: sorted({h for line in dialect.lines for h in (line.limit, line.remaining, line.reset)})
    for name, dialect in DIALECTS.items()
}


def limit(
    measure: Measure, amount: int, remaining: int | None = None, window_s: float = MINUTE_S
) -> LearnedLimit:
    """A limit per minute, if nothing else is said."""
    return LearnedLimit(measure, window_s, amount, remaining)


def test_every_dialect_of_the_catalogue_has_a_table_with_sources() -> None:
    assert set(DIALECTS) == set(get_args(HeaderDialect))
    assert all(line.source.startswith("https://") for d in DIALECTS.values() for line in d.lines)


@pytest.mark.parametrize(
    ("dialect", "headers", "expected"),
    [
        (
            "openai",
            OPENAI,
            (limit(Measure.REQUESTS, 60, 59), limit(Measure.TOKENS, 150_000, 149_984)),
        ),
        (
            "groq",
            GROQ,
            (limit(Measure.REQUESTS, 14_400, 14_370, DAY_S), limit(Measure.TOKENS, 18_000, 17_997)),
        ),
        (
            "anthropic",
            ANTHROPIC,
            (
                limit(Measure.REQUESTS, 1_000, 999),
                limit(Measure.INPUT_TOKENS, 80_000, 80_000),
                limit(Measure.OUTPUT_TOKENS, 16_000, 16_000),
                limit(Measure.TOKENS, 96_000, 96_000),
            ),
        ),
        ("azure", AZURE, (limit(Measure.REQUESTS, 5, 0), limit(Measure.TOKENS, 5_000, 0))),
        ("none", OPENAI | ANTHROPIC, ()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_published_examples_are_read(
    dialect: HeaderDialect, headers: dict[str, str], expected: tuple[LearnedLimit, ...]
) -> None:
    assert learned_limits(headers, dialect) == expected


def test_a_projects_limit_counts_if_it_is_lower() -> None:
    project = {
        "x-ratelimit-limit-project-tokens": "1000",
        "x-ratelimit-remaining-project-tokens": "990",
    }

    assert limit(Measure.TOKENS, 1_000, 990) in learned_limits(OPENAI | project, "openai")


@pytest.mark.parametrize(("tokens", "project"), [("8", "7"), ("7", "8")])
def test_the_lower_remaining_amount_of_two_limits_counts(tokens: str, project: str) -> None:
    headers = OPENAI | {
        "x-ratelimit-remaining-tokens": tokens,
        "x-ratelimit-limit-project-tokens": "900000",
        "x-ratelimit-remaining-project-tokens": project,
    }

    assert limit(Measure.TOKENS, 150_000, 7) in learned_limits(headers, "openai")


@pytest.mark.parametrize(
    ("amount", "remaining", "expected"),
    [
        ("60", None, limit(Measure.REQUESTS, 60)),
        ("60", "soon", limit(Measure.REQUESTS, 60)),
        ("60", "-1", limit(Measure.REQUESTS, 60)),
        ("60.9", "0.5", limit(Measure.REQUESTS, 60, 0)),
        ("60", "61", limit(Measure.REQUESTS, 60, 60)),
        ("70, 60", "5, 9", limit(Measure.REQUESTS, 60, 5)),
        ("0, 60, -1", "-1, 9", limit(Measure.REQUESTS, 60, 9)),
        (str(AMOUNT_MAX), "0", limit(Measure.REQUESTS, AMOUNT_MAX, 0)),
        *(
            (text, "5", None)
            for text in (
                *("", "0", "-1", "nan", "inf", "1e3", "+5", "0x10", "6 0", "٦", "30,000", "sixty"),
                *(str(AMOUNT_MAX + 1), "9" * 400, f"60{' ' * VALUE_CHARS_MAX}"),
            )
        ),
    ],
)
def test_each_number_is_read_on_its_own(
    amount: str, remaining: str | None, expected: LearnedLimit | None
) -> None:
    """Half a number, as in 30,000, would be a limit that nobody set."""
    headers = {"x-ratelimit-limit-requests": amount}
    if remaining is not None:
        headers["x-ratelimit-remaining-requests"] = remaining

    assert learned_limits(headers, "openai") == (() if expected is None else (expected,))


def test_the_lower_value_of_a_header_that_was_sent_twice_counts() -> None:
    """As httpx gives it; header names have no case."""
    headers = httpx2.Headers(
        [("X-RateLimit-Limit-Requests", "70"), ("x-ratelimit-limit-requests", "60")]
    )

    assert learned_limits(headers, "openai") == (limit(Measure.REQUESTS, 60),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("12ms", 0.012),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3_723.0),
        ("1d", 86_400.0),
        ("5µs", 5e-6),
        ("", None),
        ("5", None),
        ("-5s", None),
        ("s", None),
        ("5s later", None),
        ("inf s", None),
    ],
)
def test_a_duration_is_read(text: str, expected: float | None) -> None:
    assert duration_s(text, None) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("dialect", "headers", "changes", "expected"),
    [
        ("openai", OPENAI, {}, None),
        ("openai", OPENAI, {"x-ratelimit-remaining-requests": "0"}, 1.0),
        (
            "openai",
            OPENAI,
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "0"},
            360.0,
        ),
        ("groq", GROQ, {"x-ratelimit-remaining-tokens": "0"}, 7.66),
        ("anthropic", ANTHROPIC, {"anthropic-ratelimit-output-tokens-remaining": "0"}, 31.0),
        ("azure", AZURE, {}, 12.0),
        ("none", AZURE, {}, None),
    ],
)
def test_the_longest_reset_of_what_is_exhausted_counts(
    dialect: HeaderDialect, headers: dict[str, str], changes: dict[str, str], expected: float | None
) -> None:
    assert reset_s(headers | changes, dialect) == expected


@pytest.mark.parametrize(
    ("reset", "date", "expected"),
    [
        ("2025-08-21T12:40:59Z", "Thu, 21 Aug 2025 12:40:29 GMT", 30.0),
        ("2025-08-21T14:40:59+02:00", "Thu, 21 Aug 2025 12:40:29 GMT", 30.0),
        ("2025-08-21T12:40:28Z", "Thu, 21 Aug 2025 12:40:29 GMT", None),
        ("2025-08-21T12:40:59", "Thu, 21 Aug 2025 12:40:29 GMT", None),
        ("2025-08-21T12:40:59Z", None, None),
        ("2025-08-21T12:40:59Z", "today", None),
        ("9999-12-31T23:59:59Z", "Thu, 21 Aug 2025 12:40:29 GMT", RETRY_AFTER_MAX_S),
        ("9999-12-31T23:59:59-23:59", "Thu, 21 Aug 2025 12:40:29 GMT", RETRY_AFTER_MAX_S),
        ("30", "Thu, 21 Aug 2025 12:40:29 GMT", None),
    ],
)
def test_a_time_is_compared_with_the_response_s_own_date(
    reset: str, date: str | None, expected: float | None
) -> None:
    """Never with the local clock, and the wait is never negative."""
    headers = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": reset,
    } | ({} if date is None else {"date": date})

    assert reset_s(headers, "anthropic") == expected


VALUES = st.one_of(
    st.text(max_size=140),
    st.integers(-(10**14), 10**14).map(str),
    st.floats().map(str),
    st.lists(st.integers(-5, 10**13).map(str), max_size=4).map(", ".join),
    st.datetimes(timezones=st.just(None) | st.timezones()).map(lambda time: time.isoformat()),
    st.from_regex(r"\A([0-9]{1,12}(\.[0-9]{1,3})?(d|h|m|s|ms)){1,4}\Z"),
)


@given(st.data(), st.sampled_from(sorted(DIALECTS)))
def test_any_headers_give_limits_within_bounds(data: st.DataObject, dialect: HeaderDialect) -> None:
    names = [*NAMES[dialect], "date"]
    headers = data.draw(st.dictionaries(st.sampled_from(names), VALUES))

    limits, wait_s = learned_limits(headers, dialect), reset_s(headers, dialect)

    for found in limits:
        assert type(found.amount) is int
        assert 1 <= found.amount <= AMOUNT_MAX
        assert found.remaining is None or 0 <= found.remaining <= found.amount
        assert found.window_s in (MINUTE_S, DAY_S)
    assert len({(found.measure, found.window_s) for found in limits}) == len(limits)
    assert wait_s is None or (math.isfinite(wait_s) and 0 < wait_s <= RETRY_AFTER_MAX_S)


@given(st.integers(1, AMOUNT_MAX), st.integers(0, AMOUNT_MAX), VALUES)
def test_one_bad_value_hides_no_other(amount: int, remaining: int, bad: str) -> None:
    headers = {
        "x-ratelimit-limit-requests": str(amount),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-limit-tokens": bad,
        "x-ratelimit-remaining-tokens": bad,
    }

    found = learned_limits(headers, "openai")

    assert found[0] == limit(Measure.REQUESTS, amount, min(amount, remaining))
