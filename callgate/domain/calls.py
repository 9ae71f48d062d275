"""
A call, its attempts, and the states both pass through.

call:     queued -> running -> succeeded | waiting | dead;  queued -> waiting | rejected;  waiting -> queued
          queued -> dead (a repair that fits no budget or limit)
          queued | waiting -> rejected (cancelled);  dead -> rejected (discarded)
          queued | waiting -> succeeded (a late answer to an earlier attempt)
attempt:  dispatched -> answered -> succeeded | failed | unknown (its bill);  dispatched -> unknown (its worker is lost)
          unknown -> succeeded | failed (a late answer)

An open call always has a `due_at`. An ended call has one only while one of its attempts is unposted. Links that wait
to be delivered have times of their own; see `callgate.domain.delivery`. Times come from the ledger's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from callgate.domain.call_order import Priority
from callgate.domain.requests import Usage

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
    """The breaker of its provider is open; see `callgate.domain.breaker`."""
    QUARANTINE = "quarantine"
    """It may have killed a worker; it waits for a process of its own."""
    MEMORY = "memory"
    """Its request is large; it waits for room in a worker's memory."""
    RATE_LIMITED = "rate_limited"
    """A limit of its provider is used, or its key is blocked; see `callgate.domain.limits`."""
    BACKLOG = "backlog"
    """Its organisation has many calls queued; see `callgate.domain.call_order`."""
    PAUSED = "paused"
    """An operator has paused calls like it; see `callgate.domain.pauses`."""
    CONCURRENCY_LIMITED = "concurrency_limited"
    """As many calls of its organisation run as may; see `callgate.domain.concurrency`."""
    LOCKED = "locked"
    """Another transaction had locked it when a worker wanted to claim it; it is free now, and is due at once."""


class AttemptKind(StrEnum):
    """Why an attempt was made."""

    FIRST = "first"
    RETRY = "retry"
    CALL = "call"
    """One of these two, in a ledger of 0.1.0."""
    REPAIR = "repair"
    """To have an answer corrected that breaks its schema; see `callgate.domain.repairs`."""
    PROBE = "probe"
    """To learn whether a provider with an open breaker answers again."""


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
            ValueError: It is not a task id of a call.
        """
        call_id, _, generation = task_id.partition(".")
        return cls.parse(call_id, int(generation))

    @classmethod
    def parse(cls, call_id: object, generation: object) -> CallKey:
        """
        Read a key from an untrusted message.

        Raises:
            ValueError: No ledger can contain this key.
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
    traceparent: str | None = field(default=None, compare=False)
    """The span in which it was made, so that its settlement appears below it. It identifies nothing."""


LIGHT_MAX_BYTES = 64 * 1024
"""A worker may keep a request of this size in memory for each call that it runs."""


class Bodies(StrEnum):
    """Which bodies a read returns."""

    NONE = "none"
    LIGHT = "light"
    """The request, if it has at most `LIGHT_MAX_BYTES`."""
    REQUEST = "request"
    REPLY = "reply"
    """Only of ended calls, so that polling stays cheap."""
    BOTH = "both"

    @property
    def request_max_bytes(self) -> int:
        """Larger requests are left out."""
        if self is Bodies.LIGHT:
            return LIGHT_MAX_BYTES
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
    """The owner of the key that was used: an organisation, or empty for the provider's own key."""
    anomalies: tuple[str, ...] = ()
    """What is unusual about its bill; see `callgate.domain.requests.Anomaly`."""
    trace_id: str | None = None
    """The caller's."""


QUARANTINE_SWEEPS = 2
"""
A call that so many sweeps have found is quarantined: it may kill each worker before the worker can claim it.

One sweep proves nothing, because it also finds messages that the broker, or a killed worker, has lost.
"""


@dataclass(frozen=True, slots=True)
class BrokenAnswer:
    """The newest failed attempt of a call that has a reply."""

    attempt_id: UUID
    reply_bytes: int


@dataclass(frozen=True, slots=True)
class CallView:
    """One generation of a call, with the requested attempt, else the current or winning one."""

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
    """None if it was not requested, was too large, or was purged."""
    error: str | None
    """Why it waits, was rejected or is dead, or that its worker was lost: a `Failure` or a refusal as JSON."""
    created_at: datetime
    posted_nano_usd: int
    """Σ posted over all attempts of this generation."""
    worker_losses: int
    """Attempts of this generation that became unknown because their worker was lost."""
    unknown_attempts: int
    """Attempts of this generation that were recorded with an unknown bill."""
    paid_failures: int
    """Attempts of this generation that were answered and paid, without a result."""
    uncounted_attempts: int
    """Attempts of this generation that failed, cost nothing, and were probes or refused for the provider's rate."""
    wait_reason: WaitReason | None
    sweeps: int
    """Sweeps that found it queued since it was last claimed or refused."""
    is_purged: bool
    request_bytes: int
    """The size of the request, also if it is not returned; 0 if it was purged."""
    last: AttemptView | None
    priority: Priority = Priority.NORMAL
    start_before: datetime | None = None
    """It is not sent later; None: it has no deadline."""
    repairs: int = 0
    """Repairs of this generation that were answered, or may have been."""
    broken: BrokenAnswer | None = None
    """What a repair would be about, if its answer broke its schema."""
    traceparent: str | None = None
    """The span of the submission that made it; see `callgate.domain.trace_context`."""
    end_reason: str | None = None
    """The code of its error, if it is dead or rejected: why it ended without an answer."""

    @property
    def is_request_left_behind(self) -> bool:
        """True if there is a request that was not returned."""
        return self.request is None and not self.is_purged

    @property
    def is_quarantined(self) -> bool:
        """True if it may have killed a worker."""
        return self.worker_losses > 0 or self.sweeps >= QUARANTINE_SWEEPS
