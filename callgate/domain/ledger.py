"""
The words of the ledger: states, and the values that go in and out of its methods.

call:     queued -> running -> succeeded | waiting | dead;  queued -> waiting | rejected;  waiting -> queued
          queued | waiting -> rejected (cancelled);  dead -> rejected (discarded)
attempt:  dispatched -> answered -> succeeded | failed;  dispatched -> unknown -> succeeded | failed (a late answer)

An open call always has a `due_at`; an ended one only while an attempt of it is unposted. Links that wait to be
delivered have times of their own; see `callgate.domain.delivery`. Amounts are nano-USD; times come from the ledger's
own clock and durations go in, so no two clocks are ever compared. Bodies are left out of every repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from callgate.domain.breaker import BreakerChange, Health
from callgate.domain.budgets import BudgetRefusal
from callgate.domain.requests import OnBudget, Usage

GENERATION_MAX = 2**31 - 1


class CallState(StrEnum):
    """Where one call (one generation of it) stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    REJECTED = "rejected"

    @property
    def is_open(self) -> bool:
        """True until the call has ended."""
        return self in (CallState.QUEUED, CallState.RUNNING, CallState.WAITING)


class AttemptStatus(StrEnum):
    """Where one attempt (one provider request, one row of `ai_call_log`) stands."""

    DISPATCHED = "dispatched"
    ANSWERED = "answered"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def is_posted(self) -> bool:
        """True once the attempt's hold has become money spent (0 included)."""
        return self not in (AttemptStatus.DISPATCHED, AttemptStatus.ANSWERED)


class WaitReason(StrEnum):
    """Why a call waits."""

    RETRY = "retry"
    """Its last attempt failed; it is tried again."""
    BUDGET_HELD = "budget_held"
    """Calls in flight hold the money it needs."""
    BUDGET_EXHAUSTED = "budget_exhausted"
    """The period's money is spent; it waits for the next one."""
    PROVIDER = "provider"
    """Its provider is left alone for a while; see `callgate.domain.breaker`."""
    QUARANTINE = "quarantine"
    """It may have killed a worker, and waits for a process of its own."""
    MEMORY = "memory"
    """Its request is large, and waits for room in a worker's memory."""


class AttemptKind(StrEnum):
    """Why an attempt was made."""

    CALL = "call"
    PROBE = "probe"
    """To learn whether a provider that was left alone answers again."""


@dataclass(frozen=True, slots=True, order=True)
class CallKey:
    """One generation of one call; its Celery task id is `"{call_id}.{generation}"`."""

    call_id: UUID
    generation: int

    @property
    def task_id(self) -> str:
        """The Celery task id: each generation has its own, because a revoked id stays revoked."""
        return f"{self.call_id}.{self.generation}"

    @classmethod
    def from_task_id(cls, task_id: str) -> CallKey:
        """
        Read a task id back.

        Raises:
            ValueError: It is not one of ours.
        """
        call_id, _, generation = task_id.partition(".")
        return cls.parse(call_id, int(generation))

    @classmethod
    def parse(cls, call_id: object, generation: object) -> CallKey:
        """
        Read a key out of a message, of which nothing is believed.

        Raises:
            ValueError: It can be no key of a ledger.
        """
        if not isinstance(call_id, str) or type(generation) is not int:
            raise ValueError("a call id is text, a generation a whole number")
        if not 1 <= generation <= GENERATION_MAX:
            raise ValueError(f"{generation} is no generation")
        return cls(UUID(call_id), generation)


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """One attempt of a call; `attempt_id` is the fencing token."""

    key: CallKey
    attempt_id: UUID


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


# ---------------------------------------------------------------------------------------------------- read


LIGHT_BYTES_MAX = 64 * 1024
"""A worker may have a request of this size in memory for each call that it runs."""


