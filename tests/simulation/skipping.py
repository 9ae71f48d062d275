"""How far time may be skipped while nothing is planned: to when the ledger has something to do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from callgate.adapters.memory.rows import CallRow
from callgate.domain.calls import CallState, WaitReason

if TYPE_CHECKING:
    from tests.simulation.world import World

LOOK_AGAIN_S = 4.0
"""How far time may be skipped while calls wait for a limit: it fills all the time."""


def next_due_s(world: World) -> float | None:
    """When the ledger next has anything to do, if it has nothing to do now."""
    tables = world.ledger.tables
    calls = tables.calls.values()
    if any(call.state is CallState.QUEUED for call in calls):
        return None
    live = {process.name for process in world.processes}
    due = [call.due_at for call in calls if call.due_at] + list(tables.undelivered.values())
    due += [x.expires_at for x in tables.leases.values() if x.worker_id not in live]
    due += [a.late_due_at for a in tables.attempts.values() if a.late_due_at]
    due += _next_trials(world, _unpaused(world))
    return _skip_to(world, min(due)) if due else None


def _skip_to(world: World, due_at: datetime) -> float:
    """That time; sooner if a limit may have room before."""
    at = (due_at - world.scheduler.starts_at).total_seconds()
    calls = _unpaused(world)
    if any(c.waits_for or c.is_in_line or c.wait_reason is WaitReason.BACKLOG for c in calls):
        return min(at, world.scheduler.now + LOOK_AGAIN_S)
    return at


def _unpaused(world: World) -> list[CallRow]:
    """The calls that may go on before their waits are over."""
    is_paused = world.invariants.pauses.covers
    return [call for call in world.ledger.tables.calls.values() if not is_paused(call)]


def _next_trials(world: World, calls: Sequence[CallRow]) -> list[datetime]:
    """When breakers that calls wait for may have room."""
    waited_for = {c.waits_for for c in calls if c.waits_for}
    times = []
    for key, breaker in world.ledger.tables.breakers.items():
        if key[:3] in waited_for:
            times += [breaker.probe_at] if breaker.probe_at else []
            times += [trial.made_at + timedelta(seconds=10) for trial in breaker.trials]
    return times
