"""
Calls a page at a time, how many there are, and how they came in over time: the words of `CallSearchPort`.

Calls are ordered by when they were submitted, newest first. A search looks at a bounded number of calls, along an
index; if it stops before the page is full, the page says where, and the next one goes on from there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from callgate.domain.calls import CallKey, CallView
from callgate.domain.cost_series import HOURS_FOR, UTC_ZONE, CostSeriesPort, Grid, Step
from callgate.domain.errors import InvalidWords
from callgate.domain.reports import CallFilter
from callgate.domain.sums import QUARTER, CostFilter

LOOKED_MAX = 10_000
"""Calls that one page, or one count, looks at."""
ATTEMPTS_LOOKED_MAX = 500
"""The same, where each call's attempts are looked at."""
LISTED_PAGES = 3
"""A list that is one page looks at so many times more."""
COUNTED_MAX = 10_000
"""Counting stops there: there are that many or more."""
PAGE_MAX = 200
STEPS = (
    *(timedelta(minutes=m) for m in (1, 5)),
    QUARTER,
    *(timedelta(hours=h) for h in (1, 6)),
    *(timedelta(days=d) for d in (1, 7)),
)
"""How long the steps of a chart may be."""
STEPS_MAX = 120
"""Steps of one chart, about."""
CHART_USUAL = timedelta(days=1)
CHART_MAX = timedelta(days=790)
CHART_OF_ALL_MAX = timedelta(days=100)
"""Sums of so long are shown at most, of one organisation and of all."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_EPOCH = datetime(2000, 1, 3, tzinfo=UTC)
"""A Monday: steps of all lengths are counted from there."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the order of calls, after which a page begins."""

    created_at: datetime
    key: CallKey

    def __str__(self) -> str:
        """As it stands in a URL."""
        at = self.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return f"{at}~{self.key.task_id}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """
        Read it from a URL.

        Raises:
            InvalidWords: The text is no position.
        """
        at, _, task_id = text.partition("~")
        try:
            created_at = datetime.fromisoformat(at).astimezone(UTC)
            return cls(created_at, CallKey.from_task_id(task_id))
        except (ValueError, OverflowError):
            raise InvalidWords(
                "the page begins at no position of a list: go to the newest"
            ) from None


@dataclass(frozen=True, slots=True)
class PageOf:
    """Which page of a list is meant: the newest, the one older than a position, or the one newer."""

    limit: int = 50
    older_than: Position | None = None
    newer_than: Position | None = None
    looked_max: int | None = None
    """Calls to look at; None: the usual bound."""


@dataclass(frozen=True, slots=True)
class CallPage:
    """One page of calls, newest first."""

    views: tuple[CallView, ...]
    older: Position | None
    """Where the next page begins; None: there are no older calls."""
    newer: Position | None
    """Where the page before ends; None: this is the newest."""
    looked_to: datetime | None = None
    """The search stopped here before the page was full. None: it looked at all that there is."""


@dataclass(frozen=True, slots=True)
class CallCount:
    """How many calls a filter matches."""

    calls: int
    is_more: bool
    """There may be more: `COUNTED_MAX` were found."""
    looked_to: datetime | None
    """Only calls from then on were looked at; None: all."""


@dataclass(frozen=True, slots=True)
class CallChart:
    """How many there were in each step of time."""

    step_s: int
    since: datetime
    """When the first step begins."""
    until: datetime
    counts: Mapping[str, Mapping[datetime, int]]
    """By state of calls, or by status of attempts; then by the step's beginning. Steps without any are left out."""
    is_of_attempts: bool
    """From the sums: attempts by their outcome, where they began. Else calls by their state now, where they came in."""
    looked_to: datetime | None = None
    """Before that nothing was counted."""


def sums_can_tell(which: CallFilter) -> CostFilter | None:
    """Return the filter of sums that counts the attempts of the same calls; None if sums do not know what it asks."""
    unknown_to_sums = (
        *(which.state, which.wait_reason, which.end_reason, which.reason),
        *(which.error_fingerprint, which.trace_id, which.call_ids or None),
    )
    if any(value is not None for value in unknown_to_sums):
        return None
    return CostFilter(
        org_id=which.org_id,
        call_type=which.call_type,
        provider=which.provider,
        model=which.model,
        tier=which.tier,
        kind=which.kind,
        outcome=which.outcome,
        since=which.since,
        until=which.until,
    )


def step_of(span: timedelta) -> timedelta:
    """The shortest step of which a span has at most about `STEPS_MAX`."""
    fitting = (s for s in STEPS if span / s <= STEPS_MAX)
    return next(fitting, STEPS[-1])


def floor_of(at: datetime, step: timedelta) -> datetime:
    """When the step of a moment began."""
    return _EPOCH + (at - _EPOCH) // step * step


def chart_of_sums(sums: CostSeriesPort, which: CostFilter, now: datetime) -> CallChart:
    """Have sums count attempts by outcome: by hour for two days, by day in UTC for a longer time."""
    until = which.until or floor_of(now, QUARTER) + QUARTER
    longest = CHART_MAX if which.org_id else CHART_OF_ALL_MAX
    since = max(which.since or until - CHART_USUAL, until - longest)
    grid = Grid(Step.HOUR if until - since <= HOURS_FOR else Step.DAY, UTC_ZONE)
    since = grid.start_of(since)
    counts: defaultdict[str, dict[datetime, int]] = defaultdict(dict)
    for point in sums.cost_series(replace(which, since=since, until=until), grid, "outcome"):
        if point.attempts and point.name:
            counts[point.name][point.starts_at] = point.attempts
    step_s = int((HOUR if grid.step is Step.HOUR else DAY).total_seconds())
    return CallChart(step_s, since, until, dict(counts), is_of_attempts=True)


def looks_at_attempts(which: CallFilter) -> bool:
    """True if the attempts of each call decide."""
    return (which.tier, which.kind, which.outcome, which.trace_id) != (None,) * 4


def looked_max(which: CallFilter, page: PageOf) -> int:
    """How many calls are looked at for a page."""
    usual = ATTEMPTS_LOOKED_MAX if looks_at_attempts(which) else LOOKED_MAX
    return usual if page.looked_max is None else page.looked_max


def page_of(
    found: Sequence[Position],
    stop: Position | None,
    page: PageOf,
    read: Callable[[Sequence[CallKey]], Sequence[CallView]],
) -> CallPage:
    """
    Make a page of what a search has found.

    Args:
        found: In the direction of the search; one more than a page has, if there are so many.
        stop: Where the search stopped, if it did not look at all calls.
        read: Reads the calls of the page.
    """
    has_more = len(found) > page.limit
    shown = found[: page.limit]
    # Where a search in the same direction goes on.
    onward = shown[-1] if has_more else stop
    if page.newer_than:
        shown = shown[::-1]
    views = tuple(read([position.key for position in shown]))
    first = shown[0] if shown else page.older_than
    looked_to = stop.created_at if stop and not has_more else None
    if page.newer_than:
        older = shown[-1] if shown else page.newer_than
        return CallPage(views, older, onward, looked_to)
    return CallPage(views, onward, first if page.older_than else None, looked_to)
