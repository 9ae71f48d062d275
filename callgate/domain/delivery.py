"""
Links that are delivered when a call ends, and the rule for links that cannot be published.

A link that the broker refuses is tried again, after twice the wait each time, and is given up in the end. Other links
do not wait for it. An outage of the broker does not count as a failure of the link.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from callgate.domain.calls import CallKey, CallState

TRIES_MAX = 20
"""With the waits below: half a day, in which an operator can repair a broker or a queue."""
WAIT_MIN_S = 10.0
WAIT_MAX_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A link to publish, at least once, with the submission's id as its task id."""

    submission_id: UUID
    key: CallKey
    state: CallState
    link: str = field(repr=False)
    org_id: str = ""
    tries: int = 0
    """The number of earlier tries."""


@dataclass(frozen=True, slots=True)
class Published:
    """The result of one try to publish a link."""

    submission_id: UUID
    why: str | None = None
    """Why it was not published, without content of the link; None if it was published."""
    is_final: bool = False
    """True if no broker would ever accept it."""


@dataclass(frozen=True, slots=True)
class LinkOutcome:
    """What the ledger keeps of that try."""

    submission_id: UUID
    why: str | None = None
    again_s: float | None = None
    """With `why`: when to try again; None: never."""


@dataclass(frozen=True, slots=True)
class LinkFailure:
    """A link that is not delivered yet."""

    submission_id: UUID
    tries: int
    why: str
    try_at: datetime | None
    """When it is tried again; None: it was given up."""
    given_up_at: datetime | None


def link_outcome_of(delivery: Delivery, published: Published) -> LinkOutcome:
    """Decide when to try again: after 10 s, 20 s, 40 s, ... and then every hour, up to `TRIES_MAX` tries."""
    if published.why is None:
        return LinkOutcome(delivery.submission_id)
    is_last = published.is_final or delivery.tries + 1 >= TRIES_MAX
    again_s = min(WAIT_MAX_S, WAIT_MIN_S * 2.0**delivery.tries)
    return LinkOutcome(delivery.submission_id, published.why, None if is_last else again_s)
