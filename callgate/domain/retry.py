"""What happens to a call after an attempt that did not succeed: a pure decision, with the jitter passed in."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from enum import StrEnum

from callgate.domain.catalogue import CallTypePolicy

_DIGITS_OR_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9a-f]{8,}|\d+")
MESSAGE_CHARS_MAX = 500


class Billing(StrEnum):
    """What is known about the bill of a failed attempt."""

    UNBILLED = "unbilled"
    """Surely no charge: posted at 0."""
    BY_USAGE = "by_usage"
    """The reply came and names its usage: posted at that."""
    UNKNOWN = "unknown"
    """The request may have been billed: the whole hold is posted."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt's failure, as stored in `error_json`. Never holds prompt text or keys."""

    code: str
    message: str
    retryable: bool
    billing: Billing
    status: int | None = None
    """HTTP status, where there was a response."""
    provider_code: str | None = None
    retry_after_s: float | None = None

    def to_json(self) -> str:
        """The failure as JSON text, `message` cut to a bounded length."""
        return json.dumps({**asdict(self), "message": self.message[:MESSAGE_CHARS_MAX]})

    @classmethod
    def from_json(cls, text: str) -> Failure:
        """Read back what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "billing": Billing(fields["billing"])})

    def fingerprint(self, provider: str) -> str:
        """A short hash that groups failures alike: numbers, ids and quoted text do not matter."""
        message = _DIGITS_OR_QUOTED.sub("#", self.message[:MESSAGE_CHARS_MAX])
        parts = json.dumps([provider, self.code, self.status, self.provider_code, message])
        return hashlib.sha256(parts.encode()).hexdigest()[:16]


LOST = Failure(
    "worker_lost", "the worker vanished before it recorded an outcome", True, Billing.UNKNOWN
)
"""An attempt that was dispatched and whose lease ran out."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again `in_s` seconds from now, as a new attempt with a hold of its own."""

    in_s: float


@dataclass(frozen=True, slots=True)
class Dead:
    """Stop trying; `why` is kept with the last failure."""

    why: str


def decide(
    failure: Failure, *, attempt: int, lost: int, policy: CallTypePolicy, jitter: float
) -> Retry | Dead:
    """
    Retry or give up.

    Retries wait `jitter x min(retry_wait_max_s, retry_wait_s x 2^(attempt - 1))` seconds (full jitter), and never
    less than what the provider asked for, which itself is capped at `retry_after_max_s`.

    Args:
        attempt: The attempt that failed; starts at 1.
        lost: Attempts of this generation, this one included, whose worker vanished.
        jitter: A random number in [0, 1).

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015), full jitter.
    """
    if not failure.retryable:
        return Dead("not_retryable")
    if failure.billing is Billing.UNKNOWN and policy.on_unknown == "dead":
        return Dead("outcome_unknown")
    if lost >= policy.lost_max:
        return Dead("lost_too_often")
    if attempt >= policy.attempts_max:
        return Dead("attempts_exhausted")
    backoff_s = jitter * min(policy.retry_wait_max_s, policy.retry_wait_s * 2.0 ** (attempt - 1))
    asked_s = min(failure.retry_after_s or 0.0, policy.retry_after_max_s)
    return Retry(max(backoff_s, asked_s))
