"""Retry or give up: one table, and the bounds of every wait."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.catalogue import CallTypePolicy
from callgate.domain.provider import Billing, Failure
from callgate.domain.retry import WORKER_LOST, Dead, Retry, Tally, decide, paid_attempts_max

POLICY = CallTypePolicy(
    attempts_max=5,
    worker_losses_max=3,
    retry_wait_s=1.0,
    retry_wait_max_s=60.0,
    retry_after_max_s=600.0,
)
NO_UNKNOWN = POLICY.model_copy(update={"on_unknown": "dead"})
FIVE_UNKNOWN = POLICY.model_copy(update={"unknown_attempts_max": 5})
RATE_LIMITED = Failure("rate_limited", "slow down", True, Billing.UNBILLED, status=429)
BAD_REQUEST = Failure("bad_request", "no such field", False, Billing.UNBILLED, status=400)
REFUSED = Failure("connection_failed", "could not connect", True, Billing.UNBILLED)
TIMED_OUT = Failure("read_timeout", "no answer within 45 s", True, Billing.UNKNOWN)
CUT_OFF = Failure("output_invalid", "not JSON", True, Billing.BY_USAGE)


EMPTY = Failure("empty_reply", "the reply has no text", True, Billing.BY_USAGE)
KEY_REFUSED = Failure("authentication_failed", "who?", False, Billing.UNBILLED, status=401)


def tally(attempts: int = 1, **counts: Any) -> Tally:
    """What a call's attempts came to; nothing but attempts if not told otherwise."""
    return Tally(attempts, **{"worker_losses": 0, "unknown": 0, "paid_failures": 0, **counts})


@pytest.mark.parametrize(
    ("failure", "attempts", "policy", "decision"),
    [
        # Retried, with full jitter on a doubling wait.
        (RATE_LIMITED, tally(1), POLICY, Retry(0.5)),
        (RATE_LIMITED, tally(2), POLICY, Retry(1.0)),
        (RATE_LIMITED, tally(4), POLICY, Retry(4.0)),
        (CUT_OFF, tally(1, paid_failures=1), POLICY, Retry(0.5)),
        # What the provider asked for is a lower bound, and has an upper one.
        (replace(RATE_LIMITED, retry_after_s=7.0), tally(1), POLICY, Retry(7.0)),
        (replace(RATE_LIMITED, retry_after_s=0.1), tally(1), POLICY, Retry(0.5)),
        (replace(RATE_LIMITED, retry_after_s=9e9), tally(1), POLICY, Retry(600.0)),
        # The last attempt is the last one.
        (RATE_LIMITED, tally(5), POLICY, Dead("attempts_exhausted")),
        (RATE_LIMITED, tally(6), POLICY, Dead("attempts_exhausted")),
        # What can never work is not tried again.
        (BAD_REQUEST, tally(1), POLICY, Dead("not_retryable")),
        (BAD_REQUEST, tally(5, worker_losses=3), NO_UNKNOWN, Dead("not_retryable")),
        # Two unknown bills are the most a call may bring, with a long wait between them.
        (TIMED_OUT, tally(1, unknown=1), POLICY, Retry(37.5)),
        (TIMED_OUT, tally(2, unknown=2), POLICY, Dead("unknown_too_often")),
        (TIMED_OUT, tally(3, unknown=3), FIVE_UNKNOWN, Retry(150.0)),
        (TIMED_OUT, tally(1, unknown=1), NO_UNKNOWN, Dead("outcome_unknown")),
        (WORKER_LOST, tally(1, worker_losses=1), NO_UNKNOWN, Dead("outcome_unknown")),
        (RATE_LIMITED, tally(1), NO_UNKNOWN, Retry(0.5)),
        # A paid failure is repeated once.
        (EMPTY, tally(2, paid_failures=2), POLICY, Dead("paid_too_often")),
        (EMPTY, tally(3, paid_failures=1), POLICY, Retry(2.0)),
        # Lost workers have their own limit: a call that kills them is given up before its attempts are used up.
        (WORKER_LOST, tally(2, worker_losses=2), POLICY, Retry(1.0)),
        (WORKER_LOST, tally(3, worker_losses=3), POLICY, Dead("lost_too_often")),
        (WORKER_LOST, tally(5, worker_losses=3), POLICY, Dead("lost_too_often")),
        # A probe that cost nothing never ends its call; one that was paid, or may have been, counts.
        (REFUSED, tally(9, is_probe=True), POLICY, Retry(30.0)),
        (KEY_REFUSED, tally(9, is_probe=True), POLICY, Retry(30.0)),
        (KEY_REFUSED, tally(1), POLICY, Dead("not_retryable")),
        (BAD_REQUEST, tally(1, is_probe=True), POLICY, Dead("not_retryable")),
        (TIMED_OUT, tally(2, unknown=2, is_probe=True), POLICY, Dead("unknown_too_often")),
    ],
)
def test_the_table_of_decisions(
    failure: Failure, attempts: Tally, policy: CallTypePolicy, decision: Retry | Dead
) -> None:
    """Each row is a rule; the jitter is a half throughout."""
    key_refused = failure is KEY_REFUSED

    decided = decide(failure, attempts, policy=policy, jitter=0.5, key_refused=key_refused)

    assert decided == decision


