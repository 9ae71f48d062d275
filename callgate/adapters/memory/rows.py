"""
The rows of the memory ledger: the tables of `callgate.adapters.postgres.tables` as dataclasses.

Rows are changed in place under one lock. Callers get the frozen views of `callgate.domain.calls` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from callgate.domain.alerts import Alert, AlertEvent, AlertKind, Channel
from callgate.domain.breaker import Health
from callgate.domain.call_order import Lane, Priority, rank_of
from callgate.domain.calls import (
    AttemptKind,
    AttemptStatus,
    AttemptView,
    CallKey,
    CallState,
    WaitReason,
)
from callgate.domain.fingerprints import Fingerprint
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.limits import Measure, Source
from callgate.domain.requests import Usage

GuardKey = tuple[str, str, str]
"""Provider, model and credential."""
LimitKey = tuple[str, str, str, Source, Measure, int]
"""Provider, model or pattern, credential, source, measure, and window in seconds."""
BreakerKey = tuple[str, str, str, str]
"""The same, and the organisation whose breaker it is; empty for all organisations."""


@dataclass(slots=True)
class CallRow:
    """One generation of a call."""

    key: CallKey
    org_id: str
    input_hash: bytes
    state: CallState
    due_at: datetime | None
    """When recovery must look at the call; of a queued call, when it was queued."""
    call_type: str
    provider: str
    model: str
    input_token_bound: int
    request: bytes | None
    """None once it was purged."""
    created_at: datetime
    attempt: int = 0
    attempt_id: UUID | None = None
    """The newest attempt; of a succeeded call the winner."""
    error: str | None = None
    error_fingerprint: str | None = None
    requested_hold_nano_usd: int | None = None
    """The hold it waits for headroom for, from refusal to claim."""
    sweeps: int = 0
    """Number of sweeps that found the call queued since its last claim or refusal."""
    wait_reason: WaitReason | None = None
    end_reason: str | None = None
    waits_for: GuardKey | None = None
    """Whose breakers it waits for, from refusal to claim."""
    wait_until: datetime | None = None
    """Until when it may wait: for its provider, a place, held money, and while it is paused, in total."""
    output_token_bound: int = 0
    """What it takes from limits of output tokens."""
    priority: Priority = Priority.NORMAL
    start_before: datetime | None = None
    lane: Lane = Lane.CALL
    """Where it was published last."""
    is_in_line: bool = False
    """True while it waits for a place of its organisation, from refusal to claim."""
    traceparent: str | None = None
    """The span of the submission that created it."""

    @property
    def rank_at(self) -> datetime:
        """The earliest of its organisation comes first; see `rank_of`."""
        return rank_of(self.created_at, self.priority, self.attempt)

    def wait(self, reason: WaitReason, error: str | None, due_at: datetime) -> None:
        """Let it wait."""
        self.state = CallState.WAITING
        self.wait_reason = reason
        self.error = error
        self.wait_until_due(due_at)
        self.requested_hold_nano_usd = None
        self.waits_for = None
        self.is_in_line = reason is WaitReason.CONCURRENCY_LIMITED

    def wait_until_due(self, at: datetime) -> None:
        """Let it be due then; at its deadline at the latest, because it then ends."""
        self.due_at = min(at, self.start_before) if self.start_before else at


@dataclass(slots=True)
class SubmissionRow:
    """Who asked for a call, and how to tell them."""

    submission_id: UUID
    key: CallKey
    outcome: SubmitOutcome | None
    """The outcome of submitting it; None if it only inherits the link of the previous generation."""
    link: str | None
    created_at: datetime
    delivered_at: datetime | None = None
    tries: int = 0
    failure: str | None = None
    """Why the last try to deliver the link failed."""
    try_at: datetime | None = None
    """Not before; None: at once."""
    given_up_at: datetime | None = None
    idempotency_key: str | None = None

    @property
    def has_link_to_tell(self) -> bool:
        """True if it has a link that is neither delivered nor given up."""
        return self.link is not None and self.delivered_at is None and self.given_up_at is None

    @property
    def is_collapsed(self) -> bool:
        """True if it was answered without a call of its own."""
        return self.outcome not in (None, SubmitOutcome.CREATED)


@dataclass(slots=True)
class AttemptRow:
    """One provider request: a row of `ai_call_log`."""

    attempt_id: UUID
    key: CallKey
    attempt: int
    hold_nano_usd: int
    budget_ids: tuple[int, ...]
    """Where the hold was made, and where it is posted."""
    price_source: str
    queue_ms: int
    worker_id: str
    trace_id: str | None
    started_at: datetime
    status: AttemptStatus = AttemptStatus.DISPATCHED
    posted_nano_usd: int | None = None
    usage: Usage | None = None
    service_tier: str | None = None
    latency_ms: int | None = None
    provider_request_id: str | None = None
    error: str | None = None
    reply: bytes | None = None
    finished_at: datetime | None = None
    """When the answer was recorded."""
    posted_at: datetime | None = None
    """When the money was posted, or posted again."""
    kind: AttemptKind = AttemptKind.FIRST
    credential: str = ""
    anomalies: tuple[str, ...] = ()
    settled_by_hand_at: datetime | None = None
    """When an operator entered the bill that `posted_nano_usd` now shows."""
    limit_ids: tuple[int, ...] = ()
    """The provider limits it took from."""
    output_token_bound: int = 0
    health: Health | None = None
    """What it says about its provider, once it is posted."""
    late_due_at: datetime | None = None
    """When recovery settles this late answer if its settle task was lost."""

    @property
    def process(self) -> str:
        """The `worker_id` without its claim number: whose lease the attempt lives by."""
        return self.worker_id.partition("/")[0]

    @property
    def is_left_open(self) -> bool:
        """True if an answer was recorded, and its bill is unknown."""
        return self.status is AttemptStatus.UNKNOWN and self.finished_at is not None

    @property
    def is_paid_failure(self) -> bool:
        """True if it was answered and brought no result."""
        was_paid = self.reply is not None or bool(self.posted_nano_usd)
        return self.status is AttemptStatus.FAILED and was_paid

    @property
    def is_repair_used(self) -> bool:
        """True if it is a repair that was answered, or may have been."""
        was_free = self.status is AttemptStatus.FAILED and not self.is_paid_failure
        return self.kind is AttemptKind.REPAIR and not was_free

    @property
    def is_uncounted(self) -> bool:
        """True if it failed, cost nothing, and was a probe or refused for the provider's rate."""
        has_failed = self.status is AttemptStatus.FAILED and not self.posted_nano_usd
        return has_failed and (self.kind is AttemptKind.PROBE or self.health is Health.LIMITED)

    @property
    def is_lost(self) -> bool:
        """True if its worker vanished, and no late answer came."""
        return self.status is AttemptStatus.UNKNOWN and self.finished_at is None

    def view(self, *, with_reply: bool) -> AttemptView:
        """The row as callers see it."""
        return AttemptView(
            attempt_id=self.attempt_id,
            attempt=self.attempt,
            status=self.status,
            hold_nano_usd=self.hold_nano_usd,
            posted_nano_usd=self.posted_nano_usd,
            usage=self.usage,
            price_source=self.price_source,
            service_tier=self.service_tier,
            latency_ms=self.latency_ms,
            queue_ms=self.queue_ms,
            provider_request_id=self.provider_request_id,
            error=self.error,
            reply=self.reply if with_reply else None,
            worker_id=self.worker_id,
            started_at=self.started_at,
            finished_at=self.finished_at,
            kind=self.kind,
            credential=self.credential,
            anomalies=self.anomalies,
            trace_id=self.trace_id,
        )


