"""
Which call comes first: classes, deadlines, and the two lanes to the workers.

Within an organisation the class decides, then the age. A class is worth six hours of age, so nothing starves. Calls
that were tried come after those that were not: each attempt is worth ten minutes.

What cannot run soon is not in the broker. An organisation has a bounded number of calls there; the others wait in the
ledger, in the backlog. The few calls of an organisation that has few, and interactive ones, take the express lane while
others are queued. The Postgres functions contain the same numbers.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import IntEnum, StrEnum

CLASS_AGE = timedelta(hours=6)
"""How much older a call must be to come before one of the next class."""
ATTEMPT_AGE = timedelta(minutes=10)
"""Each attempt moves a call back by this much."""
CONGESTED_MIN, CONGESTED_MAX = 40, 64
"""From half as many queued calls as slots on, within these bounds, a call at the end of the queue would wait."""
EXPRESS_CALLS_MAX = 8
"""So many calls of an organisation take the express lane."""
INTERACTIVE_MAX = 64
"""So many interactive calls of an organisation take the express lane."""
EXPRESS_SWEPT_AFTER = timedelta(seconds=60)
"""A sweep passes through the other queue. So a call of the express lane counts as lost only after this long."""
BACKLOG_WAIT = timedelta(days=1)
"""A call of the backlog is published after this long, even if others were released before it."""
DEADLINE_CODE = "deadline_passed"
"""Why a call is rejected that was not sent before its deadline."""


class Priority(IntEnum):
    """The class of a submission; of several submissions of a call the highest counts."""

    BULK = 0
    NORMAL = 1
    INTERACTIVE = 2


class Lane(StrEnum):
    """A queue of calls."""

    CALL = "call"
    EXPRESS = "express"
    """Workers take from it first."""


def rank_of(created_at: datetime, priority: Priority, attempts: int) -> datetime:
    """The rank of a call: of an organisation's calls the one with the earliest rank comes first."""
    return created_at - priority * CLASS_AGE + attempts * ATTEMPT_AGE


def congested_at(slots: int | None) -> int:
    """
    From how many queued calls on the express lane is used; None: nobody knows how many slots there are.

    A backlog is released when a quarter of the queue is free. So with a backlog more than that are always queued.
    """
    return CONGESTED_MAX if slots is None else min(CONGESTED_MAX, max(CONGESTED_MIN, slots // 2))


def lane_of(
    queued: int, interactive: int, priority: Priority, ahead_max: int, *, is_congested: bool
) -> Lane | None:
    """
    The lane of a call. None: it waits in the backlog.

    Args:
        queued: The calls of its organisation that are queued already.
        interactive: Those of them that are interactive.
        ahead_max: How many of its organisation are queued; twice as many with interactive ones.
    """
    is_interactive = priority is Priority.INTERACTIVE
    if queued >= (2 if is_interactive else 1) * ahead_max:
        return None
    is_express = queued < EXPRESS_CALLS_MAX or (is_interactive and interactive < INTERACTIVE_MAX)
    return Lane.EXPRESS if is_congested and is_express else Lane.CALL
