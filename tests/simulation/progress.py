"""
The rule of progress: where limits and places have room, somebody who has waited for them is sent.

The rules of `flow.py` and `places.py` look at one statement. Two lines whose calls refuse each other break none of
them: each call waits for the others, and is looked at again and again. So this looks at the time between two claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from callgate.adapters.memory.rows import CallRow, GuardKey
from callgate.domain.calls import CallKey, CallState

if TYPE_CHECKING:
    from tests.simulation.world import World

IN_VAIN_FOR = timedelta(seconds=30)
IN_VAIN_MAX = 6
"""So often, and for so long, calls that have waited may be refused although there is room. Processes die and pause."""


@dataclass(slots=True)
class InVain:
    """Refusals of a key since its last claim, while there was room for one more."""

    since: datetime
    count: int = 0


class Progress:
    """Who has waited for a place or a limit, and is refused again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: set[CallKey] = set()
        self._in_vain: dict[GuardKey, InVain] = {}

    def admitted(self, call: CallRow, credential: str) -> None:
        """A call is sent."""
        self._waiting.discard(call.key)
        self._in_vain.pop((call.provider, call.model, credential), None)

    def refused(self, call: CallRow, credential: str, *, is_for_money: bool) -> None:
        """A call finds no place, or its provider is not asked: it may not be so again and again without a reason."""
        has_waited = call.key in self._waiting
        if is_for_money or call.state is not CallState.WAITING:
            self._waiting.discard(call.key)
            return
        self._waiting.add(call.key)
        if not has_waited:
            return
        now, key = self._world.scheduler.time(), (call.provider, call.model, credential)
        if not self._has_room(call, key, now):
            self._in_vain.pop(key, None)
            return
        seen = self._in_vain.setdefault(key, InVain(now))
        seen.count += 1
        self._world.scheduler.counts["refused in vain"] += 1
        name = self._world.named(call.key)
        said = f"{name} is refused, the {seen.count}th time that one is, since {self._world.names.seconds(seen.since)}"
        is_short = now - seen.since < IN_VAIN_FOR or seen.count < IN_VAIN_MAX
        self._world.invariants.check("what_has_room_sends_somebody", is_short, said)

    def refused_by_others(self, call: CallRow) -> None:
        """A call waits for something else, or ends."""
        self._waiting.discard(call.key)

    def _has_room(self, call: CallRow, key: GuardKey, now: datetime) -> bool:
        rules = self._world.invariants
        return (
            rules.breakers.knows(key)
            and rules.flow.waits.may_be_tried(key, call.org_id, now)
            and rules.flow.waits.is_free(key, now)
            and not rules.flow.never_fits(call)
            and rules.places.has_room(call)
        )
