"""The rule of releases: freed headroom releases the calls that wait for it, oldest first, only as many as fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from callgate.adapters.memory.rows import CallRow
from callgate.domain.calls import CallKey

if TYPE_CHECKING:
    from tests.simulation.world import World


class Headroom:
    """What was left and who waited before a statement, and whom the statement released."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._left: dict[int, int] = {}
        """By budget."""
        self._due_at: dict[CallKey, datetime] = {}
        """Of the calls that wait for headroom."""

    def after(self, name: str, options: Mapping[str, Any]) -> None:
        """Check every organisation in which a statement freed headroom, or looked for some; then look again."""
        budgets = self._world.ledger.tables.budgets.values()
        wanting = self._wanting()
        if name in ("settle", "set_budget", "settle_by_hand"):
            now = self._world.scheduler.time()
            orgs = {
                b.org_id
                for b in budgets
                if b.left_nano_usd > self._left.get(b.budget_id, b.left_nano_usd)
                and (name != "settle_by_hand" or b.starts_at <= now < b.ends_at)
            }
            if name == "settle_by_hand":
                self._check_no_release([call for call in wanting if call.org_id not in orgs])
        else:
            is_sweep = name == "take_lost_messages"
            orgs = {call.org_id for call in wanting if is_sweep}
        for org_id in sorted(orgs):
            self._check_releases([call for call in wanting if call.org_id == org_id])
        self._left = {b.budget_id: b.left_nano_usd for b in budgets}
        self._due_at = {call.key: call.due_at for call in wanting if call.due_at}

    def _check_no_release(self, calls: Sequence[CallRow]) -> None:
        """Nothing was freed for them in a period that is running."""
        now = self._world.scheduler.time()
        for call in calls:
            had_to_wait = self._due_at.get(call.key, now) > now
            is_released = had_to_wait and call.due_at is not None and call.due_at <= now
            self._world.invariants.check(
                "an_ended_period_releases_nobody", not is_released, self._world.named(call.key)
            )

    def _check_releases(self, calls: Sequence[CallRow]) -> None:
        now, named, check = (
            self._world.scheduler.time(),
            self._world.named,
            self._world.invariants.check,
        )
        due: list[CallRow] = []
        for call in calls:
            if call.due_at is None or call.due_at <= now:
                due.append(call)
                continue
            said = f"{named(call.key)} waits, though its {call.requested_hold_nano_usd} nano-USD are there"
            check("freed_headroom_releases_the_oldest", not self._fit([*due, call], call), said)
        released = [call for call in due if self._due_at.get(call.key, now) > now]
        self._world.scheduler.counts["released by headroom"] += len(released)
        for call in released:
            said = f"{named(call.key)} is one of {len(released)} that are released"
            check("only_as_many_are_released_as_fit", self._fit(released, call), said)

    def _fit(self, calls: Sequence[CallRow], one: CallRow) -> bool:
        """True if all of them fit into every budget in which one of them would be held."""
        newest = {
            (b.scope, b.window): b
            for b in self._world.ledger.tables.budgets.values()
            if b.org_id == one.org_id and b.scope in scopes_asked(one)
        }
        return all(
            sum(c.requested_hold_nano_usd or 0 for c in calls if b.scope in scopes_asked(c))
            <= b.left_nano_usd
            for b in newest.values()
        )

    def _wanting(self) -> list[CallRow]:
        """Oldest first."""
        calls = self._world.ledger.tables.calls.values()
        wanting = [call for call in calls if call.requested_hold_nano_usd is not None]
        return sorted(wanting, key=lambda call: (call.created_at, call.key))


def scopes_asked(call: CallRow) -> tuple[str, str]:
    """Whose budgets a call is held in; not by callgate's own word for it."""
    return ("org", f"call_type:{call.call_type}")