@dataclass(slots=True)
class LeaseRow:
    """A worker process that was alive at `renewed_at`."""

    worker_id: str
    began_at: datetime
    """If it changes, the lease was released and granted again."""
    stable_since: datetime
    """Since then no renewal was late."""
    renewed_at: datetime
    expires_at: datetime
    limits_digest: str | None = None
    """Of the declaration of provider limits that it published."""
    fingerprint: Fingerprint | None = None
    sections: Mapping[str, str] = field(default_factory=dict)
    """Digests of its catalogue's sections."""
    slots: int | None = None
    """How many calls it runs at a time; None: it does not say."""

    @property
    def length(self) -> timedelta:
        """How long it lasts without a renewal."""
        return self.expires_at - self.renewed_at

    @property
    def is_given_away(self) -> bool:
        """True if the lease is released but kept, because some of its calls were locked."""
        return self.began_at == self.expires_at


@dataclass(slots=True)
class AlertRow:
    """One alert."""

    alert_id: int
    kind: AlertKind
    key: str
    org_id: str
    subject: str
    detail: dict[str, Any]
    at: datetime
    resolved_at: datetime | None = None
    is_queued: bool = False

    def fact(self) -> Alert:
        """What is told about it."""
        return Alert(
            self.alert_id, self.kind, self.org_id, self.subject, self.detail, self.at,
            self.resolved_at,
        )  # fmt: skip


@dataclass(slots=True)
class AlertDeliveryRow:
    """One message about an alert."""

    delivery_id: UUID
    alert_id: int
    event: AlertEvent
    channel: Channel
    queued_at: datetime
    next_at: datetime
    tries: int = 0
    delivered_at: datetime | None = None
    failure: str | None = None
    dead_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """True if it is neither delivered nor dead."""
        return self.delivered_at is None and self.dead_at is None
