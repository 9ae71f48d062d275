"""
Rows that a tenant holds in an open transaction, and the statements that wait for them.

The ledger skips what is held: it answers `Locked` for a row, or does not see it (`MemoryTables.locked`). A statement
that waits instead is a planted defect: it does nothing at all before the row is free, neither do those of its process
that come in its queue behind it, and who asked hears nothing once it has waited as long as a statement may.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from callgate.domain.calls import CallKey, CallState
from tests.simulation.scheduler import Owner

if TYPE_CHECKING:
    from tests.simulation.hostile import HostileWorld

WAITS: frozenset[str] = frozenset()
"""Statements that wait for a held row, by name: the promise is that there are none."""
QUEUED_BEHIND = ("reserve", "settle")
"""Statements of which a process runs one at a time, for many calls at once."""


class RowLocks:
    """Which calls are held, and until when."""

    def __init__(self, world: HostileWorld) -> None:
        self._world = world
        self._until: dict[CallKey, float] = {}
        self._queue_until: defaultdict[tuple[str, str], float] = defaultdict(float)
        """By process and statement: until when one of them waits."""

    def hold(self, key: CallKey, seconds: float) -> None:
        """Hold a call for a while; what is held already is held for longer."""
        until = self._world.scheduler.now + seconds
        self._until[key] = max(self._until.get(key, 0.0), until)
        self._world.scheduler.counts["row held"] += 1

    def release_all(self) -> None:
        """End every transaction."""
        self._until.clear()

    def held(self) -> set[CallKey]:
        """The calls that are held now."""
        now = self._world.scheduler.now
        self._until = {key: until for key, until in self._until.items() if until > now}
        return set(self._until)

    def wait_s(self, owner: Owner, name: str, arguments: Sequence[Any], timeout_s: float) -> float:
        """For how long a statement has to wait before it can be executed, were it to."""
        if name not in WAITS:
            return 0.0
        now, queue = self._world.scheduler.now, (owner.name, name)
        locked = self.held() & set(self._touched(name, arguments))
        wait_s = max((self._until[key] for key in locked), default=now) - now
        if name in QUEUED_BEHIND:
            self._queue_until[queue] = max(self._queue_until[queue], now + min(wait_s, timeout_s))
            wait_s = max(wait_s, self._queue_until[queue] - now)
        return wait_s

    def _touched(self, name: str, arguments: Sequence[Any]) -> Iterator[CallKey]:
        """The calls whose rows a statement locks."""
        tables, now = self._world.ledger.tables, self._world.scheduler.time()
        if name == "reserve":
            yield from (reserve.key for reserve in arguments[0])
        elif name == "settle":
            yield from (settle.ref.key for settle in arguments[0])
        elif name in ("take_due", "take_lost_messages"):
            due = (call for call in tables.calls.values() if call.due_at and call.due_at <= now)
            yield from (call.key for call in due if call.state is not CallState.QUEUED)
        elif name == "leases.expire":
            gone = {lease.worker_id for lease in tables.leases.values() if lease.expires_at <= now}
            rows = tables.attempts.values()
            yield from (a.key for a in rows if a.process in gone and not a.status.is_posted)
