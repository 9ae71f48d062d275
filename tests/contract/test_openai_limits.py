"""The OpenAI adapter hands on what a response's headers say about the account's limits."""

from __future__ import annotations

from typing import Any

import pytest

from callgate.domain.limits import DAY_S, MINUTE_S, LearnedLimit, Measure
from callgate.domain.provider import Failure, ProviderReply
from tests.support.openai_attempts import attempt
from tests.support.provider_worlds import chat, sends_json

LIMITS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "6m0s",
}
LEARNED = (
    LearnedLimit(Measure.REQUESTS, MINUTE_S, 60, 0),
    LearnedLimit(Measure.TOKENS, MINUTE_S, 150_000, 0),
)


pytestmark = pytest.mark.usefixtures("no_proxies")


def failure_of(
    body: object, *, status: int = 429, headers: dict[str, str] = LIMITS, **entry: Any
) -> Failure:
    """The failure of one attempt."""
    answer = attempt(sends_json(body, status=status, headers=headers), **entry).answer
    assert isinstance(answer, Failure)
    return answer


def test_a_success_has_the_limits() -> None:
    answer = attempt(sends_json(chat(), headers=LIMITS)).answer

    assert isinstance(answer, ProviderReply)
    assert answer.limits == LEARNED


@pytest.mark.parametrize("status", [400, 401, 429, 503])
def test_a_refusal_has_the_limits(status: int) -> None:
    assert failure_of({}, status=status).limits == LEARNED


def test_an_unreadable_reply_has_the_limits() -> None:
    assert failure_of([], status=200).limits == LEARNED


def test_the_catalogue_says_whose_headers_they_are() -> None:
    assert failure_of({}, rate_limit_headers="none").limits == ()
    assert failure_of({}, rate_limit_headers="groq").limits == (
        LearnedLimit(Measure.REQUESTS, DAY_S, 60, 0),
        LEARNED[1],
    )


def test_a_429_without_retry_after_waits_until_all_is_available_again() -> None:
    failure = failure_of({})

    assert (failure.code, failure.retry_after_s) == ("rate_limited", 360.0)


@pytest.mark.parametrize(
    ("body", "headers"),
    [({}, {"retry-after": "7"}), ({"error": {"message": "slow down", "retry_after": 7}}, {})],
    ids=["header", "body"],
)
def test_a_wait_that_the_provider_asks_for_counts_first(
    body: object, headers: dict[str, str]
) -> None:
    assert failure_of(body, headers=LIMITS | headers).retry_after_s == 7.0


def test_only_a_429_waits_for_a_reset() -> None:
    """Another refusal has another reason."""
    assert failure_of({}, status=503).retry_after_s is None


def test_a_429_in_a_200_waits_for_a_reset() -> None:
    failure = failure_of({"error": {"code": 429, "message": "slow down"}}, status=200)

    assert (failure.limits, failure.retry_after_s) == (LEARNED, 360.0)