@given(unknown=st.integers(1, 100), jitter=st.floats(0, 1, exclude_max=True))
def test_the_wait_after_an_unknown_outcome_has_bounds(unknown: int, jitter: float) -> None:
    """At least half a minute, at most an hour and a half."""
    policy = POLICY.model_copy(update={"unknown_attempts_max": 101, "attempts_max": 101})

    decision = decide(
        TIMED_OUT, tally(unknown, unknown=unknown), policy=policy, jitter=jitter, key_refused=False
    )

    assert isinstance(decision, Retry)
    assert 30.0 <= decision.in_s <= 5_400.0


SECONDS = st.floats(0.001, 3_600)
POLICIES = st.builds(
    CallTypePolicy,
    attempts_max=st.integers(1, 100),
    retry_wait_s=SECONDS,
    retry_wait_max_s=SECONDS,
    retry_after_max_s=SECONDS,
)
JITTERS = st.floats(0, 1, exclude_max=True)


@given(
    policy=POLICIES,
    attempt=st.integers(1, 100),
    jitter=JITTERS,
    retry_after_s=st.none() | st.floats(0, 1e9),
)
def test_every_wait_has_bounds(
    policy: CallTypePolicy, attempt: int, jitter: float, retry_after_s: float | None
) -> None:
    """Never negative, never above the policy's two limits, never below what the provider may ask for."""
    failure = replace(RATE_LIMITED, retry_after_s=retry_after_s)

    decision = decide(failure, tally(attempt), policy=policy, jitter=jitter, key_refused=False)

    if attempt >= policy.attempts_max:
        assert decision == Dead("attempts_exhausted")
        return
    assert isinstance(decision, Retry)
    asked_s = min(retry_after_s or 0.0, policy.retry_after_max_s)
    assert asked_s <= decision.in_s
    assert decision.in_s <= max(policy.retry_wait_max_s, policy.retry_after_max_s)
    assert decision.in_s <= max(asked_s, policy.retry_wait_s * 2.0 ** (attempt - 1))


@given(policy=POLICIES, attempt=st.integers(1, 99), low=JITTERS, high=JITTERS)
def test_the_jitter_spreads_the_whole_wait(
    policy: CallTypePolicy, attempt: int, low: float, high: float
) -> None:
    """From zero up: callers that failed together do not come back together."""
    patient = policy.model_copy(update={"attempts_max": 100})
    low, high = sorted((low, high))

    waits = [
        decide(RATE_LIMITED, tally(attempt), policy=patient, jitter=jitter, key_refused=False)
        for jitter in (0.0, low, high)
    ]

    assert waits[0] == Retry(0.0)
    assert all(isinstance(wait, Retry) for wait in waits)
    assert [w.in_s for w in waits if isinstance(w, Retry)] == sorted(
        w.in_s for w in waits if isinstance(w, Retry)
    )


