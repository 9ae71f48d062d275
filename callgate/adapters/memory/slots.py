"""How organisations share the slots of the workers in the memory ledger, and the backlog that waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from callgate.adapters.memory.pauses import is_paused
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain import slots
from callgate.domain.call_order import EXPRESS_SWEPT_AFTER, Lane
from callgate.domain.calls import CallState
from callgate.domain.slots import COUNTED_MAX, IN_HAND_S, OrgWork


def slots_of(tables: MemoryTables, now: datetime) -> int | None:
    """How many slots the live workers have; None: not all of them say it."""
    live = [lease.slots for lease in tables.leases.values() if lease.expires_at > now]
    known = [number for number in live if number is not None]
    return (sum(known) or None) if len(known) == len(live) else None


def ahead_max(tables: MemoryTables, now: datetime) -> int:
    """How many calls of an organisation are queued."""
    return slots.ahead_max(slots_of(tables, now))


def gives_way(tables: MemoryTables, call: CallRow, now: datetime) -> bool:
    """True if a claim leaves its slot to other organisations."""
    number = slots_of(tables, now)
    # It was released as one of as many as its provider or its organisation has room for.
    is_released = call.is_in_line or call.waits_for is not None
    if number is None or is_released or call.due_at is None:
        return False
    work = _work(tables, call.due_at - timedelta(seconds=IN_HAND_S), now)
    mine = work.pop(call.org_id)
    return slots.gives_way(number, mine, list(work.values()))


def released(tables: MemoryTables, org_id: str, now: datetime) -> int:
    """How many calls of an organisation's backlog are queued now, and on their way there."""
    work = _work(tables, now - EXPRESS_SWEPT_AFTER, now)
    work.pop(org_id, None)
    queued = sum(1 for _ in _of(tables, org_id, CallState.QUEUED))
    running = sum(1 for _ in _of(tables, org_id, CallState.RUNNING))
    return slots.released(slots_of(tables, now), OrgWork(running, queued), list(work.values()))


def _work(tables: MemoryTables, since: datetime, now: datetime) -> dict[str, OrgWork]:
    """The organisations whose calls run or are queued. Those queued since then are asking."""
    found: dict[str, OrgWork] = {}
    at_work = (CallState.RUNNING, CallState.QUEUED)
    for org_id in {call.org_id for call in tables.calls.values() if call.state in at_work}:
        queued = [c for c in _of(tables, org_id, CallState.QUEUED) if not _is_held_back(tables, c)]
        asking = [c for c in queued if _is_asking(c, since, now)]
        found[org_id] = OrgWork(
            sum(1 for _ in _of(tables, org_id, CallState.RUNNING)),
            min(len(queued), COUNTED_MAX),
            min(len(asking), COUNTED_MAX),
        )
    return found


def _is_held_back(tables: MemoryTables, call: CallRow) -> bool:
    """True if a new call is paused, or calls of its kind wait for their provider or for a place."""
    if call.is_in_line or call.waits_for is not None:
        return False
    return is_paused(tables, call) or any(
        (c.is_in_line and c.call_type == call.call_type)
        or (c.waits_for is not None and (c.provider, c.model) == (call.provider, call.model))
        for c in tables.calls.values()
        if c.org_id == call.org_id
    )


def _is_asking(call: CallRow, since: datetime, now: datetime) -> bool:
    if call.requested_hold_nano_usd is not None or call.due_at is None:
        return False  # It tries again whether there is money.
    is_express = call.lane is Lane.EXPRESS and call.due_at > now - EXPRESS_SWEPT_AFTER
    return call.due_at > since or is_express


def _of(tables: MemoryTables, org_id: str, state: CallState) -> Iterator[CallRow]:
    return (c for c in tables.calls.values() if c.org_id == org_id and c.state is state)
