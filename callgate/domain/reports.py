"""
What operators ask of the ledger: the words of `OperationsPort`.

Amounts are nano-USD; times come from the ledger's own clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from callgate.domain.calls import CallState, WaitReason
from callgate.domain.concurrency import CallsOf
from callgate.domain.limits import Measure, Source


class EndReason(StrEnum):
    """Why an operator ends a call without an answer, and so which calls that can end."""

    CANCELLED = "cancelled"
    DISCARDED = "discarded"

    @property
    def ends(self) -> tuple[CallState, ...]:
        """States in which a call can be ended for this reason."""
        if self is EndReason.CANCELLED:
            return (CallState.QUEUED, CallState.WAITING)
        return (CallState.DEAD,)


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls an operator means; every field that is set narrows."""

    org_id: str | None = None
    state: CallState | None = None
    call_type: str | None = None
    provider: str | None = None
    model: str | None = None
    error_fingerprint: str | None = None
    """Of what a call waits for, or is dead or rejected for."""
    call_ids: tuple[UUID, ...] = ()
    wait_reason: WaitReason | None = None
    end_reason: str | None = None
    """The code of the error of a dead or rejected call."""
    since: datetime | None = None
    """Created then or later."""
    until: datetime | None = None
    """Created before."""
    tier: str | None = None
    """With an attempt of this service tier; as the next two."""
    kind: str | None = None
    outcome: str | None = None
    reason: str | None = None
    """Why it waits, or the code of the error of a dead or rejected call."""
    trace_id: str | None = None
    """With an attempt of this trace."""
    generation: int | None = None
    """Of those that `call_ids` names."""


@dataclass(frozen=True, slots=True)
class By:
    """Who changes something, and why."""

    operator: str
    reason: str

    def __post_init__(self) -> None:
        if not self.operator.strip() or not self.reason.strip():
            raise ValueError("a change needs an operator and a reason")


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """A row of the action log (`operator_action`): who changed what, and why."""

    at: datetime
    by: By
    action: str
    """For example `breaker.open`."""
    org_id: str | None
    """Whose money or calls; None: of no one organisation."""
    subject: str
    detail: dict[str, object]


@dataclass(frozen=True, slots=True)
class LimitLine:
    """A provider limit, as operators see it."""

    provider: str
    model: str
    """A model; or a pattern, if the models that match share the limit."""
    credential: str
    """The organisation whose own key it limits; empty: the provider's key."""
    source: Source
    measure: Measure
    window_s: int
    amount: int
    is_shared: bool
    capacity: float
    """The most that may be used at once."""
    free: float
    """What may be used now."""
    refill_per_s: float
    changed_at: datetime
    """When the amount was last declared, confirmed or observed; in the future while the key is blocked."""
    granted_at: datetime | None
    """When an attempt last took from it."""
    waiting: dict[str, int]
    """The calls that wait for its keys, by organisation; a hundred organisations at most."""


@dataclass(frozen=True, slots=True)
class ConcurrencyLine:
    """How many calls may run at a time, how many do, and how many wait for that."""

    org_id: str
    """Empty: each organisation. Then nothing is counted."""
    call_type: str
    """Empty: all calls of the organisation, or each call type."""
    calls_of: CallsOf
    amount: int
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """How many calls come before one and wait for the same. A ledger may stop counting at ten thousand."""

    of_call_type: int
    """Of its organisation and its call type."""
    of_organisation: int
    """Of all its organisation."""


@dataclass(frozen=True, slots=True)
class RecentEnd:
    """Calls that ended alike, without an answer, a short while ago."""

    state: str
    """`dead` or `rejected`."""
    reason: str
    calls: int
    orgs: int
    """How many organisations they belong to."""
    org_id: str
    """The one with the most of them. The next three are of calls of this organisation."""
    provider: str = ""
    model: str = ""
    error_fingerprint: str | None = None
    fingerprints: int = 0
    """How many there are in all."""
    needed_nano_usd: int | None = None
    """What a budget's limit needs at least, so that the dearest of these calls fits."""


@dataclass(frozen=True, slots=True)
class LimitPublisher:
    """A worker process that has published the provider limits of its catalogue."""

    worker_id: str
    digest: str
    is_current: bool
    """Whether its declaration is the one that counts."""


@dataclass(frozen=True, slots=True)
class BreakerLine:
    """A breaker, as operators see it."""

    provider: str
    model: str
    credential: str
    org_id: str
    """Whose calls it guards; empty: the shared one."""
    is_open: bool
    reason: str | None
    failures: int
    changed_at: datetime
    proven_at: datetime | None
    probe_at: datetime | None
    waiting: int
    """Calls that wait because of this breaker. One that waits because of both is counted at the shared one."""
    cause: str | None = None
    """What exactly failed, where callgate knows it; see `callgate.domain.causes`."""
    error_fingerprint: str | None = None
    """What the calls that died because of it have in common, if a failure opened it."""


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead letters that failed alike."""

    error_fingerprint: str
    provider: str
    model: str
    sample_error: str
    count: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class SpendingLine:
    """What succeeded attempts of one call type of one organisation held and cost lately."""

    org_id: str
    call_type: str
    provider: str
    model: str
    attempts: int
    output_tokens: int
    hold_nano_usd: int
    posted_nano_usd: int


@dataclass(frozen=True, slots=True)
class BudgetDrift:
    """One budget period as counted and as its rows say; both differences must be 0."""

    budget_id: int
    org_id: str
    scope: str
    window: str
    starts_at: datetime
    reserved_nano_usd: int
    reserved_by_rows_nano_usd: int
    spent_nano_usd: int
    spent_by_rows_nano_usd: int

    @property
    def drift_nano_usd(self) -> int:
        """How far the figures are from the rows."""
        return abs(self.reserved_nano_usd - self.reserved_by_rows_nano_usd) + abs(
            self.spent_nano_usd - self.spent_by_rows_nano_usd
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures of the ledger for `callgate audit`. Its sums are proven beside, day by day."""

    at: datetime
    budgets: tuple[BudgetDrift, ...]
    calls_by_state: dict[str, int]
    attempts_by_status: dict[str, int]
    dead_letters: int
    spent_nano_usd: int
    """Σ posted over all attempts, those of dropped partitions included."""
    unknown_attempts: int
    """Attempts whose bill is unknown: only these can make a call be paid twice."""
    broken_seals: int
    """Days whose sums are not any more what was proven of them."""
    gaps: int
    """Days of before the sums were kept that are not summed up yet."""


@dataclass(frozen=True, slots=True)
class LockHoarder:
    """A session of a client that holds too many of the server's locks."""

    login: str
    locks: int
    pid: int
    was_ended: bool
    """False: the owner of the ledger has no right to end it."""


@dataclass(frozen=True, slots=True)
class UnprocessableMessage:
    """A message that named no call."""

    queue: str
    reason: str
    raw: bytes
