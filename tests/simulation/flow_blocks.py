"""The rules of keys that a provider has blocked: how many it refuses before, and how they are unblocked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow, GuardKey
from callgate.domain.calls import AttemptKind, AttemptStatus
from callgate.domain.ledger import Settle, SettleOutcome
from tests.simulation.flow_starts import FIRST_UNDER_WAY

if TYPE_CHECKING:
    from tests.simulation.flow import Flow, Grant
    from tests.simulation.world import World

FIRST_REFUSED_MAX = 25
"""
Refusals until a key is blocked: those under way, without those that were lost with their workers.

As many more as more may be under way, because an earlier minute has gone well.
"""
LATER_REFUSED_MAX = 5
"""The same once it was blocked, while the rate is known that it accepted before."""
HERD_S = 5.0
"""How long after a key was unblocked nobody may come in a herd."""
HERD_MIN = 3
MINUTE_S = 60.0
OBSERVED_FOR = timedelta(minutes=9)
"""After an outage of this length nothing is known any more of the rate before it."""


@dataclass(slots=True)
class KeyBlocks:
    """What is known of one key."""

    blocks: int = 0
    is_blocked: bool = False
    refused: set[UUID] = field(default_factory=set)
    """Attempts that the provider refused since the key was last open, without probes."""
    accepted_per_minute: int = 0
    """At most; before it was blocked."""
    grown: int = 0
    """How many more than at first might be under way when it was blocked."""
    blocked_at: datetime | None = None
    probe_at: datetime | None = None
    unblocked_at: datetime | None = None


class Blocks:
    """When each key was blocked and unblocked."""

    def __init__(self, world: World, flow: Flow) -> None:
        self._world = world
        self._flow = flow
        self._blocks: dict[GuardKey, KeyBlocks] = {}

    def was_blocked(self, key: GuardKey) -> bool:
        """True if the provider has ever blocked a key: from then on it is used with care."""
        return key in self._blocks and self._blocks[key].blocks > 0

    def refused(self, key: GuardKey, row: AttemptRow) -> None:
        """The provider refuses a request."""
        if row.kind is AttemptKind.PROBE:
            return
        known = self._blocks.setdefault(key, KeyBlocks())
        known.refused.add(row.attempt_id)
        grown = known.grown if known.is_blocked else self._grown(key)
        most = FIRST_REFUSED_MAX + grown if self._is_first(key, known) else LATER_REFUSED_MAX
        attempts = self._world.ledger.tables.attempts
        number = sum(attempts[a].status is not AttemptStatus.UNKNOWN for a in known.refused)
        said = f"{number} of {'/'.join(key)} are refused, after {known.blocks} blocks"
        self._world.invariants.check(
            "few_are_refused_before_a_key_is_blocked", number <= most, said
        )

    def _grown(self, key: GuardKey) -> int:
        return self._flow.slow_starts[key].most - FIRST_UNDER_WAY

    def _is_first(self, key: GuardKey, known: KeyBlocks) -> bool:
        """True if it was not blocked before, or that is so long ago that the rate before is forgotten."""
        now = self._world.scheduler.time()
        is_old = known.blocked_at is not None and now - known.blocked_at > OBSERVED_FOR
        return known.blocks <= known.is_blocked or (is_old and not known.is_blocked)

    def settled(
        self, batch: Sequence[Settle], outcomes: Sequence[SettleOutcome], now: datetime
    ) -> None:
        """The ledger hears of refusals and successes: keys are blocked and unblocked."""
        for key, side in self._world.invariants.breakers.sides():
            known = self._blocks.setdefault(key, KeyBlocks()) if side.is_limited else None
            known = known or self._blocks.get(key)
            if known is None:
                continue
            if side.is_limited:
                known.probe_at = side.probe_at
            if side.is_limited and not known.is_blocked:
                self._block(key, known, now)
            elif known.is_blocked and not side.is_open:
                known.is_blocked, known.unblocked_at = False, now
                known.refused.clear()
                self._world.scheduler.counts["key unblocked"] += 1

    def changed_by_hand(self, names: Sequence[Any]) -> None:
        """An operator decides: what was known does not count."""
        if known := self._blocks.get((names[0], names[1], names[2])):
            known.is_blocked, known.unblocked_at = False, None

    def admitted(self, grant: Grant, now: datetime) -> None:
        """An attempt of a key that was just unblocked."""
        known = self._blocks.get(grant.key)
        if known is None or known.unblocked_at is None or known.is_blocked:
            return
        age_s = (now - known.unblocked_at).total_seconds()
        is_known = any(self._flow.in_effect(grant.key))
        assert known.probe_at is not None
        assert known.blocked_at is not None
        was_long_ago = known.unblocked_at - known.blocked_at > OBSERVED_FOR
        if age_s > HERD_S or is_known or was_long_ago:
            return
        number = sum(g.key == grant.key and g.at > known.unblocked_at for g in self._flow.grants)
        half = max(1.0, known.accepted_per_minute / 2)
        risen = 1 + max(0.0, (now - known.probe_at).total_seconds()) / MINUTE_S
        most = HERD_MIN + half * risen * HERD_S / MINUTE_S
        said = f"{self._world.named(grant.row.attempt_id)} is one of {number} within {age_s:.1f} s"
        self._world.invariants.check("nobody_comes_in_a_herd", number <= most, said)

    def _block(self, key: GuardKey, known: KeyBlocks, now: datetime) -> None:
        self._world.scheduler.counts["key blocked"] += 1
        known.is_blocked, known.unblocked_at = True, None
        known.blocks += 1
        known.grown = self._grown(key)
        self._flow.slow_starts[key].blocked(now)
        known.blocked_at = now
        since = now - timedelta(seconds=MINUTE_S)
        known.accepted_per_minute = sum(
            g.key == key and g.at >= since and g.row.status is not AttemptStatus.DISPATCHED
            for g in self._flow.grants
        )
