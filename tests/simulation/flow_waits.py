"""The rules of calls that wait for a limit: nobody is starved, and nobody waits for what is free."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from callgate.adapters.memory.rows import CallRow, GuardKey
from callgate.domain.calls import CallKey, CallState
from tests.simulation.flow_starts import FIRST_UNDER_WAY
from tests.simulation.provider_limits import CONCURRENCY

if TYPE_CHECKING:
    from tests.simulation.flow import Flow, Grant
    from tests.simulation.world import World

RECENT = timedelta(seconds=300)
"""For how long an organisation is reproached with what it took."""
FADES_S = 60.0
FILLS_S = 2.5
"""After a window and this a bucket is full, whatever was taken before."""
MINUTE_S = 60


@dataclass(slots=True)
class Wait:
    """A call that waits for its provider, from its first refusal to its claim."""

    call: CallRow
    key: GuardKey
    began_at: datetime
    before: set[CallKey]
    """Who was on its way already when it fell asleep."""
    is_asleep: bool = True
    overtaken: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By organisation: the parts of a limit that it was given while this call was asleep."""
    rank: tuple[datetime, CallKey] | None = None
    """By which it comes in its organisation; a submission that joins it may change that."""
    younger: int = 0
    """Calls of its own organisation that came later and were let through before it."""


class Waits:
    """Who waits for which key, and who is let through meanwhile."""

    def __init__(self, world: World, flow: Flow) -> None:
        self._world = world
        self._flow = flow
        self._waits: dict[CallKey, Wait] = {}

    def begin(self, call: CallRow, key: GuardKey, now: datetime) -> None:
        """A call was refused because of its provider, or its attempt for the rate."""
        if call.state is not CallState.WAITING or call.key in self._waits:
            return
        self._waits[call.key] = Wait(call, key, now, self._on_their_way(now))

    def look(self, now: datetime) -> None:
        """After a statement: who is asleep."""
        for wait in list(self._waits.values()):
            call = wait.call
            if not self._world.invariants.breakers.has_waited(call) or not call.state.is_open:
                del self._waits[call.key]
                continue
            was_asleep, wait.is_asleep = wait.is_asleep, not _is_on_its_way(call, now)
            before, wait.rank = wait.rank, self._world.invariants.wishes.rank(call)
            if wait.is_asleep and (not was_asleep or wait.rank != before):
                wait.before = self._on_their_way(now)

    def _on_their_way(self, now: datetime) -> set[CallKey]:
        calls = self._world.ledger.tables.calls.values()
        return {c.key for c in calls if _is_on_its_way(c, now)}

    def admitted(self, grant: Grant, now: datetime) -> None:
        """An attempt is let through: it must not overtake those that wait."""
        self._waits.pop(grant.call.key, None)
        if not self._counts(grant.key, now) or self._world.invariants.breakers.was_last_try:
            return
        for wait in self._waits.values():
            is_other = wait.key != grant.key or grant.call.key in wait.before
            if is_other or not wait.is_asleep or self._world.invariants.pauses.covers(wait.call):
                continue
            if not self.may_be_tried(wait.key, wait.call.org_id, now):
                continue
            if grant.call.org_id == wait.call.org_id:
                self._is_in_order(wait, grant)
            else:
                wait.overtaken[grant.call.org_id] += self._flow.part(grant.call, grant.key)
                self._has_its_share(wait, grant.call, now)

    def _is_in_order(self, wait: Wait, grant: Grant) -> None:
        """Within an organisation calls come by class, attempts and age."""
        mine, other = wait.call, grant.call
        tried = len(self._world.ledger.tables.attempts_of[other.key]) - 1
        rank = self._world.invariants.wishes.rank
        wait.younger += rank(mine) < rank(other, tried)
        said = f"{self._world.named(mine.key)} waits, {wait.younger} came later and are let through"
        self._world.invariants.check(
            "no_call_is_overtaken_again_and_again", wait.younger <= 1, said
        )

    def _has_its_share(self, wait: Wait, other: CallRow, now: datetime) -> None:
        """What another organisation is given meanwhile is bounded by what this one wants and has had recently."""
        org_id, key, flow = wait.call.org_id, wait.key, self._flow
        had = sum(
            flow.part(g.call, key)
            for g in flow.grants
            if g.key == key and g.call.org_id == org_id and g.at > wait.began_at - RECENT
        )
        ahead = sum(
            flow.part(w.call, key)
            for w in self._waits.values()
            if w.key == key and w.call.org_id == org_id and w.began_at <= wait.began_at
        )
        fades = 1 + (now - wait.began_at).total_seconds() / FADES_S
        most = (had + ahead) * fades + 2 * flow.part(other, key)
        given = wait.overtaken[other.org_id]
        said = f"{self._world.named(wait.call.key)} of {org_id} waits, {given:.2f} of {most:.2f} went to {other.org_id}"
        self._world.invariants.check("an_organisation_gets_its_share", given <= most + 1e-6, said)

    def nobody_waits_for_what_is_free(self, now: datetime) -> None:
        """Where limits and breakers have room for sure, somebody who waits is on its way."""
        for key in {wait.key for wait in self._waits.values()}:
            calls = self._world.invariants.breakers.waiting_for(key)
            if not calls or any(_is_on_its_way(call, now) for call in calls):
                continue
            # A paused call that is on its way is refused soon; those that sleep are not waited for.
            calls = [call for call in calls if not self._world.invariants.pauses.covers(call)]
            may_be_tried = any(self.may_be_tried(key, call.org_id, now) for call in calls)
            if not may_be_tried or not self.is_free(key, now):
                continue
            named = ", ".join(self._world.named(call.key) for call in calls)
            self._world.invariants.check("nobody_waits_for_what_is_free", False, named)

    def is_free(self, key: GuardKey, now: datetime) -> bool:
        """True if each limit of a key has room for sure: nothing was taken within its window."""
        flow, known = self._flow, [x.limit for x in self._flow.in_effect(key)]
        windows = [limit.window_s for limit in known]
        if flow.blocks.was_blocked(key):
            # Its amount rises in steps, and with it how soon it is full.
            windows.append(2 * MINUTE_S)
        since = now - timedelta(seconds=max(windows, default=0) + FILLS_S)
        is_shared = any(limit.is_shared for limit in known)
        was_taken = any(g.at > since and (is_shared or g.key == key) for g in flow.grants)
        was_written = flow.written_at.get(key, since) > since
        if (was_taken and max(windows, default=0) > 0) or was_written:
            return False
        slots = [limit for limit in known if limit.measure is CONCURRENCY]
        if any(flow.under_way(limit, key) >= limit.amount for limit in slots):
            return False
        open_ones = sum(g.key == key and not g.row.status.is_posted for g in flow.grants)
        return open_ones < FIRST_UNDER_WAY

    def may_be_tried(self, key: GuardKey, org_id: str, now: datetime) -> bool:
        """True if only limits can keep an organisation from a key."""
        history = self._world.invariants.breakers.history(key)
        is_open = history.shared.is_open or not history.is_proven(now)
        return not is_open and history.headroom(org_id, now) > 0

    def _counts(self, key: GuardKey, now: datetime) -> bool:
        """True if limits are known of a key. Without, new calls take the places that are free."""
        is_limited = self._world.limits is not None
        return is_limited and (any(self._flow.in_effect(key)) or self._flow.blocks.was_blocked(key))


def _is_on_its_way(call: CallRow, now: datetime) -> bool:
    is_due = call.due_at is not None and call.due_at <= now
    return call.state is CallState.QUEUED or (call.state is CallState.WAITING and is_due)
