"""
How organisations share the slots of the workers: each one with work has an equal share, and nobody's slot stays free.

The fair share is what each organisation may have of the slots, if all take the same and those that want less leave the
rest to the others (max-min fairness). A claim gives way if its organisation has its share, and organisations that are
clearly below theirs have queued calls for all slots that are free. Such a call waits in the backlog, and keeps its
place in its organisation's line. The Postgres functions contain the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf

AHEAD_MIN, AHEAD_MAX = 64, 1_000
"""How many calls of one organisation are queued: about as many as there are slots, within these bounds."""
AT_ONCE_PART = 0.25
"""The backlog is released when so large a part of that is free, so that each release is worth its statement."""
CLEARLY_BELOW = 7 / 8
"""
An organisation that has less than this part of its fair share is given the next slot.

Without a distance, each slot that becomes free would send back the calls of all others that are queued before: all of
them have their share, within one call.
"""
SPARE_MIN, SPARE_PART = 8, 0.25
"""While slots are short, so many calls are queued beyond what an organisation may run: at least, and of its share."""
COUNTED_MAX = 256
"""Queued calls of an organisation are counted up to here, when a claim is decided."""
IN_HAND_S = 5.0
"""
For how long a call that is before a claim in the queue still counts as asking. A worker may just have taken it; later
its message was lost, and no slot waits for that.
"""
GAVE_WAY = json.dumps({"code": "backlog", "message": "calls of other organisations come first"})


@dataclass(frozen=True, slots=True)
class OrgWork:
    """
    The calls of one organisation that have slots or want them.

    A new call that would only be refused wants none: one that is paused, or whose kind has calls that wait for their
    provider or for a place. Otherwise a batch that must wait would keep slots free while it is looked at.
    """

    running: int
    queued: int
    asking: int = 0
    """Those of the queued calls that take the next slots, if others leave them."""

    @property
    def usable(self) -> int:
        """How many slots it could use."""
        return self.running + self.queued


def ahead_max(slots: int | None) -> int:
    """How many calls of an organisation are queued, by the number of slots; None: that is not known."""
    return AHEAD_MAX if slots is None else min(AHEAD_MAX, max(AHEAD_MIN, slots))


def share_of(slots: int, usable: Iterable[float]) -> float:
    """The most slots that an organisation may have beside the others; without end if all of them find theirs."""
    left, ascending = float(slots), sorted(usable)
    for n, want in enumerate(ascending):
        part = left / (len(ascending) - n)
        if want >= part:
            return part
        left -= want
    return inf


def gives_way(slots: int, mine: OrgWork, others: Sequence[OrgWork]) -> bool:
    """True if a claim of an organisation leaves its slot to the others."""
    share = share_of(slots, [mine.usable, *(other.usable for other in others)])
    if mine.running < share:
        return False
    below = [other for other in others if other.running < CLEARLY_BELOW * share]
    asked = sum(min(other.asking, ceil(share - other.running)) for other in below)
    free = slots - mine.running - sum(other.running for other in others)
    return asked >= max(1, free)


def released(slots: int | None, mine: OrgWork, others: Sequence[OrgWork]) -> int:
    """How many calls of an organisation's backlog are queued now."""
    most = ahead_max(slots)
    if slots is not None and others:
        # It has a backlog, so it could use any number.
        share = share_of(slots, [inf, *(other.running + other.asking for other in others)])
        if mine.running >= share:
            return 0
        spare = max(SPARE_MIN, int(share * SPARE_PART))
        most = min(most, ceil(share - mine.running) + spare)
    room = most - mine.queued
    return room if room >= most * AT_ONCE_PART else 0
