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

from callgate.domain.bounds import UNSPECIFIED
from callgate.domain.breaker import Health
from callgate.domain.breaker_words import BreakerChange
from callgate.domain.budgets import BudgetRefusal
from callgate.domain.call_order import Lane, Priority
from callgate.domain.calls import (
    AttemptKind,
    AttemptRef,
    AttemptStatus,
    CallKey,
    CallState,
    WaitReason,
)
from callgate.domain.open_calls import OpenCalls
from callgate.domain.requests import OnBudget, Usage

# ---------------------------------------------------------------------------------------------------- submit


class SubmitOutcome(StrEnum):
    """The result of a submission."""

    CREATED = "created"
    """A new generation was queued, or waits in the backlog."""
    JOINED = "joined"
    REPLAYED = "replayed"
    FAILED = "failed"
    """The call is dead; its stored failure answers."""
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    BUSY = "busy"
    """Its organisation has too many open calls; nothing was stored."""
    UNSTORABLE = "unstorable"
    """The ledger cannot store this row; the other rows were stored."""


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """One submission of one request."""

    submission_id: UUID
    """Made by the client. Submitting it again is the same submission."""
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
    """What is published when the call ends, as JSON; see `callgate.adapters.broker.links`."""
    force: bool = False
    """Start the next generation even if the call succeeded or is dead."""
    priority: Priority = Priority.NORMAL
    start_within_s: float | None = None
    """Not sent after so many seconds; None: at any time. Of several submissions of a call the latest counts."""
    inherit_links: bool = False
    """
    A redrive: the links of the dead generation are copied to the next one, and its trace goes on.

    With `force`, this applies to dead calls only. A call that has succeeded since answers REPLAYED.
    """
    traceparent: str | None = None
    """The span of this submission. A call that it creates keeps it; it is no part of the call's identity."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The call that answers a submission."""

    submission_id: UUID
    outcome: SubmitOutcome
    key: CallKey
    state: CallState
    lane: Lane | None = None
    """Where it is to be published; None: nowhere."""
    open_calls: OpenCalls | None = None
    """With BUSY: how many there are."""
    traceparent: str | None = None
    """The span of the submission that made the call."""


# ---------------------------------------------------------------------------------------------------- reserve


@dataclass(frozen=True, slots=True)
class Reserve:
    """Claim a queued call and hold its worst-case cost."""

    key: CallKey
    hold_nano_usd: int
    expires_in_s: float
    """Deadline plus grace: how long the attempt may go unrecorded before it falls due."""
    worker_id: str
    """The process and its claim number. The same id is the same claim: it makes one attempt, however often it comes."""
    price_source: str
    trace_id: str | None = None
    on_budget: OnBudget = OnBudget.REJECT
    default_limit_nano_usd: int | None = None
    """The daily limit for an organisation without any budget. None: its calls are rejected."""
    credential: str = ""
    """The owner of the key that will be used: an organisation, or empty for the provider's own key."""
    wait_max_s: float = 86_400.0
    """How long the call may wait in total for its provider, a place and held money, and while it is paused."""
    output_token_bound: int = 0
    """The most that the attempt may write: what it takes from limits of output tokens."""
    input_token_bound: int = 0
    """
    The worker's own count. If it is above the call's bound, it becomes that.

    A client without a tokenizer stores the bound 0, and the request of a repair is longer than the call's.
    """
    repair_after: int | None = None
    """
    The number of the newest attempt when a repair was prepared; None: the attempt is no repair.

    It is none either if there has been another attempt since, which may have been the repair, or if it is a probe.
    """


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
    """The claim succeeded: one provider request may be sent for this attempt."""

    ref: AttemptRef
    attempt: int
    queue_ms: int
    kind: AttemptKind = AttemptKind.FIRST


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is held. The call waits now, or is rejected; dead, if the attempt would have been a repair."""

    key: CallKey
    state: CallState
    refusal: BudgetRefusal | None
    """None if not a budget refused it, but the caller or the provider's breaker."""
    code: str = UNSPECIFIED
    """The code of its error: why it waits, or was rejected."""


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """Another claim has the call, or it has ended or does not exist. Nothing was changed."""

    key: CallKey
    state: CallState | None
    superseded_attempt: AttemptRef | None = None
    """
    The attempt of this claim, if a late answer ended the call before the claimant got its reply. The claimant knows
    that it was never sent, and must record that.
    """


