"""
The rules of places: how many calls of an organisation run at a time, and who waits for that. Those of slots are asked
from here.

Nothing here asks `callgate.domain.concurrency`. What is declared is drawn here, what runs is counted from the states of
calls, and who waits is noted when it is refused.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from callgate.adapters.memory.rows import CallRow
from callgate.domain.calls import CallKey, CallState, WaitReason
from callgate.domain.concurrency import CallsOf, ConcurrencyRule
from callgate.domain.ledger import Reserve
from tests.simulation.faults import PLACES
from tests.simulation.row_rules import end_of_refused
from tests.simulation.slots import Slots

if TYPE_CHECKING:
    from tests.simulation.world import World

CHANCE = 0.1
"""Of a life in which places are declared."""
CHANCE_BESIDE_LIMITS = 0.5
"""The same, if a provider has limits: then two lines meet."""
ANY = 10**9
"""Where nothing is declared."""
ORGS = ("acme", "nova", "zeta")
TYPES = ("extract", "chat", "draft")


@dataclass(frozen=True, slots=True)
class DeclaredPlaces:
    """How many calls may run at a time in one life."""

    of_orgs: dict[str, int] = field(default_factory=dict)
    of_types: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int, chances: dict[str, float], *, has_limits: bool) -> DeclaredPlaces:
        """Draw some, of organisations, call types or both; apart, so that lives without them stay as they were."""
        rng = random.Random(f"places of {seed}")  # noqa: S311
        chance = CHANCE_BESIDE_LIMITS if has_limits else CHANCE
        if rng.random() >= chances.pop(PLACES, chance):
            return cls()
        kind = rng.choice(("orgs", "types", "both"))
        orgs = {org_id: rng.choice((1, 2, 3)) for org_id in ORGS if rng.random() < 0.8}
        types = {call_type: rng.choice((1, 1, 2)) for call_type in TYPES if rng.random() < 0.5}
        return cls(orgs if kind != "types" else {}, types if kind != "orgs" else {})

    def rules(self) -> tuple[ConcurrencyRule, ...]:
        """As workers declare them."""
        orgs = (ConcurrencyRule(CallsOf.ORGANISATION, *item) for item in self.of_orgs.items())
        types = (ConcurrencyRule(CallsOf.CALL_TYPE, *item) for item in self.of_types.items())
        return (*orgs, *types)

    def fits(self, org_id: str, call_type: str, taken: Iterable[str]) -> bool:
        """True if one more call finds a place beside calls of these types."""
        by_type = Counter(taken)
        return (
            by_type.total() < self.of_orgs.get(org_id, ANY)
            and by_type[call_type] < self.of_types.get(call_type, ANY)
        )  # fmt: skip


class Places:
    """Who runs, who waits for a place, and whom a statement has woken."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._slots = Slots(world)
        self._declared = world.places
        self._line: dict[CallKey, CallRow] = {}
        self._due_at: dict[CallKey, datetime] = {}
        """Of the calls that wait: as the statement before left it."""

    @property
    def _now(self) -> datetime:
        return self._world.scheduler.time()

    # At a claim.

    def admitted(self, call: CallRow) -> None:
        """A call runs now: not more than may, and it has not overtaken."""
        self._slots.admitted(call)
        has_waited = self._line.pop(call.key, None) is not None
        # One that was released for its provider is not new either: else the two lines would refuse each other's calls.
        has_waited = has_waited or self._world.invariants.breakers.has_waited(call)
        running, name = self._running(call.org_id), self._world.named(call.key)
        check, declared = self._world.invariants.check, self._declared
        running.remove(call.call_type)
        fits = declared.fits(call.org_id, call.call_type, running)
        check("no_more_calls_run_than_may", fits, f"{name} runs beside {running}")
        if not has_waited:
            before = self._coming(call.org_id, running)
            said = f"{name} runs, and {before} came before it, beside {running}"
            is_free = declared.fits(call.org_id, call.call_type, running + before)
            check("a_new_call_does_not_take_the_place_of_those_that_wait", is_free, said)

    def refused(self, call: CallRow, claim: Reserve, until: datetime) -> None:
        """A call found no place: it waits for one, within bounds, or has waited long enough."""
        check, name = self._world.invariants.check, self._world.named(call.key)
        self._world.scheduler.counts["refused: concurrency"] += 1
        had_waited = self._line.pop(call.key, None) is not None
        running = self._running(call.org_id)
        before = [] if had_waited else [c.call_type for c in self._of(call.org_id)]
        is_free = self._declared.fits(call.org_id, call.call_type, running + before)
        check("a_free_place_refuses_nobody", not is_free, f"{name} beside {running} and {before}")
        check("who_waits_holds_nothing", call.requested_hold_nano_usd is None, name)
        if call.state is CallState.WAITING:
            is_bounded = call.due_at is not None and self._now < call.due_at <= until
            check("nobody_waits_too_long_for_a_place", is_bounded, name)
            check("who_waits_says_why", call.wait_reason is WaitReason.CONCURRENCY_LIMITED, name)
            self._line[call.key] = call
        else:
            is_over = call.state is end_of_refused(call, claim) and until <= self._now
            check("nobody_is_rejected_before_its_wait_is_over", is_over, name)

    def refused_by_others(self, call: CallRow) -> None:
        """A call was refused, and not because there is no place."""
        if call.wait_reason is WaitReason.BACKLOG:
            self._slots.gave_way(call)
        self._line.pop(call.key, None)

    def has_room(self, call: CallRow) -> bool:
        """True if a call finds a place beside those that run."""
        running = self._running(call.org_id)
        return self._declared.fits(call.org_id, call.call_type, running)

    # After a statement.

    def after(self, name: str) -> None:
        """Who was woken, and who should have been."""
        self._slots.after(name)
        if not self._line:
            return
        for key, call in list(self._line.items()):
            if call.state not in (CallState.WAITING, CallState.QUEUED):
                del self._line[key]
        for org_id in {call.org_id for call in self._line.values()}:
            self._check_woken(org_id)
            if name in ("settle", "take_due"):
                self._nobody_waits_for_a_free_place(org_id)
        self._due_at = {key: call.due_at for key, call in self._line.items() if call.due_at}

    def _check_woken(self, org_id: str) -> None:
        check, named = self._world.invariants.check, self._world.named
        line = self._of(org_id)
        # A call whose time has come is not woken: it is looked at once more, and may be refused.
        had_to_wait = [c for c in line if self._due_at.get(c.key, self._now) > self._now]
        woken = [c for c in had_to_wait if not self._is_asleep(c)]
        if not woken:
            return
        self._world.scheduler.counts["woken for a place"] += len(woken)
        others = [c.call_type for c in line if not self._is_asleep(c) and c not in woken]
        taken = self._running(org_id) + others
        turn = self._world.invariants.wishes.rank
        for call in sorted(woken, key=turn):
            said = f"{named(call.key)} is one of {len(woken)} that are woken beside {taken}"
            fits = self._declared.fits(org_id, call.call_type, taken)
            check("only_as_many_are_woken_as_find_a_place", fits, said)
            taken.append(call.call_type)
            older = [c for c in line if self._is_asleep(c) and c.call_type == call.call_type]
            older = [c for c in older if turn(c) < turn(call) and self._may_be_woken(c)]
            said = f"{named(call.key)} is woken before {', '.join(named(c.key) for c in older)}"
            check("who_waits_for_a_place_comes_in_turn", not older, said)

    def _nobody_waits_for_a_free_place(self, org_id: str) -> None:
        line = self._of(org_id)
        taken = self._running(org_id) + [c.call_type for c in line if not self._is_asleep(c)]
        for call in line:
            if self._is_asleep(call) and self._may_be_woken(call):
                said = f"{self._world.named(call.key)} waits, and only {taken} have places"
                is_free = self._declared.fits(org_id, call.call_type, taken)
                check = self._world.invariants.check
                check("nobody_waits_for_a_place_that_is_free", not is_free, said)

    # Inside.

    def _running(self, org_id: str) -> list[str]:
        calls = self._world.ledger.tables.calls.values()
        return [c.call_type for c in calls if c.org_id == org_id and c.state is CallState.RUNNING]

    def _of(self, org_id: str) -> list[CallRow]:
        return [call for call in self._line.values() if call.org_id == org_id]

    def _coming(self, org_id: str, running: list[str]) -> list[str]:
        """The types of those in line that could run now, if only their type counted."""
        coming: list[str] = []
        for call in self._of(org_id):
            if self._declared.fits("", call.call_type, running + coming):
                coming.append(call.call_type)
        return coming

    def _is_asleep(self, call: CallRow) -> bool:
        is_later = call.due_at is not None and call.due_at > self._now
        return call.state is CallState.WAITING and is_later

    def _may_be_woken(self, call: CallRow) -> bool:
        is_locked = call.key in self._world.ledger.tables.locked
        return not is_locked and not self._world.invariants.pauses.covers(call)
