"""
The rules of slots: whose call takes a slot of the workers, and who gives way.

Nothing here asks `callgate.domain.slots`. What runs is counted from the states of calls, and the fair share is found by
handing out one slot after the other.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from callgate.adapters.memory.rows import CallRow
from callgate.domain.call_order import Lane
from callgate.domain.calls import CallState, WaitReason
from callgate.domain.requests import OnBudget
from tests.simulation import actors
from tests.simulation.faults import SLOTS_SHORT

if TYPE_CHECKING:
    from tests.simulation.world import World

CHANCE = 0.1
"""Of a life in which many calls come for few slots."""
IN_HAND = timedelta(seconds=5)
MINUTE = timedelta(seconds=60)
PARTS = 64
"""Slots are handed out in such parts, so that a share need not be whole."""


def gave_way(call: CallRow) -> bool:
    """True if a call that was refused leaves its slot to others."""
    return call.wait_reason is WaitReason.BACKLOG


class ShortSlots:
    """How few slots a process has in one life, and who comes for them."""

    def __init__(self, world: World, seed: int) -> None:
        """Draw it apart, so that lives without it stay as they were."""
        self._world = world
        self._rng = random.Random(f"slots of {seed}")  # noqa: S311
        is_drawn = self._rng.random() < world.faults.chances.pop(SLOTS_SHORT, CHANCE)
        self.are_short = is_drawn and world.limits is None
        if self.are_short:
            world.slots = self._rng.choice((2, 3, 4))

    def flood(self) -> None:
        """One organisation comes with many calls, the others with some; more than once."""
        if not self.are_short:
            return
        self._world.scheduler.counts[SLOTS_SHORT] += 1
        for n in range(self._rng.choice((1, 2, 3))):
            at_s = self._rng.uniform(0, 60)
            orgs = self._rng.sample(("acme", "nova", "zeta"), 3)
            numbers = self._rng.choice(((20, 6, 1), (12, 12, 0), (12, 4, 4)))
            for org_id, number in zip(orgs, numbers, strict=True):
                for k in range(number):
                    prompt = f"slots {n} {k}"
                    request = actors.a_request_of(org_id, "chat", prompt, 100, OnBudget.WAIT)
                    submit = partial(actors.submit_accepted, self._world, f"z{n}.{k}", request)
                    self._world.scheduler.after(at_s + self._rng.uniform(0, 8), submit)


class Slots:
    """Who has slots, and who asks for them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._queued_at: dict[object, datetime] = {}
        """Of the queued calls, as the statement before left them."""
        self._released: set[object] = set()
        """Those of them that were released for their provider, or for a place of their organisation."""

    @property
    def _now(self) -> datetime:
        return self._world.scheduler.time()

    def admitted(self, call: CallRow) -> None:
        """A call runs now: no other organisation has a better right to its slot."""
        if self.was_released(call) or (number := self._number()) is None:
            return
        running = self._running()
        running[call.org_id] -= 1
        rivals = self._rivals(call, running, number)
        free = number - running.total()
        said = f"{self._world.named(call.key)} runs beside {dict(running)}, and {rivals} ask"
        is_right = sum(rivals.values()) < max(1, free)
        self._world.invariants.check("slots_are_shared", is_right, said)

    def was_released(self, call: CallRow) -> bool:
        """True if it was queued because its provider, or its organisation, had room for it."""
        return call.key in self._released

    def gave_way(self, call: CallRow) -> None:
        """A call left its slot: others take all that are free, and it holds nothing."""
        check, name = self._world.invariants.check, self._world.named(call.key)
        self._world.scheduler.counts["gave way"] += 1
        number = self._number()
        check("who_gives_way_leaves_no_slot_free", number is not None, name)
        assert number is not None
        running = self._running()
        rivals = self._rivals(call, running, number)
        free = number - running.total()
        said = f"{name} gives way beside {dict(running)} of {number}, and {rivals} ask"
        check("who_gives_way_leaves_no_slot_free", sum(rivals.values()) >= max(1, free), said)
        check("who_waits_holds_nothing", call.requested_hold_nano_usd is None, name)

    def after(self, name: str) -> None:
        """Remember the queue, and look for calls that nobody queues again."""
        if name == "take_due":
            self._a_backlog_moves()
        calls = self._world.ledger.tables.calls.values()
        queued = [call for call in calls if call.state is CallState.QUEUED]
        self._queued_at = {call.key: call.due_at for call in queued if call.due_at}
        self._released = {c.key for c in queued if c.is_in_line or c.waits_for is not None}

    def _a_backlog_moves(self) -> None:
        """An organisation whose calls wait has its share, or some of them are queued."""
        tables, number = self._world.ledger.tables, self._number()
        waiting = Counter(
            c.org_id
            for c in tables.calls.values()
            if c.wait_reason is WaitReason.BACKLOG and c.due_at and c.due_at > self._now
            if c.key not in tables.locked
        )
        if not waiting:
            return
        queued, running = self._in_queue(), self._running()
        coming = Counter(
            c.org_id for c in tables.calls.values() if c.wait_reason is WaitReason.BACKLOG
        )
        for org_id in waiting:
            if self._world.invariants.pauses.is_whole(org_id):
                continue
            on_the_way = queued[org_id] + coming[org_id] - waiting[org_id]
            usable = running + self._asking(self._now - MINUTE, self._lines())
            usable[org_id] = 10**6
            share = self._share(usable, org_id, number)
            said = f"{waiting[org_id]} calls of {org_id} wait beside {dict(running)}"
            moves = on_the_way > 0 or running[org_id] >= share
            self._world.invariants.check("a_backlog_moves", moves, said)

    # Counting.

    def _number(self) -> int | None:
        leases = self._world.ledger.tables.leases.values()
        live = [lease.slots or 0 for lease in leases if lease.expires_at > self._now]
        return sum(live) or None

    def _running(self) -> Counter[str]:
        calls = self._world.ledger.tables.calls.values()
        return Counter(c.org_id for c in calls if c.state is CallState.RUNNING)

    def _in_queue(self) -> Counter[str]:
        calls = self._world.ledger.tables.calls.values()
        return Counter(c.org_id for c in calls if c.state is CallState.QUEUED)

    def _queued(self, lines: set[tuple[str, ...]]) -> Counter[str]:
        """Those that may run."""
        calls = self._world.ledger.tables.calls.values()
        return Counter(
            c.org_id
            for c in calls
            if c.state is CallState.QUEUED and not self._is_held_back(c, lines)
        )

    def _is_held_back(self, call: CallRow, lines: set[tuple[str, ...]]) -> bool:
        """True if it is paused, or new while calls of its kind wait for their provider or for a place."""
        if call.is_in_line or call.waits_for is not None:
            return False
        kinds = {(call.org_id, call.call_type), (call.org_id, call.provider, call.model)}
        return not kinds.isdisjoint(lines) or self._world.invariants.pauses.covers(call)

    def _lines(self) -> set[tuple[str, ...]]:
        """Of which call types, providers and models calls wait, by organisation."""
        calls = self._world.ledger.tables.calls.values()
        lines: set[tuple[str, ...]] = {(c.org_id, c.call_type) for c in calls if c.is_in_line}
        return lines | {(c.org_id, c.provider, c.model) for c in calls if c.waits_for}

    def _asking(self, since: datetime, lines: set[tuple[str, ...]]) -> Counter[str]:
        """Queued calls that are behind some place in the queue, or in the other one, and may run."""
        asking = Counter[str]()
        for c in self._world.ledger.tables.calls.values():
            may_run = c.state is CallState.QUEUED and c.requested_hold_nano_usd is None
            if may_run and c.due_at and not self._is_held_back(c, lines):
                is_express = c.lane is Lane.EXPRESS and c.due_at > self._now - MINUTE
                asking[c.org_id] += c.due_at > since or is_express
        return asking

    def _rivals(self, call: CallRow, running: Counter[str], number: int) -> dict[str, int]:
        """How many slots each other organisation may take before this call's."""
        lines = self._lines()
        queued = self._queued(lines)
        queued[call.org_id] += 1
        share = self._share(running + queued, call.org_id, number)
        if running[call.org_id] < share:
            return {}
        asking = self._asking(self._queued_at[call.key] - IN_HAND, lines)
        missing = {o: share - running[o] for o in asking if o != call.org_id}
        return {
            o: min(asking[o], -int(-missing[o] // 1)) for o in missing if running[o] < share * 7 / 8
        }

    def _share(self, usable: Counter[str], org_id: str, number: int | None) -> float:
        """What an organisation gets if slots are handed out in turn, for as long as somebody wants more."""
        if number is None:
            return float("inf")
        got: Counter[str] = Counter()
        left, hungry = number * PARTS, [o for o in usable if usable[o] > 0]
        while left >= len(hungry) and hungry:
            for o in hungry:
                got[o] += 1
            left -= len(hungry)
            hungry = [o for o in hungry if got[o] < usable[o] * PARTS]
        is_full = org_id in hungry or (got[org_id] and left == 0)
        return got[org_id] / PARTS if is_full else float("inf")
