"""The backlog of the memory ledger: calls of organisations that have many open, and who is raised in the line."""

from __future__ import annotations

from datetime import datetime, timedelta

from callgate.adapters.memory import slots
from callgate.adapters.memory.pauses import is_org_paused
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.call_order import BACKLOG_WAIT, Lane, Priority, congested_at, lane_of
from callgate.domain.calls import CallState, WaitReason
from callgate.domain.ledger import NewSubmission
from callgate.domain.open_calls import OpenCalls
from callgate.domain.slots import AHEAD_MAX

TO_ITS_END = (
    WaitReason.PROVIDER,
    WaitReason.RATE_LIMITED,
    WaitReason.PAUSED,
    WaitReason.CONCURRENCY_LIMITED,
)
"""A call that waits for this is due when it may wait no longer, or when somebody wakes it."""


def deadline_of(new: NewSubmission, now: datetime) -> datetime | None:
    """When a submission must have been sent."""
    return None if new.start_within_s is None else now + timedelta(seconds=new.start_within_s)


def lane_for(tables: MemoryTables, call: CallRow, now: datetime) -> Lane | None:
    """Where a new call is published; None: it waits in the backlog, behind those that are there."""
    if call.priority is not Priority.INTERACTIVE and _has_backlog(tables, call.org_id, now):
        return None
    return _lane(tables, call, slots.ahead_max(tables, now), now)


def _has_backlog(tables: MemoryTables, org_id: str, now: datetime) -> bool:
    """True if calls of it wait in the backlog that are not on their way into the queue."""
    return any(
        c.org_id == org_id and c.wait_reason is WaitReason.BACKLOG and c.due_at and c.due_at > now
        for c in tables.calls.values()
    )


def _lane(tables: MemoryTables, call: CallRow, ahead_max: int, now: datetime) -> Lane | None:
    queued = _queued(tables)
    mine = [other for other in queued if other.org_id == call.org_id and other is not call]
    interactive = sum(other.priority is Priority.INTERACTIVE for other in mine)
    is_congested = len(queued) >= congested_at(slots.slots_of(tables, now))
    return lane_of(len(mine), interactive, call.priority, ahead_max, is_congested=is_congested)


def lane_again(tables: MemoryTables, call: CallRow, now: datetime) -> Lane:
    """Where a call is published that is queued again."""
    # It was released, so it does not go back to the backlog.
    return _lane(tables, call, AHEAD_MAX, now) or Lane.CALL


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
    """Raise an open call to the higher class and the later deadline of a submission."""
    if not call.state.is_open:
        return None
    becomes_interactive = new.priority is Priority.INTERACTIVE and call.priority < new.priority
    call.priority = max(call.priority, new.priority)
    deadline = deadline_of(new, now)
    later = max(call.start_before, deadline) if call.start_before and deadline else None
    call.start_before = later
    if call.wait_reason is WaitReason.BACKLOG:
        call.wait_until_due(call.created_at + BACKLOG_WAIT)
    elif call.wait_reason in TO_ITS_END and call.wait_until and call.due_at and call.due_at > now:
        call.wait_until_due(call.wait_until)
    return Lane.EXPRESS if becomes_interactive and call.state is CallState.QUEUED else None


def release(tables: MemoryTables, now: datetime) -> bool:
    """Make calls of the backlog due, as many as their organisations may have queued. True if there were any."""
    has_released = False
    waiting = [c for c in tables.calls.values() if c.wait_reason is WaitReason.BACKLOG]
    for org_id in sorted({call.org_id for call in waiting}):
        if is_org_paused(tables, org_id):
            continue
        mine = [call for call in waiting if call.org_id == org_id]
        asleep = [c for c in mine if c.due_at and c.due_at > now and c.key not in tables.locked]
        room = slots.released(tables, org_id, now) - (len(mine) - len(asleep))
        for call in sorted(asleep, key=lambda c: (c.rank_at, c.key))[: max(0, room)]:
            call.due_at = now
            has_released = True
    return has_released


def _queued(tables: MemoryTables) -> list[CallRow]:
    return [call for call in tables.calls.values() if call.state is CallState.QUEUED]
