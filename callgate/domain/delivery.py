"""
Links on their way to those who gave them, and the rule for those that cannot be published.

A link that is refused waits by itself, twice as long each time, and is given up in the end; others do not wait for it.
An outage of the broker is no link's failure: nothing is said of it then, and it is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from callgate.domain.calls import CallKey, CallState

TRIES_MAX = 20
"""With the waits below: half a day, in which an operator may mend a broker or a queue."""
WAIT_S_MIN = 10.0
WAIT_MAX_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A link that is to be published: at least once, with the submission's id as its task id."""

    submission_id: UUID
    key: CallKey
    state: CallState
    link: str = field(repr=False)
    org_id: str = ""
    tries: int = 0
    """How often it was tried before."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one try to publish a link."""

    submission_id: UUID
    why: str | None = None
    """Why it was not published: words without anything of the link's; None: it was."""
    is_final: bool = False
    """It can never be published, whatever the broker is like."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the ledger is to keep of that."""

    submission_id: UUID
    why: str | None = None
    again_s: float | None = None
    """With `why`: when to try again; None: never."""


@dataclass(frozen=True, slots=True)
class LinkFailure:
    """A link that could not be delivered so far, as operators see it."""

    submission_id: UUID
    tries: int
    why: str
    try_at: datetime | None
    """When it is tried again; None: it was given up."""
    given_up_at: datetime | None


def told(delivery: Delivery, published: Published) -> Told:
    """Decide when to try again: after 10 s, 20 s, 40 s, ... and then every hour, up to `TRIES_MAX` tries."""
    if published.why is None:
        return Told(delivery.submission_id)
    is_last = published.is_final or delivery.tries + 1 >= TRIES_MAX
    again_s = min(WAIT_MAX_S, WAIT_S_MIN * 2.0**delivery.tries)
    return Told(delivery.submission_id, published.why, None if is_last else again_s)
