"""
Attempts with an unknown bill, and how an operator settles them by hand.

Such an attempt posts its whole hold, which is never less than the real cost, until an operator enters what the provider
billed. Amounts are nano-USD. Times come from the ledger's clock. `unknown_v1.sql` and `settle_unknown_v1.sql` follow
these rules; the contract tests run against both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import AttemptStatus, CallKey
from callgate.domain.errors import InvalidAmount
from callgate.domain.requests import AMOUNT_UNKNOWN

WHOLE_HOLD = "whole hold"
"""The first words of the `price_source` of an attempt that posted its whole hold because it had no amount."""
BILLED_MAX_USD = 1_000_000
"""Far above the bill of any one request."""


def is_bill_unknown(status: AttemptStatus, anomalies: Iterable[str]) -> bool:
    """True if an attempt posts its whole hold because its bill is unknown."""
    return status is AttemptStatus.UNKNOWN or not AMOUNT_UNKNOWN.isdisjoint(anomalies)


@dataclass(frozen=True, slots=True)
class UnknownFilter:
    """Selects attempts; all fields that are set must match."""

    org_id: str | None = None
    provider: str | None = None
    model: str | None = None
    since: datetime | None = None
    """Started then or later."""
    before: datetime | None = None
    """Started earlier."""
    with_past: bool = False
    """Also those that versions without `anomalies` posted at their whole hold, whatever their status."""


@dataclass(frozen=True, slots=True)
class UnknownBill:
    """The bill of a posted attempt."""

    attempt_id: UUID
    key: CallKey
    attempt: int
    org_id: str
    call_type: str
    provider: str
    model: str
    credential: str
    """The owner of the key that was used: an organisation, or empty for the provider's own key."""
    status: AttemptStatus
    anomalies: tuple[str, ...]
    hold_nano_usd: int
    posted_nano_usd: int
    started_at: datetime
    settled_by_hand_at: datetime | None
    provider_request_id: str | None
    error: str | None
    """A `Failure` as JSON."""


@dataclass(frozen=True, slots=True)
class UnknownDay:
    """The unknown bills of one day (UTC) and model, beside the known ones, to compare with the provider's sums."""

    day: date
    provider: str
    model: str
    attempts: int
    posted_nano_usd: int
    known_attempts: int
    known_nano_usd: int


@dataclass(frozen=True, slots=True)
class SettleByHand:
    """
    Post what the provider billed for one attempt, in place of what was posted.

    Raises:
        InvalidAmount
    """

    attempt_id: UUID
    seen_posted_nano_usd: int
    """The amount it posted when the operator looked. If that has changed, nothing is done."""
    billed_nano_usd: int
    may_exceed_hold: bool = False
    """Post it even if it is more than the hold, and so perhaps more than the budget has left."""

    def __post_init__(self) -> None:
        billed = self.billed_nano_usd
        if type(billed) is not int or not 0 <= billed <= BILLED_MAX_USD * NANO_PER_USD:
            raise InvalidAmount(f"a bill is 0 to {BILLED_MAX_USD} USD, in whole nano-USD")


class HandOutcome(StrEnum):
    """The result of settling one attempt by hand."""

    SETTLED = "settled"
    UNCHANGED = "unchanged"
    """It was settled by hand at this amount before."""
    CHANGED = "changed"
    """The posted amount has changed since it was read (late answer or another operator)."""
    ABOVE_HOLD = "above_hold"
    """The amount is more than the hold, and `may_exceed_hold` is not set."""
    NOT_UNKNOWN = "not_unknown"
    """Its bill is known, or it is not posted yet."""
    ARCHIVED = "archived"
    """Its month was dropped: only sums are left."""
    NOT_FOUND = "not_found"

    @property
    def is_done(self) -> bool:
        """True if the attempt posts what was asked for."""
        return self in (HandOutcome.SETTLED, HandOutcome.UNCHANGED)


@dataclass(frozen=True, slots=True)
class SettledByHand:
    """The answer to one `SettleByHand`."""

    attempt_id: UUID
    outcome: HandOutcome
    posted_before_nano_usd: int | None
    """None: there is no such attempt, or it is not posted yet."""
    posted_nano_usd: int | None
