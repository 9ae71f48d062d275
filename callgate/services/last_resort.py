"""How an attempt is settled that cannot be settled as it should: its money is posted, and its call is dead."""

from __future__ import annotations

from dataclasses import replace

from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptRef, AttemptStatus, AttemptView, CallState, CallView
from callgate.domain.ledger import Settle
from callgate.domain.provider import Billing, Failure
from callgate.services import call_lines

UNSTORABLE_SETTLEMENT = Failure(
    "settlement_refused",
    "the ledger could not store the settlement of this attempt",
    False,
    Billing.UNKNOWN,
)
UNREADABLE_ATTEMPT = Failure(
    "attempt_unreadable", "what is stored of this attempt cannot be read", False, Billing.UNKNOWN
)


def unreadable(view: CallView, attempt: AttemptView, error: Exception) -> Settle:
    """The settlement of an attempt that cannot be classified: it posts the whole hold."""
    # Raised from here, the error would stop its batch each time.
    # The error's own words may quote the prompt or the reply, so only its type is logged.
    call_lines.say_not_classified(view, attempt, type(error).__name__)
    settle = _whole_hold(view, attempt)
    return last_resort(settle, UNREADABLE_ATTEMPT, settle.posted_nano_usd)


def _whole_hold(view: CallView, attempt: AttemptView) -> Settle:
    return Settle(
        ref=AttemptRef(view.key, attempt.attempt_id),
        expected_status=attempt.status,
        status=AttemptStatus.UNKNOWN,
        posted_nano_usd=attempt.hold_nano_usd,
        next_state=CallState.DEAD,
    )


def last_resort(settle: Settle, failure: Failure, posted_nano_usd: int) -> Settle:
    """Post the money, end the call as dead, and keep nothing of the answer."""
    is_lost = settle.expected_status is AttemptStatus.DISPATCHED
    return replace(
        settle,
        posted_nano_usd=posted_nano_usd,
        status=AttemptStatus.UNKNOWN if is_lost else AttemptStatus.FAILED,
        next_state=CallState.DEAD,
        due_in_s=None,
        usage=None,
        price_source=None,
        service_tier=None,
        error=failure.to_json(),
        error_fingerprint=failure.code,
        health=Health.NEUTRAL,
    )
