"""What happens to a call after an attempt that did not succeed: a pure decision, with the jitter passed in."""

from __future__ import annotations

from dataclasses import dataclass

from callgate.domain.catalogue import CallTypePolicy
from callgate.domain.provider import Billing, Failure

WAIT_MAX_S = 3_600.0
"""The longest wait between two attempts whose outcomes are unknown, before its jitter."""


WORKER_LOST = Failure(
    "worker_lost", "the worker vanished before it recorded an outcome", True, Billing.UNKNOWN
)
"""An attempt that expired while it was dispatched."""
DEADLINE_BEFORE_SEND = Failure(
    "deadline_before_send",
    "the deadline passed before the request was sent",
    True,
    Billing.UNBILLED,
)
LEASE_BEFORE_SEND = Failure(
    "lease_before_send",
    "the process's lease may have run out before the request was sent",
    True,
    Billing.UNBILLED,
)
SUPERSEDED_BEFORE_SEND = Failure(
    "superseded_before_send",
    "a late answer ended the call before the request was sent",
    True,
    Billing.UNBILLED,
)
NEVER_SENT_CODES = frozenset(
    f.code for f in (WORKER_LOST, DEADLINE_BEFORE_SEND, LEASE_BEFORE_SEND, SUPERSEDED_BEFORE_SEND)
)
"""Failures in callgate itself: they say nothing about the provider."""


INVALID_OUTPUT = "invalid_output"
"""The code of an answer that breaks its schema."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again `in_s` seconds from now, as a new attempt with a hold of its own."""

    in_s: float


@dataclass(frozen=True, slots=True)
class Dead:
    """Stop trying; `why` is kept with the last failure."""

    why: str


@dataclass(frozen=True, slots=True)
class Tally:
    """The attempts of one generation by result, with the one that has just failed."""

    attempts: int
    """Attempts begun, without free probes and refusals for the provider's rate."""
    worker_losses: int
    """Attempts whose worker vanished."""
    unknown: int
    """Attempts with an unknown bill, without worker losses."""
    paid_failures: int
    """Attempts that were answered and paid, and brought no result."""
    is_probe: bool = False
    """Whether the last one was a breaker's probe."""


def decide(
    failure: Failure,
    tally: Tally,
    *,
    policy: CallTypePolicy,
    jitter: float,
    key_refused: bool,
    is_limited: bool = False,
) -> Retry | Dead:
    """
    Retry or give up.

    Retries wait `jitter x min(retry_wait_max_s, retry_wait_s x 2^(attempts - 1))` seconds (full jitter). After an
    unknown outcome they wait `unknown_wait_s x 2^(unknown - 1)` seconds and up to half as long again, so that a short
    outage does not use up the few such attempts a call has. Never less than what the provider asked for, which
    itself is capped at `retry_after_max_s`.

    A probe whose failure cost nothing never ends its call: the breaker lets it wait, at most `wait_max_s`. So does an
    attempt that the provider refused for its rate: the call waits until its key is unblocked.

    Args:
        jitter: A random number in [0, 1).
        key_refused: Whether the provider refused the credential; see `breaker.health_of`.
        is_limited: Whether it refused the attempt for its rate.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015), full jitter.
    """
    if is_limited:
        return Retry(policy.wait_max_s)
    is_free_probe = tally.is_probe and failure.billing is Billing.UNBILLED
    if is_free_probe and (failure.retryable or key_refused):
        return Retry(_wait_s(failure, tally, policy, jitter))
    why = _why_dead(failure, tally, policy)
    return Dead(why) if why else Retry(_wait_s(failure, tally, policy, jitter))


def why_no_repair(
    failure: Failure,
    *,
    repairs: int,
    answers: int,
    policy: CallTypePolicy,
    is_too_large: bool = False,
) -> str | None:
    """
    Say why the next attempt repairs no answer but asks the same again; None if it is a repair.

    Whether there is a next attempt at all is for `decide`: a repair counts like any other.

    Args:
        failure: Of the newest failed attempt with a reply.
        repairs: Repairs that were answered, or may have been.
        answers: How many answers the call asks for. Of several it would not be clear which one to correct.
        is_too_large: The longer request breaks a gate.
    """
    limits = (
        (failure.code != INVALID_OUTPUT, "other_failure"),
        (repairs >= policy.repairs_max, "repairs_used_up"),
        (answers > 1, "several_answers"),
        (is_too_large, "too_large"),
    )
    return next((why for applies, why in limits if applies), None)


def paid_attempts_max(policy: CallTypePolicy) -> int:
    """The most attempts of one generation that may be paid: the reasons of `_why_dead` end it before there are more."""
    paid, unknown, lost = (
        policy.paid_failures_max,
        policy.unknown_attempts_max,
        policy.worker_losses_max,
    )
    if policy.on_unknown == "dead":
        unknown = lost = 1
    return min(policy.attempts_max, paid + unknown + lost - 2)


def _why_dead(failure: Failure, tally: Tally, policy: CallTypePolicy) -> str | None:
    is_unknown = failure.billing is Billing.UNKNOWN
    limits = (
        (not failure.retryable, "not_retryable"),
        (is_unknown and policy.on_unknown == "dead", "outcome_unknown"),
        (tally.worker_losses >= policy.worker_losses_max, "lost_too_often"),
        (tally.unknown >= policy.unknown_attempts_max, "unknown_too_often"),
        (tally.paid_failures >= policy.paid_failures_max, "paid_too_often"),
        (tally.attempts >= policy.attempts_max, "attempts_exhausted"),
    )
    return next((why for applies, why in limits if applies), None)


def _wait_s(failure: Failure, tally: Tally, policy: CallTypePolicy, jitter: float) -> float:
    asked_s = min(failure.retry_after_s or 0.0, policy.retry_after_max_s)
    if failure.billing is Billing.UNKNOWN and failure.code != WORKER_LOST.code:
        unknown_s = policy.unknown_wait_s * 2.0 ** (tally.unknown - 1)
        return max(min(unknown_s, WAIT_MAX_S) * (1 + jitter / 2), asked_s)
    longest_s = min(policy.retry_wait_max_s, policy.retry_wait_s * 2.0 ** (tally.attempts - 1))
    return max(jitter * longest_s, asked_s)
