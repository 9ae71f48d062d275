"""
Redrives: stored operations that give dead or refused calls another generation, at a pace and a price.

A redrive freezes which calls it concerns. Workers price them, an operator starts it, and workers release the calls one
by one. The Postgres functions follow the rules of this module; the contract tests run against both. Amounts are
nano-USD, times come from the ledger's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from callgate.domain.bounds import LISTED_MAX
from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import NewSubmission
from callgate.domain.reports import By, CallFilter

CALLS_MAX = LISTED_MAX
"""Calls of one redrive."""
OPEN_REDRIVES_MAX = 100
"""Redrives that have not ended."""
STEP_CALLS_MAX = 100
"""Calls that a worker prices or releases at once."""
OPEN_CALLS_MAX = 200
"""Released calls of one redrive that are open at a time: so many may fail before it can stop by itself."""
CATCH_UP_S = 5.0
"""A redrive that could not go on releases at most what it missed in this time."""
RATE_MIN_PER_MIN = 0.1
RATE_MAX_PER_MIN = 600_000.0
STOP_SHARE = 0.5
STOP_MIN = 20
PLAN_EXPIRES_AFTER = timedelta(days=1)
"""A plan that nobody starts ends."""
EXPIRES_AFTER = timedelta(days=30)
"""A redrive that has not ended so long after its start is aborted."""
FORGOTTEN_AFTER_S = 90 * 86_400.0
"""Redrives are deleted so long after their end."""
WATCH_S = 1.0
"""Between two looks at what became of released calls."""
LOCKED_AGAIN_S = 2.0
"""A call that another transaction holds is tried again after so long."""
BUSY_AGAIN_S = 15.0
"""The same for a call whose organisation has too many open calls."""
LEFT_ALONE = ("cancelled", "discarded")
"""Refused calls that ended for these reasons are chosen only by their reason or their id: a person ended them."""
LOOKED_MAX = 30_000
"""Calls that are looked at for refused ones: the newest of each organisation, or those with a reason."""


class RedriveState(StrEnum):
    """Where a redrive is."""

    PLANNING = "planning"
    """Workers price its calls."""
    PLANNED = "planned"
    """It can be started: the dry run."""
    RUNNING = "running"
    PAUSED = "paused"
    """Nothing more is released. What is released goes on."""
    ABORTED = "aborted"
    DONE = "done"
    EXPIRED = "expired"
    """Nobody has started it."""


class PauseCause(StrEnum):
    """Why a redrive is paused."""

    OPERATOR = "operator"
    FAILURES = "failures"
    """Too many of its calls have failed again."""
    CAP = "cap"
    """The next call could cost more than the cap on money leaves."""


class RedriveOutcome(StrEnum):
    """What became of one call of a redrive."""

    PENDING = "pending"
    RELEASED = "released"
    """Its next generation is open."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its next generation is dead too."""
    REJECTED = "rejected"
    """Its next generation was rejected, for example by a budget."""
    REFUSED = "refused"
    """It was not released: a gate of today refuses it, or its request was purged."""
    SKIPPED = "skipped"
    """It was not released: it has a newer generation, was discarded, or its bill is unknown."""
    LEFT = "left"
    """It was not released: the redrive ended before."""


AGAIN = (RedriveOutcome.FAILED, RedriveOutcome.REJECTED)
"""Outcomes that count as failed again."""
ENDED = (RedriveOutcome.SUCCEEDED, *AGAIN)
NEWER_GENERATION = "newer_generation"
"""Why a call is skipped: somebody has redriven or submitted it meanwhile."""
CHANGED = "changed"
"""Why a call is skipped: it is no longer as it was, for example discarded."""
UNKNOWN_BILL = "unknown_bill"
PURGED = "purged"
FROZEN = "organisation_frozen"
IDENTITY_DIFFERS = "identity_differs"
"""Today the request would be another call."""
UNSTORABLE = "row_refused"
UNREADABLE = "request_unreadable"
IN_PROGRESS = (RedriveState.RUNNING, RedriveState.PAUSED)
NOT_ENDED = (RedriveState.PLANNING, RedriveState.PLANNED, *IN_PROGRESS)
"""States of which a redrive can be aborted."""


class UnknownBills(StrEnum):
    """What to do with calls of which an attempt may have been billed."""

    REFUSE = "refuse"
    """The operator has not decided: with such calls the redrive does not start."""
    SKIP = "skip"
    PAY_AGAIN = "pay_again"
    """They may be billed a second time."""


@dataclass(frozen=True, slots=True)
class RedriveTerms:
    """How fast a redrive goes, and when it stops by itself."""

    rate_per_min: float | None = None
    """Calls per minute; None: as fast as open calls end."""
    cap_nano_usd: int | None = None
    """
    The most that may be spent: the worst case of one more attempt of each open call, and all postings.

    A released call that is tried again can exceed it; after that nothing more is released.
    """
    stop_share: float = STOP_SHARE
    """It pauses if this share of the calls that have ended failed again, from 0 to 1."""
    stop_min: int = STOP_MIN
    """... once so many have ended."""

    def __post_init__(self) -> None:
        rate = self.rate_per_min
        if rate is not None and not RATE_MIN_PER_MIN <= rate <= RATE_MAX_PER_MIN:
            raise ValueError(
                f"a rate is from {RATE_MIN_PER_MIN} to {RATE_MAX_PER_MIN:.0f} a minute"
            )
        if self.cap_nano_usd is not None and not 0 <= self.cap_nano_usd < 2**63:
            raise ValueError("a cap on money is not negative")
        if not 0 < self.stop_share <= 1 or not 1 <= self.stop_min <= CALLS_MAX:
            raise ValueError("a redrive stops at a share from 0 to 1, of at least one call")


