"""
What happened to one call, and when: its attempts, who asked for it, who was told, what operators did.

Amounts are nano-USD; times come from the ledger's own clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from callgate.domain.calls import AttemptView, CallKey, CallState, CallView
from callgate.domain.reports import OperatorAction

ATTEMPTS_MAX = 200
"""The newest attempts that are shown of a call."""
SUBMISSIONS_MAX = 50
GENERATIONS_MAX = 50
ACTIONS_MAX = 50
BODY_MAX_BYTES = 256 * 1024
"""So much is shown of a body."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, and what only its row knows."""

    view: AttemptView
    posted_at: datetime | None
    """When its money was posted, or posted again."""
    settled_by_hand_at: datetime | None
    reply_bytes: int | None
    """The size of its reply; None: it has none, or it was purged."""


@dataclass(frozen=True, slots=True)
class SubmissionLine:
    """One time a client asked for the call."""

    submission_id: UUID
    outcome: str
    """`created`, `joined`, `replayed`, `failed` or `inherited`."""
    at: datetime
    idempotency_key: str | None
    has_link: bool
    delivered_at: datetime | None
    tries: int
    failure: str | None
    try_at: datetime | None
    """When a link that was not delivered is tried again."""
    given_up_at: datetime | None


@dataclass(frozen=True, slots=True)
class Submissions:
    """Who asked for a call: the first of them, and how many there are; ten thousand are counted at most."""

    lines: tuple[SubmissionLine, ...] = ()
    total: int = 0
    collapsed: int = 0
    """Without a call of their own."""
    saving: int = 0
    """Those of them that the call's answer answers."""
    links: int = 0
    told: int = 0
    given_up: int = 0


@dataclass(frozen=True, slots=True)
class Generation:
    """One run of the same call."""

    key: CallKey
    state: CallState
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CallHistory:
    """All that is kept of one call besides its view."""

    attempts: tuple[Attempt, ...]
    """The newest `ATTEMPTS_MAX`, oldest first."""
    submissions: Submissions
    generations: tuple[Generation, ...]
    """All of the same call, this one too; newest first."""
    actions: tuple[OperatorAction, ...]
    """What operators did to it or to its attempts, newest first. Empty for a login that may not read them."""


@dataclass(frozen=True, slots=True)
class Body:
    """What an operator is shown of a request or a reply."""

    data: bytes | None = field(repr=False)
    """Its beginning. None: it was purged, or there never was one."""
    size_bytes: int


class Step(StrEnum):
    """What an event of the timeline is."""

    SUBMITTED = "submitted"
    QUEUED = "queued"
    RESERVED = "reserved"
    """Its hold was made; it was dispatched at once."""
    ANSWERED = "answered"
    SETTLED = "settled"
    SETTLED_BY_HAND = "settled by hand"
    TOLD = "told"
    """Links were published."""
    GIVEN_UP = "given up"
    """A link could not be published."""
    ACTION = "action"


STEPS = tuple(Step)


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One thing that happened."""

    at: datetime
    step: Step
    attempt: Attempt | None = None
    submission: SubmissionLine | None = None
    action: OperatorAction | None = None
    count: int = 1
    """How many alike there were from `at` on."""


def timeline(view: CallView, history: CallHistory) -> list[TimelineEvent]:
    """Return what happened to a call, oldest first."""
    events = [
        *_of_submissions(view, history.submissions),
        *(e for attempt in history.attempts for e in _of_attempt(attempt, view.created_at)),
        *(TimelineEvent(a.at, Step.ACTION, action=a) for a in history.actions),
    ]
    return sorted(events, key=lambda event: (event.at, STEPS.index(event.step)))


def saved_nano_usd(view: CallView, submissions: Submissions) -> int:
    """What the submissions that collapsed into a call did not cost."""
    return submissions.saving * view.posted_nano_usd if view.state is CallState.SUCCEEDED else 0


def _of_submissions(view: CallView, submissions: Submissions) -> Iterator[TimelineEvent]:
    if not any(line.outcome == "created" for line in submissions.lines):
        yield TimelineEvent(view.created_at, Step.SUBMITTED)
    for line in submissions.lines:
        yield TimelineEvent(line.at, Step.SUBMITTED, submission=line)
        if line.given_up_at:
            yield TimelineEvent(line.given_up_at, Step.GIVEN_UP, submission=line)
    told = sorted(
        (x for x in submissions.lines if x.delivered_at), key=lambda x: str(x.delivered_at)
    )
    if told and told[0].delivered_at:
        yield TimelineEvent(told[0].delivered_at, Step.TOLD, submission=told[0], count=len(told))


def _of_attempt(attempt: Attempt, created_at: datetime) -> Iterator[TimelineEvent]:
    view = attempt.view
    # It was measured in whole milliseconds.
    queued_at = max(created_at, view.started_at - timedelta(milliseconds=view.queue_ms))
    yield TimelineEvent(queued_at, Step.QUEUED, attempt)
    yield TimelineEvent(view.started_at, Step.RESERVED, attempt)
    if view.finished_at:
        yield TimelineEvent(view.finished_at, Step.ANSWERED, attempt)
    if attempt.posted_at:
        yield TimelineEvent(attempt.posted_at, Step.SETTLED, attempt)
    if attempt.settled_by_hand_at:
        yield TimelineEvent(attempt.settled_by_hand_at, Step.SETTLED_BY_HAND, attempt)
