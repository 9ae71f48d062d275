"""
The ledger's commands and their outcomes: what goes in and out of the methods of `LedgerPort`.

Amounts are nano-USD. Durations go in, times of the ledger's own clock come out, so two clocks are never compared.
Bodies are left out of every repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from callgate.domain.breaker import BreakerChange, Health
from callgate.domain.budgets import BudgetRefusal
from callgate.domain.calls import AttemptRef, AttemptStatus, CallKey, CallState, WaitReason
from callgate.domain.requests import OnBudget, Usage

# ---------------------------------------------------------------------------------------------------- submit


class SubmitOutcome(StrEnum):
    """What became of a submission."""

    CREATED = "created"
    """A new generation was queued: publish it."""
    JOINED = "joined"
    REPLAYED = "replayed"
    FAILED = "failed"
    """The call is dead; its stored failure answers."""
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    UNSTORABLE = "unstorable"
    """The ledger cannot hold this row; its neighbours were stored."""


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """One submission of one request."""

    submission_id: UUID
    """Made by the client: submitting the same id again is the same submission."""
    org_id: str
    call_id: UUID
    input_hash: bytes
    call_type: str
    provider: str
    model: str
    input_token_bound: int
    request: bytes = field(repr=False)
    """The `LLMRequest` as JSON, kept byte for byte."""
    idempotency_key: str | None = None
    link: str | None = field(default=None, repr=False)
    """What to publish when the call ends, as JSON; see `callgate.adapters.broker.queue`."""
    force: bool = False
    """Start a next generation even if the call succeeded or is dead."""
    inherit_links: bool = False
    """
    A redrive: those who had a link on the dead generation get one on the next.

    With `force`, of dead calls only: a call that was redriven before and has succeeded since answers REPLAYED.
    """


@dataclass(frozen=True, slots=True)
class Submitted:
    """The call that answers a submission."""

    submission_id: UUID
    outcome: SubmitOutcome
    key: CallKey
    state: CallState


# ---------------------------------------------------------------------------------------------------- reserve


@dataclass(frozen=True, slots=True)
class Reserve:
    """Claim a queued call and hold its worst-case cost."""

    key: CallKey
    hold_nano_usd: int
    expires_in_s: float
    """Deadline plus grace: how long the attempt may go unrecorded before it falls due."""
    worker_id: str
    """The process and its claim number: the same one is the same claim, its lease renewed, and makes one attempt."""
    price_source: str
    trace_id: str | None = None
    on_budget: OnBudget = OnBudget.REJECT
    default_limit_nano_usd: int | None = None
    """The daily limit for an organisation without any budget. None: its calls are rejected."""
    credential: str = ""
    """The owner of the key that will be used: an organisation, or empty for the provider's own key."""
    wait_max_s: float = 86_400.0
    """How long the call may wait for its provider's breaker in total."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Reject a queued call that can never be sent."""

    key: CallKey
    error: str
    """Why, as JSON."""


@dataclass(frozen=True, slots=True)
class Defer:
    """Let a queued call wait, because this process cannot run it now."""

    key: CallKey
    error: str
    """Why, as JSON."""
    wait_s: float
    reason: Literal[WaitReason.QUARANTINE, WaitReason.MEMORY]


@dataclass(frozen=True, slots=True)
class Requeue:
    """
    Make a queued call due now, because it was only `Locked` when a worker wanted to claim it.

    A worker has received its message, so the sweeps that counted the message as lost are taken back.
    """

    key: CallKey
    error: str
    """Why, as JSON."""


ReserveCommand = Reserve | Reject | Defer | Requeue
"""The commands of the one statement that decides a queued call."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """The call is ours: one provider request may be sent under this attempt."""

    ref: AttemptRef
    attempt: int
    queue_ms: int


@dataclass(frozen=True, slots=True)
class Refused:
    """No hold. The call now waits, or is rejected for good."""

    key: CallKey
    state: CallState
    refusal: BudgetRefusal | None
    """None if no budget refused it: the caller did, or the provider's breaker."""


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """Somebody else has the call, or it has ended, or there is none: nothing was changed."""

    key: CallKey
    state: CallState | None
    superseded_attempt: AttemptRef | None = None
    """
    The attempt of this very claim, if the call ended by a late answer before the claimant heard of it. It was never
    sent, and only the claimant knows.
    """


