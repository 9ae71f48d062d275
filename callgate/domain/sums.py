"""
Sums of what attempts used, by quarter hour: what `callgate costs` shows and `callgate audit` proves.

An attempt belongs to the quarter hour of its `started_at`, whenever it is posted. The days of every time zone consist
of quarter hours. A submission that was answered without a call of its own belongs to the quarter hour in which it came;
it is an entry of the kind `collapsed`, with its outcome. Amounts are nano-USD.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta

QUARTER = timedelta(minutes=15)
QUARTERS_PER_DAY = 96
COLLAPSED = "collapsed"
"""The kind of an entry that is no attempt."""
DIMENSIONS = ("org_id", "project", "call_type", "provider", "model", "tier", "kind", "outcome")
BY_DAY = "day"
"""The one way to group sums that is no dimension: by day in UTC."""
DEFAULT_BY = ("org_id", "call_type", "provider", "model")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def quarter_of(at: datetime) -> datetime:
    """When the quarter hour of a moment began."""
    return _EPOCH + (at - _EPOCH) // QUARTER * QUARTER


def day_of(at: datetime) -> datetime:
    """When the day of a moment began, in UTC."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class SumKey:
    """Of what a sum is."""

    org_id: str
    call_type: str
    provider: str
    model: str
    kind: str
    outcome: str
    tier: str | None = None
    """The service tier that was billed; None: not known."""
    project: str | None = None
    """Always None: no call has a project yet."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What is summed up."""

    attempts: int = 0
    calls: int = 0
    """Attempts that were the first of their call: so many calls were sent."""
    posted_nano_usd: int = 0
    unknown_bills: int = 0
    """Attempts whose bill is unknown, and was not settled by hand."""
    unknown_nano_usd: int = 0
    """What those have posted: their whole holds."""
    without_tokens: int = 0
    """Attempts that posted an amount, and whose tokens are not known. Sums of tokens lack them."""
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    latency_ms: int = 0
    """Of all attempts that were answered, together."""
    timed: int = 0
    """So many were answered."""
    collapsed: int = 0
    """Submissions that were answered without a call of their own."""
    saved_nano_usd: int = 0
    """What those would have cost: what their call had posted when they were answered."""

    def __add__(self, other: Measures) -> Measures:
        """Sum up both."""
        return Measures(*(getattr(self, n) + getattr(other, n) for n in MEASURES))

    def __neg__(self) -> Measures:
        """Take all of it back."""
        return Measures(*(-getattr(self, n) for n in MEASURES))


MEASURES = tuple(field.name for field in fields(Measures))
NOTHING = Measures()


@dataclass(frozen=True, slots=True)
class Delta:
    """What a changed row adds to the sums."""

    starts_at: datetime
    key: SumKey
    measures: Measures
    budget_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CostFilter:
    """Which sums are meant; every field that is set narrows. An empty tier or project means none."""

    org_id: str | None = None
    project: str | None = None
    call_type: str | None = None
    provider: str | None = None
    model: str | None = None
    tier: str | None = None
    kind: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    """Its quarter hour is counted wholly."""
    until: datetime | None = None
    """Its quarter hour is counted wholly, if it has begun by then."""

    @property
    def period(self) -> tuple[datetime | None, datetime | None]:
        """The whole quarter hours from `since` to `until`; None: without limit."""
        until = self.until and quarter_of(self.until)
        if self.until and until != self.until:
            until = quarter_of(self.until) + QUARTER
        return self.since and quarter_of(self.since), until


@dataclass(frozen=True, slots=True)
class CostLine:
    """What one group of attempts used. Dimensions by which nothing was grouped are None."""

    used: Measures
    succeeded: int
    """Attempts with a result."""
    failed_nano_usd: int
    """What failed attempts have posted."""
    retry_nano_usd: int
    """What attempts of the kind `retry` have posted."""
    repair_nano_usd: int
    gaps: int = 0
    """Days of before the sums were kept that are not summed up yet: of all groups together."""
    day: date | None = None
    org_id: str | None = None
    project: str | None = None
    call_type: str | None = None
    provider: str | None = None
    model: str | None = None
    tier: str | None = None
    kind: str | None = None
    outcome: str | None = None

    @property
    def latency_ms_mean(self) -> int | None:
        """Of the attempts that were answered; None if none was."""
        return round(self.used.latency_ms / self.used.timed) if self.used.timed else None


@dataclass(frozen=True, slots=True)
class SumProof:
    """What a comparison of sums with rows has found, of one time or of several."""

    wrong_sums: int = 0
    drift_nano_usd: int = 0
    """By how much those differ from their rows."""
    wrong_budgets: int = 0
    """Budgets whose posted amount of a day is not that of the rows."""
    calls_with_missing_rows: int = 0
    """Calls that have not exactly one row in `ai_call_log` for each of their attempts."""
    rows_without_call: int = 0
    sealed: int = 0
    """Quarter hours that are sealed now."""

    @property
    def is_clean(self) -> bool:
        """True if nothing is wrong."""
        return not (
            self.wrong_sums
            or self.wrong_budgets
            or self.calls_with_missing_rows
            or self.rows_without_call
        )

    @classmethod
    def sum_of(cls, proofs: Iterable[SumProof]) -> SumProof:
        """All of them together."""
        found = list(proofs)
        return cls(*(sum(getattr(p, f.name) for p in found) for f in fields(cls)))
