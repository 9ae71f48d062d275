"""What is stored of a reply and of a failure: an earlier version must be able to read it."""

from __future__ import annotations

from dataclasses import replace

from callgate.domain.limits import MINUTE_S, LearnedLimit, Measure
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import Usage

LIMITS = (LearnedLimit(Measure.REQUESTS, MINUTE_S, 60, 59),)
FAILURE = Failure("rate_limited", "slow down", True, Billing.UNBILLED, 429, None, 7.5)
REPLY = ProviderReply(
    texts=("yes",),
    finish_reason="stop",
    refusal=None,
    usage=Usage(input_tokens=10, output_tokens=5),
    service_tier=None,
    model="sim-1",
    provider_request_id="req-1",
)
STORED_FAILURE = (
    '{"code": "rate_limited", "message": "slow down", "retryable": true, "billing": "unbilled",'
    ' "status": 429, "provider_code": null, "retry_after_s": 7.5}'
)
STORED_REPLY = (
    b'{"texts": ["yes"], "finish_reason": "stop", "refusal": null, "usage": {"input_tokens": 10,'
    b' "cached_input_tokens": 0, "cache_write_tokens": 0, "output_tokens": 5, "reasoning_tokens": 0},'
    b' "service_tier": null, "model": "sim-1", "provider_request_id": "req-1"}'
)
"""As the version before limits were read stored them."""


def test_a_failure_is_stored_without_its_limits() -> None:
    assert FAILURE.to_json() == STORED_FAILURE
    assert replace(FAILURE, limits=LIMITS).to_json() == STORED_FAILURE
    assert Failure.from_json(STORED_FAILURE) == FAILURE


def test_an_hour_in_the_cache_is_stored_only_where_there_is_one() -> None:
    """A worker of 0.1.0 does not know the field, and would call the reply unreadable."""
    usage = Usage(input_tokens=10, cache_write_tokens=8, output_tokens=5, cache_write_1h_tokens=3)
    kept = replace(REPLY, usage=usage)

    assert b"cache_write_1h" not in REPLY.to_json()
    assert ProviderReply.from_json(kept.to_json()) == kept


def test_a_reply_is_stored_without_its_limits() -> None:
    failed = replace(REPLY, limits=LIMITS, failure=replace(FAILURE, limits=LIMITS))

    assert REPLY.to_json() == STORED_REPLY
    assert failed.to_json() == STORED_REPLY
    assert ProviderReply.from_json(STORED_REPLY) == REPLY