DEFAULT_TERMS = RedriveTerms()


@dataclass(frozen=True, slots=True)
class NewRedrive:
    """What is to be planned. The same id again is the same redrive."""

    redrive_id: UUID
    selection: CallFilter
    """Its state is dead or rejected; the oldest call is released first."""
    by: By
    calls_max: int = CALLS_MAX
    """If more calls match, the newest ones."""

    def __post_init__(self) -> None:
        if self.selection.state not in (CallState.DEAD, CallState.REJECTED):
            raise ValueError("dead or refused calls can be redriven")
        if not 1 <= self.calls_max <= CALLS_MAX:
            raise ValueError(f"a redrive has 1 to {CALLS_MAX} calls")


@dataclass(frozen=True, slots=True)
class StartRedrive:
    """An operator has seen the plan, and wants it carried out."""

    redrive_id: UUID
    expected_calls: int
    """How many calls the operator expects it to release."""
    by: By
    terms: RedriveTerms = DEFAULT_TERMS
    unknown_bills: UnknownBills = UnknownBills.REFUSE


@dataclass(frozen=True, slots=True)
class RedriveCounts:
    """The calls of a redrive by what became of them."""

    pending: int = 0
    released: int = 0
    succeeded: int = 0
    failed: int = 0
    rejected: int = 0
    refused: int = 0
    skipped: int = 0
    left: int = 0

    @property
    def ended(self) -> int:
        """Released calls that have ended."""
        return self.succeeded + self.failed + self.rejected

    @property
    def failed_again(self) -> int:
        """Released calls that have ended without an answer."""
        return self.failed + self.rejected


NO_CALLS = RedriveCounts()


@dataclass(frozen=True, slots=True)
class Redrive:
    """A redrive as operators see it."""

    redrive_id: UUID
    state: RedriveState
    planned_by: str
    selection: dict[str, object]
    """The filter, as it was given."""
    calls: int
    created_at: datetime
    unpriced: int = 0
    counts: RedriveCounts = NO_CALLS
    unknown: int = 0
    """Pending calls of which an attempt may have been billed: they may be billed a second time."""
    worst_case_nano_usd: int = 0
    """The most that one attempt of each pending call can cost."""
    open_nano_usd: int = 0
    """What released and open calls have posted, and the most that one more attempt of each can cost."""
    posted_nano_usd: int = 0
    """What released calls that have ended cost. A late answer can change it afterwards."""
    cause: PauseCause | None = None
    by: By | None = None
    """Who started it, and why."""
    terms: RedriveTerms = DEFAULT_TERMS
    started_at: datetime | None = None
    ended_at: datetime | None = None
    """None also of an aborted redrive whose released calls are still open."""

    @property
    def committed_nano_usd(self) -> int:
        """What counts against the cap on money."""
        return self.open_nano_usd + self.posted_nano_usd


@dataclass(frozen=True, slots=True)
class RedriveCall:
    """One call of a redrive."""

    number: int
    """Its place: the oldest call is 1."""
    key: CallKey
    """The generation that died or was refused."""
    org_id: str
    call_type: str
    provider: str
    model: str
    outcome: RedriveOutcome
    code: str | None = None
    """Why it was refused or skipped, or how its next generation ended."""
    has_unknown_bill: bool = False
    worst_case_nano_usd: int | None = None
    """None: not priced yet, or it cannot be."""
    input_token_bound: int = 0
    output_token_bound: int = 0
    new_generation: int | None = None
    posted_nano_usd: int | None = None

    @property
    def next_key(self) -> CallKey | None:
        """The generation that was released."""
        if self.new_generation is None:
            return None
        return CallKey(self.key.call_id, self.new_generation)


@dataclass(frozen=True, slots=True)
class RedriveOrg:
    """The calls of one organisation in a redrive."""

    org_id: str
    calls: int
    pending: int
    worst_case_nano_usd: int
    """Of pending calls."""
    unknown: int
    posted_nano_usd: int


@dataclass(frozen=True, slots=True)
class RedriveStep:
    """What a worker does next for one redrive."""

    redrive_id: UUID
    lease_id: UUID
    """Only the newest lease of a redrive may change it."""
    state: RedriveState
    """Planning: price these calls. Running: release them."""
    calls: tuple[tuple[int, CallKey], ...] = ()
    """With their numbers."""


@dataclass(frozen=True, slots=True)
class PricedCall:
    """What one attempt of a call can cost, or why it cannot be released."""

    number: int
    worst_case_nano_usd: int = 0
    input_token_bound: int = 0
    output_token_bound: int = 0
    refusal: str | None = None
    submission: NewSubmission | None = field(default=None, repr=False)
    """To release it; None while it is only priced."""