@dataclass(frozen=True, slots=True)
class Unstorable:
    """This row of the batch could not be written; its neighbours were."""

    why: str


@dataclass(frozen=True, slots=True)
class Locked:
    """
    Somebody else's transaction holds the call at this moment: nothing was done, and nobody waited. Come again.

    It may be a submission that is just joining, or a client's login that keeps its transaction open.
    """

    key: CallKey


ReserveOutcome = Reserved | Refused | NotClaimed | Unstorable | Locked


# ---------------------------------------------------------------------------------------------------- record


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """What the one provider request of an attempt brought back: a reply, an error, or both."""

    ref: AttemptRef
    reply: bytes | None = field(repr=False)
    error: str | None
    latency_ms: int
    provider_request_id: str | None = None


class RecordOutcome(StrEnum):
    """What became of a record."""

    RECORDED = "recorded"
    """The attempt is answered (also if it was before)."""
    LATE = "late"
    """The attempt had become unknown; the answer is kept and will be posted with the truth."""
    CLOSED = "closed"
    """The attempt was already settled by an answer, or does not exist."""
    UNSTORABLE = "unstorable"


# ---------------------------------------------------------------------------------------------------- settle


@dataclass(frozen=True, slots=True)
class Settle:
    """Post an attempt and move its call."""

    ref: AttemptRef
    expected_status: AttemptStatus
    """The attempt's status when this was decided; where it has changed since, nothing is done."""
    status: Literal[AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.UNKNOWN]
    """What it becomes; a dispatched attempt (its lease ran out) can only become UNKNOWN."""
    posted_nano_usd: int
    next_state: Literal[CallState.SUCCEEDED, CallState.WAITING, CallState.DEAD]
    """Applied while this attempt is the call's current one; a success ends any call that is still open."""
    due_in_s: float | None = None
    """With WAITING: when to try again."""
    usage: Usage | None = None
    price_source: str | None = None
    service_tier: str | None = None
    error: str | None = None
    error_fingerprint: str | None = None
    health: Health = Health.NEUTRAL
    """What the attempt says about its provider."""
    failure_code: str | None = None
    """Kept as the reason of a breaker that this opens."""
    anomalies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """What settling one attempt did."""

    ref: AttemptRef
    is_applied: bool
    """False if it was settled before: nothing was changed."""
    state: CallState
    """The call's state afterwards."""
    has_links: bool = False
    """The call ended by this, and has links to deliver; for ten seconds only this caller does."""
    has_freed_waiters: bool = False
    """The batch freed headroom or closed a breaker, and made calls due that had waited for it."""
    breaker_changes: tuple[BreakerChange, ...] = ()
    """The breakers that the batch opened or closed."""


SettleOutcome = Settled | Unstorable | Locked


# ---------------------------------------------------------------------------------------------------- due


class DueKind(StrEnum):
    """What a due call needs."""

    PUBLISH = "publish"
    """It is queued (again): publish its task."""
    SETTLE = "settle"
    """Its attempt was answered, but never settled."""
    EXPIRED = "expired"
    """Its attempt was dispatched, and its lease ran out."""


@dataclass(frozen=True, slots=True)
class Reaper:
    """A process that may call attempts lost, if the ledger finds it was there while others had time to record."""

    worker_id: str
    """Under whose lease: it must be fresh."""
    lease_stable_for_s: float
    """For how long no renewal of it may have been late."""


@dataclass(frozen=True, slots=True)
class Due:
    """One due call. Its `due_at` was pulled forward a little, so that nobody else takes it meanwhile."""

    kind: DueKind
    key: CallKey
    attempt_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class DueBatch:
    """What one due query found, and when, by the ledger's clock."""

    at: datetime
    items: tuple[Due, ...]
