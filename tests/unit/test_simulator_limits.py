"""The simulator's rate limits, compared with a model that adds up the whole past for each request."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devkit.simulator.limits import (
    Arrival,
    Decision,
    ProviderLimits,
    RateLimiter,
    cost_of,
    duration,
)

WINDOW_S = 60.0
TICK_S = 1 / 64
"""Sums and differences of times are exact."""

AMOUNTS = st.one_of(st.none(), st.integers(1, 40))
LIMITS = st.builds(
    ProviderLimits,
    requests=st.one_of(st.none(), st.integers(1, 6)),
    input_tokens=AMOUNTS,
    output_tokens=AMOUNTS,
    tokens=AMOUNTS,
    window_s=st.just(WINDOW_S),
    refusals_count=st.booleans(),
)
REQUESTS = st.lists(
    st.tuples(st.integers(0, int(40 / TICK_S)), st.integers(0, 15), st.integers(0, 15)), max_size=40
)


@dataclass(frozen=True)
class Sent:
    """One request and what was decided."""

    at_s: float
    amounts: dict[str, int]
    is_accepted: bool


def amounts_of(input_tokens: int, output_tokens: int) -> dict[str, int]:
    """Return what a request takes of each limit."""
    return {
        "requests": 1,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "tokens": input_tokens + output_tokens,
    }


def fits(amounts: dict[str, int], past: list[Sent], limits: ProviderLimits, now_s: float) -> bool:
    """Whether the past window has room for a request: the model."""
    for measure, amount in amounts.items():
        limit = getattr(limits, measure)
        counted = [
            sent.amounts[measure]
            for sent in past
            if now_s - WINDOW_S < sent.at_s and (sent.is_accepted or limits.refusals_count)
        ]
        if limit is not None and amount and sum(counted) + amount > limit:
            return False
    return True


def run(limits: ProviderLimits, requests: list[tuple[int, int, int]]) -> list[Sent]:
    """Send requests, each so many ticks after the one before."""
    limiter, now_s, past = RateLimiter(limits), 0.0, list[Sent]()
    for ticks, input_tokens, output_tokens in requests:
        now_s += ticks * TICK_S
        decision = limiter.arrived("key", "m", cost_of(input_tokens, output_tokens), now_s)
        past.append(Sent(now_s, amounts_of(input_tokens, output_tokens), decision.refusal is None))
    return past


def one(limiter: RateLimiter, now_s: float = 0.0, key: str = "key", model: str = "m") -> Decision:
    """Send a request of 10 input tokens and 5 output tokens."""
    return limiter.arrived(key, model, cost_of(10, 5), now_s)


@given(LIMITS, REQUESTS)
def test_no_window_has_more_than_the_limit(
    limits: ProviderLimits, requests: list[tuple[int, int, int]]
) -> None:
    """Wherever a window begins: a fullest one ends with a request."""
    past = run(limits, requests)
    for end in past:
        inside = [
            sent
            for sent in past
            if sent.is_accepted and end.at_s - WINDOW_S < sent.at_s <= end.at_s
        ]
        for measure in ("requests", "input_tokens", "output_tokens", "tokens"):
            limit = getattr(limits, measure)
            assert limit is None or sum(sent.amounts[measure] for sent in inside) <= limit


@given(LIMITS, REQUESTS)
def test_a_request_is_accepted_if_and_only_if_it_fits(
    limits: ProviderLimits, requests: list[tuple[int, int, int]]
) -> None:
    past = run(limits, requests)
    for number, sent in enumerate(past):
        assert sent.is_accepted == fits(sent.amounts, past[:number], limits, sent.at_s)


@given(LIMITS, REQUESTS)
def test_a_refused_request_fits_after_its_wait_and_not_before(
    limits: ProviderLimits, requests: list[tuple[int, int, int]]
) -> None:
    """Unless it is larger than a limit: then no wait is named."""
    limiter, now_s, past = RateLimiter(limits), 0.0, list[Sent]()
    for ticks, input_tokens, output_tokens in requests:
        now_s += ticks * TICK_S
        amounts = amounts_of(input_tokens, output_tokens)
        refusal = limiter.arrived("key", "m", cost_of(input_tokens, output_tokens), now_s).refusal
        past.append(Sent(now_s, amounts, refusal is None))
        if refusal is None:
            continue
        if refusal.wait_s is None:
            assert not fits(amounts, [], limits, now_s)
        else:
            assert not fits(amounts, past, limits, now_s + refusal.wait_s - TICK_S)
            assert fits(amounts, past, limits, now_s + refusal.wait_s)


def test_what_is_as_old_as_the_window_no_longer_counts() -> None:
    limiter = RateLimiter(ProviderLimits(requests=1))
    one(limiter, 0.0)

    assert one(limiter, 59.99).refusal is not None
    assert one(limiter, 60.0).refusal is None


def test_a_refusal_has_openais_error_and_a_wait_in_whole_seconds() -> None:
    limiter = RateLimiter(ProviderLimits(requests=1))
    one(limiter, 0.0)

    refused = one(limiter, 0.5)

    assert refused.refusal is not None
    error = refused.refusal.error("m")
    assert (error.type, error.code) == ("requests", "rate_limit_exceeded")
    assert refused.headers["Retry-After"] == "60"


@pytest.mark.parametrize("measure", ["input_tokens", "output_tokens", "tokens"])
def test_a_refusal_for_tokens_says_so(measure: str) -> None:
    limiter = RateLimiter(ProviderLimits(**{measure: 16}))
    decisions = [one(limiter) for _ in range(5)]

    (refusal, *_) = [decision.refusal for decision in decisions if decision.refusal]
    assert (refusal.measure, refusal.error("m").type) == (measure, "tokens")


def test_a_request_larger_than_a_limit_gets_no_retry_after() -> None:
    refused = one(RateLimiter(ProviderLimits(tokens=14)))

    assert refused.refusal is not None
    assert "Retry-After" not in refused.headers


def test_retry_after_can_be_left_out() -> None:
    limiter = RateLimiter(ProviderLimits(requests=1, sends_retry_after=False))
    one(limiter)

    assert "Retry-After" not in one(limiter).headers


def test_refusals_count_only_if_asked() -> None:
    """A client that repeats a refused request too early then never gets through."""
    kind = RateLimiter(ProviderLimits(requests=1))
    strict = RateLimiter(ProviderLimits(requests=1, refusals_count=True))
    for limiter in (kind, strict):
        for now_s in (0.0, 30.0):
            one(limiter, now_s)

    assert one(kind, 60.0).refusal is None
    assert one(strict, 60.0).refusal is not None


def test_headers_say_what_is_left_and_when_all_is_left_again() -> None:
    limiter = RateLimiter(ProviderLimits(requests=3, tokens=40))
    one(limiter, 0.0)

    assert dict(one(limiter, 6.5).headers) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "40",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "1m0s",
    }
    refused = one(limiter, 10.0)
    assert refused.headers["x-ratelimit-reset-tokens"] == "56.5s"
    assert refused.headers["Retry-After"] == "50"


def test_headers_can_be_left_out() -> None:
    limiter = RateLimiter(ProviderLimits(requests=1, sends_headers=False))

    assert one(limiter).headers == {}
    assert list(one(limiter).headers) == ["Retry-After"]


def test_concurrency_counts_requests_without_a_complete_answer() -> None:
    limiter = RateLimiter(ProviderLimits(concurrency=2))
    decisions = [one(limiter) for _ in range(3)]

    assert [decision.refusal is None for decision in decisions] == [True, True, False]
    assert decisions[2].headers == {"Retry-After": "1"}
    limiter.finished("key", "m")
    assert one(limiter).refusal is None


def test_each_key_and_model_has_its_own_limits() -> None:
    limiter = RateLimiter(ProviderLimits(requests=1))
    one(limiter)

    assert one(limiter, key="other").refusal is None
    assert one(limiter, model="other").refusal is None
    assert one(limiter).refusal is not None


def test_a_lower_limit_counts_what_was_accepted_before() -> None:
    limiter = RateLimiter(ProviderLimits(requests=10))
    for _ in range(3):
        one(limiter)

    limiter.limits = ProviderLimits(requests=3)

    assert one(limiter, 1.0).refusal is not None
    limiter.limits = ProviderLimits(requests=4)
    assert one(limiter, 2.0).refusal is None


def test_every_arrival_is_kept_with_its_decision() -> None:
    limiter = RateLimiter(ProviderLimits(requests=1))
    one(limiter, 1.0)
    one(limiter, 2.0)

    arrivals = [Arrival(1.0, True, 10, 5), Arrival(2.0, False, 10, 5)]
    assert limiter.arrivals(0, 10) == arrivals
    assert limiter.arrivals(1, 10) == arrivals[1:]
    counts = limiter.counts()
    assert (counts.accepted, counts.refused, counts.in_flight) == (1, 1, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.12, "120ms"),
        (0.0001, "1ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86_399.5, "23h59m59.5s"),
    ],
)
def test_durations_are_written_like_openais(seconds: float, text: str) -> None:
    assert duration(seconds) == text