class Bodies(StrEnum):
    """Which of the heavy columns a read brings along."""

    NONE = "none"
    LIGHT = "light"
    """The request, if it has at most `LIGHT_BYTES_MAX`."""
    REQUEST = "request"
    REPLY = "reply"
    """Only of calls that have ended; waiting readers poll cheaply."""
    BOTH = "both"

    @property
    def request_bytes_max(self) -> int:
        """A request that is larger stays behind."""
        if self is Bodies.LIGHT:
            return LIGHT_BYTES_MAX
        return 2**31 - 1 if self in (Bodies.REQUEST, Bodies.BOTH) else -1


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One row of `ai_call_log`."""

    attempt_id: UUID
    attempt: int
    status: AttemptStatus
    hold_nano_usd: int
    posted_nano_usd: int | None
    usage: Usage | None
    price_source: str | None
    service_tier: str | None
    latency_ms: int | None
    queue_ms: int
    provider_request_id: str | None
    error: str | None
    """A `Failure` as JSON."""
    reply: bytes | None = field(repr=False)
    """A `ProviderReply` as JSON, kept byte for byte."""
    worker_id: str
    started_at: datetime
    finished_at: datetime | None
    kind: AttemptKind = AttemptKind.CALL
    credential: str = ""
    """Whose key was used: an organisation, or empty for the provider's own."""
    anomalies: tuple[str, ...] = ()
    """What is odd about its bill, in fixed words; see `callgate.domain.requests.Anomaly`."""


QUARANTINE_SWEEPS = 2
"""
A call that so many sweeps have found may kill whoever looks into it, before that can claim it.

One sweep says little: it finds whatever the broker, or a worker that was killed, has lost.
"""


@dataclass(frozen=True, slots=True)
class CallView:
    """One generation of a call, with the attempt that was asked for (else the current or winning one)."""

    key: CallKey
    org_id: str
    input_hash: bytes
    state: CallState
    due_at: datetime | None
    attempt: int
    """Attempts begun so far; 0 before the first."""
    call_type: str
    provider: str
    model: str
    input_token_bound: int
    request: bytes | None = field(repr=False)
    """None if not asked for, left behind as too large, or purged."""
    error: str | None
    """Why it waits, was rejected or died, or that its worker is lost: a `Failure` or a refusal as JSON."""
    created_at: datetime
    posted_nano_usd: int
    """Σ posted over all attempts of this generation."""
    worker_losses: int
    """Attempts of this generation that became unknown because their worker vanished."""
    unknown_attempts: int
    """Attempts of this generation that were recorded with an unknown bill."""
    paid_failures: int
    """Attempts of this generation that were answered and brought no result."""
    free_probes: int
    """Attempts of this generation that were probes, failed and cost nothing."""
    wait_reason: WaitReason | None
    sweeps: int
    """Sweeps that found it queued since somebody last claimed or refused it."""
    is_purged: bool
    request_bytes: int
    """The size of the request, whether or not it was brought along; 0 if it was purged."""
    last: AttemptView | None
    end_reason: str | None = None
    """The code of its error, if it is dead or rejected: why it ended without an answer."""

    @property
    def is_request_left_behind(self) -> bool:
        """True of a request that was not brought along though there is one."""
        return self.request is None and not self.is_purged

    @property
    def is_quarantined(self) -> bool:
        """True if it may be what killed a worker."""
        return self.worker_losses > 0 or self.sweeps >= QUARANTINE_SWEEPS


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
    """Daily limit given to an organisation without any budget; None refuses it."""
    reject_with: str | None = None
    """Reject the call with this error (JSON) instead: it can never be dispatched."""
    defer_s: float | None = None
    """
    With `reject_with`: only not now. The call waits this long instead of being rejected.

    0: it was looked into, and was `Locked`; so the sweeps that found it meanwhile do not count against it.
    """
    defer_reason: WaitReason = WaitReason.QUARANTINE
    credential: str = ""
    """Whose key will be used: an organisation, or empty for the provider's own."""
    wait_max_s: float = 86_400.0
    """How long the call may wait for its provider's breaker, all in all."""


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
