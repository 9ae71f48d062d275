"""Planted defects of slots: one organisation keeps them, or they stay free while calls wait."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import slots as memory_slots
from callgate.adapters.memory.rows import CallRow
from callgate.domain import slots
from callgate.domain.slots import OrgWork, share_of
from tests.simulation.mutations.registry import Patched, caught_by

GAVE_WAY_WRONGLY = "who_gives_way_leaves_no_slot_free"


@caught_by("slots_are_shared", slots_short=1)
def nobody_gives_way() -> Patched:
    """Who comes first in the queue is served first."""
    return patch.object(slots, "gives_way", lambda *_: False)


@caught_by(GAVE_WAY_WRONGLY, slots_short=1)
def a_call_gives_way_although_nobody_waits() -> Patched:
    """Each organisation keeps to its share of all slots, with or without others."""

    def modest(number: int, mine: OrgWork, others: Sequence[OrgWork]) -> bool:
        return mine.running >= number / (1 + len(others))

    return patch.object(slots, "gives_way", modest)


@caught_by(GAVE_WAY_WRONGLY, slots_short=1)
def own_calls_are_taken_for_those_of_others() -> Patched:
    """The rest of its own batch asks for the slot too."""
    gives_way = slots.gives_way

    def confused(number: int, mine: OrgWork, others: Sequence[OrgWork]) -> bool:
        return gives_way(number, mine, [*others, OrgWork(0, mine.queued, mine.asking)])

    return patch.object(slots, "gives_way", confused)


@caught_by(GAVE_WAY_WRONGLY, slots_short=1)
def free_slots_are_not_counted() -> Patched:
    """One call that asks is enough, however many slots are free."""

    def hasty(number: int, mine: OrgWork, others: Sequence[OrgWork]) -> bool:
        share = share_of(number, [mine.usable, *(other.usable for other in others)])
        return mine.running >= share and any(o.asking and o.running < share for o in others)

    return patch.object(slots, "gives_way", hasty)


@caught_by(GAVE_WAY_WRONGLY, slots_short=1, lost_at_pop=0.3)
def slots_wait_for_lost_messages() -> Patched:
    """A call that is queued asks for a slot until a sweep finds it."""
    is_asking = memory_slots._is_asking

    def forever(call: CallRow, since: datetime, now: datetime) -> bool:
        return is_asking(call, datetime.min.replace(tzinfo=since.tzinfo), now)

    return patch.object(memory_slots, "_is_asking", forever)


@caught_by("slots_are_shared", slots_short=1)
def calls_that_run_are_not_counted() -> Patched:
    """Who has the most queued is taken for the one that has the most."""
    gives_way = slots.gives_way

    def blind(number: int, mine: OrgWork, others: Sequence[OrgWork]) -> Any:
        idle = [OrgWork(0, other.queued, other.asking) for other in others]
        return gives_way(number, OrgWork(0, mine.queued, mine.asking), idle)

    return patch.object(slots, "gives_way", blind)


@caught_by("a_backlog_moves", "every_call_ends", slots_short=1)
def who_gave_way_is_forgotten() -> Patched:
    """Nothing is queued again, once slots were short."""
    return patch.object(memory_slots, "released", lambda *_: 0)