@dataclass(frozen=True, slots=True)
class Unstorable:
    """This row of the batch could not be written; the others were."""

    why: str


@dataclass(frozen=True, slots=True)
class Locked:
    """
    Another transaction has locked the call. Nothing was done, without waiting; try again.

    The transaction may be a submission that is just joining, or one that a client's login keeps open.
    """

    key: CallKey


ReserveOutcome = Reserved | Refused | NotClaimed | Unstorable | Locked


# ---------------------------------------------------------------------------------------------------- record


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """Keep the answer to the one provider request of an attempt: a reply, an error, or both."""

    ref: AttemptRef
    reply: bytes | None = field(repr=False)
    error: str | None
    latency_ms: int
    provider_request_id: str | None = None


class RecordOutcome(StrEnum):
    """The result of recording an answer."""

    RECORDED = "recorded"
    """The attempt is answered, now or already before."""
    LATE = "late"
    """The attempt was unknown already. The answer is kept, and its real cost will be posted."""
    CLOSED = "closed"
    """The attempt was already settled by an answer, or does not exist."""
    UNSTORABLE = "unstorable"


# ---------------------------------------------------------------------------------------------------- settle


@dataclass(frozen=True, slots=True)
class Settle:
    """Post an attempt and move its call."""

    ref: AttemptRef
    expected_status: AttemptStatus
    """The status on which this decision is based. If it has changed since, nothing is done."""
    status: Literal[AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.UNKNOWN]
    """The new status. A dispatched attempt, which has expired, can only become UNKNOWN."""
    posted_nano_usd: int
    next_state: Literal[CallState.SUCCEEDED, CallState.WAITING, CallState.DEAD]
    """Applied if this attempt is the call's current one. A success ends any call that is open."""
    due_in_s: float | None = None
    """With WAITING: when to try again. With LIMITED: how long the call may wait for its provider."""
    usage: Usage | None = None
    price_source: str | None = None
    service_tier: str | None = None
    error: str | None = None
    error_fingerprint: str | None = None
    health: Health = Health.NEUTRAL
    """What the attempt tells the breakers."""
    failure_code: str | None = None
    """The reason of a breaker that this opens."""
    blocked_for_s: float = 0.0
    """With LIMITED: how long the provider asked to be left alone."""
    anomalies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of settling one attempt."""

    ref: AttemptRef
    is_applied: bool
    """False if nothing was changed, because it was settled before."""
    state: CallState
    """The call's state afterwards."""
    has_ended: bool = False
    """The call ended now, by this attempt."""
    has_links: bool = False
    """It ended now and has links to deliver. For ten seconds they are this caller's."""
    has_freed_waiters: bool = False
    """The batch freed headroom or closed a breaker, and made waiting calls due."""
    breaker_changes: tuple[BreakerChange, ...] = ()
    """The breakers that the batch opened or closed."""


SettleOutcome = Settled | Unstorable | Locked


# ---------------------------------------------------------------------------------------------------- due


class DueKind(StrEnum):
    """What a due call needs."""

    PUBLISH = "publish"
    """It is queued (again): publish its task."""
    SETTLE = "settle"
    """Its attempt was answered, but not settled."""
    EXPIRED = "expired"
    """Its attempt was dispatched and has expired."""


@dataclass(frozen=True, slots=True)
class Reaper:
    """A process that may expire attempts of others, if its own lease was stable long enough."""

    worker_id: str
    """The process; its lease must be fresh."""
    lease_stable_for_s: float
    """For how long no renewal of the lease may have been late."""


@dataclass(frozen=True, slots=True)
class Due:
    """One due call. Its `due_at` was moved ten seconds ahead, so that no other caller takes it."""

    kind: DueKind
    key: CallKey
    attempt_id: UUID | None = None
    lane: Lane = Lane.CALL
    """With PUBLISH: where."""


@dataclass(frozen=True, slots=True)
class DueBatch:
    """What one query took, and when, by the ledger's clock."""

    at: datetime
    items: tuple[Due, ...]