# Failures as values.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Limit 300000, used 299873", "Limit 300000, used 12"),
        ("request req_1f2e3d4c5b6a failed", "request req_99aabbccddee failed"),
        ("model 'gpt-4o' not found", "model 'o9' not found"),
        ('field "temperature" is bad', 'field "top_p" is bad'),
        ("try again in 20s", "try again in 1s"),
    ],
)
def test_numbers_ids_and_quoted_text_do_not_tell_failures_apart(one: str, other: str) -> None:
    """Dead letters of one cause fall into one group."""
    first, second = replace(RATE_LIMITED, message=one), replace(RATE_LIMITED, message=other)

    assert first.fingerprint("openai") == second.fingerprint("openai")


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "server_error"},
        {"message": "quota used up"},
        {"status": 500},
        {"status": None},
        {"provider_code": "insufficient_quota"},
    ],
    ids=str,
)
def test_different_causes_have_different_fingerprints(changes: dict[str, Any]) -> None:
    """Code, status, the provider's own code and the words of the message count; so does the provider."""
    other = replace(RATE_LIMITED, **changes)

    assert other.fingerprint("openai") != RATE_LIMITED.fingerprint("openai")
    assert RATE_LIMITED.fingerprint("azure") != RATE_LIMITED.fingerprint("openai")


@pytest.mark.parametrize(
    "changes",
    [{"retry_after_s": 7.0}, {"retryable": False}, {"billing": Billing.UNKNOWN}],
    ids=str,
)
def test_what_is_done_about_a_failure_is_no_part_of_its_fingerprint(
    changes: dict[str, Any],
) -> None:
    """The cause is the same."""
    other = replace(RATE_LIMITED, **changes)

    assert other.fingerprint("openai") == RATE_LIMITED.fingerprint("openai")


def test_a_fingerprint_is_short_and_stable() -> None:
    """Sixteen hexadecimal digits, the same in every process: it is stored and filtered by."""
    assert WORKER_LOST.fingerprint("openai") == "f2be8e6d95b94546"


@pytest.mark.parametrize("failure", [RATE_LIMITED, BAD_REQUEST, TIMED_OUT, CUT_OFF, WORKER_LOST])
def test_a_failure_is_stored_and_read_back(failure: Failure) -> None:
    """As JSON, without losing anything."""
    full = replace(failure, provider_code="x", retry_after_s=1.5)

    assert Failure.from_json(failure.to_json()) == failure
    assert Failure.from_json(full.to_json()) == full


def test_a_stored_message_is_bounded() -> None:
    """Providers may answer with pages of text; rows may not."""
    failure = replace(RATE_LIMITED, message="x" * 10_000)

    stored = json.loads(failure.to_json())

    assert stored["message"] == "x" * 500
    assert failure.fingerprint("openai") == Failure.from_json(failure.to_json()).fingerprint(
        "openai"
    )


@given(
    st.lists(st.sampled_from([RATE_LIMITED, TIMED_OUT, WORKER_LOST, EMPTY]), max_size=40),
    st.builds(
        CallTypePolicy,
        attempts_max=st.integers(1, 12),
        worker_losses_max=st.integers(1, 4),
        unknown_attempts_max=st.integers(1, 4),
        paid_failures_max=st.integers(1, 4),
        on_unknown=st.sampled_from(["retry", "dead"]),
    ),
)
def test_no_call_has_more_paid_attempts_than_an_estimate_says(
    failures: list[Failure], policy: CallTypePolicy
) -> None:
    """Whatever fails, and if the next attempt succeeds after all."""
    count, paid = tally(0), 0
    for failure in failures:
        is_lost, is_unknown = failure is WORKER_LOST, failure is TIMED_OUT
        count = Tally(
            count.attempts + 1,
            count.worker_losses + is_lost,
            count.unknown + is_unknown,
            count.paid_failures + (failure is EMPTY),
        )
        paid += failure is not RATE_LIMITED
        decision = decide(failure, count, policy=policy, jitter=0.5, key_refused=False)
        if isinstance(decision, Dead):
            assert paid <= paid_attempts_max(policy)
            return
        assert paid + 1 <= paid_attempts_max(policy)
