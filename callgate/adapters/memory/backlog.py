"""The backlog of the memory ledger: calls of organisations that have many open, and who is raised in the line."""

from __future__ import annotations

from datetime import datetime, timedelta

from callgate.adapters.memory.pauses import is_org_paused
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallState, WaitReason
from callgate.domain.ledger import NewSubmission
from callgate.domain.open_calls import OpenCalls
from callgate.domain.turns import (
    AHEAD_MAX,
    AT_ONCE_MIN,
    BACKLOG_WAIT,
    CONGESTED_AT,
    Lane,
    Priority,
    lane_of,
)


def deadline_of(new: NewSubmission, now: datetime) -> datetime | None:
    """When a submission must have been sent."""
    return None if new.start_within_s is None else now + timedelta(seconds=new.start_within_s)


def lane_for(tables: MemoryTables, call: CallRow) -> Lane | None:
    """Where a new call is published; None: it waits in the backlog."""
    queued = _queued(tables)
    mine = [other for other in queued if other.org_id == call.org_id and other is not call]
    interactive = sum(other.priority is Priority.INTERACTIVE for other in mine)
    is_congested = len(queued) >= CONGESTED_AT
    return lane_of(len(mine), interactive, call.priority, is_congested=is_congested)


def lane_again(tables: MemoryTables, call: CallRow) -> Lane:
    """Where a call is published that is queued again."""
    # It was released, so it does not go back to the backlog.
    return lane_for(tables, call) or Lane.CALL


def full(tables: MemoryTables, org_id: str) -> OpenCalls | None:
    """The open calls of an organisation that may have no more; None: it may."""
    calls_max = tables.declaration.open_calls_max
    if len(tables.calls) < calls_max:
        return None
    calls = sum(c.org_id == org_id and c.state.is_open for c in tables.calls.values())
    return OpenCalls(calls, calls_max) if calls >= calls_max else None


def add(call: CallRow, now: datetime) -> None:
    """Let a new call wait in the backlog."""
    call.state = CallState.WAITING
    call.wait_reason = WaitReason.BACKLOG
    call.wait_until_due(now + BACKLOG_WAIT)


def raised(call: CallRow, new: NewSubmission, now: datetime) -> Lane | None:
    """Raise a call that does not run yet to the higher class and the later deadline of a submission."""
    if call.state not in (CallState.QUEUED, CallState.WAITING):
        return None
    becomes_interactive = new.priority is Priority.INTERACTIVE and call.priority < new.priority
    call.priority = max(call.priority, new.priority)
    deadline = deadline_of(new, now)
    later = max(call.start_before, deadline) if call.start_before and deadline else None
    call.start_before = later
    return Lane.EXPRESS if becomes_interactive and call.state is CallState.QUEUED else None


def release(tables: MemoryTables, now: datetime) -> bool:
    """Make calls of the backlog due, as many as their organisations may have queued. True if there were any."""
    has_released = False
    waiting = [c for c in tables.calls.values() if c.wait_reason is WaitReason.BACKLOG]
    for org_id in sorted({call.org_id for call in waiting}):
        mine = [call for call in waiting if call.org_id == org_id]
        queued = sum(call.org_id == org_id for call in _queued(tables))
        if AHEAD_MAX - queued < AT_ONCE_MIN or is_org_paused(tables, org_id):
            continue
        asleep = [c for c in mine if c.due_at and c.due_at > now and c.key not in tables.locked]
        room = AHEAD_MAX - queued - (len(mine) - len(asleep))
        for call in sorted(asleep, key=lambda c: (c.turn_at, c.key))[: max(0, room)]:
            call.due_at = now
            has_released = True
    return has_released


def _queued(tables: MemoryTables) -> list[CallRow]:
    return [call for call in tables.calls.values() if call.state is CallState.QUEUED]
