"""How many calls of an organisation run at a time in the memory ledger, and who waits for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from callgate.adapters.memory.pauses import is_paused
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallKey, CallState, WaitReason
from callgate.domain.concurrency import CallsOf, Places
from callgate.domain.reports import Ahead, ConcurrencyLine


def refusal_of(tables: MemoryTables, call: CallRow) -> str | None:
    """Why a queued call finds no place, as JSON; None: it finds one."""
    places = _places(tables, call.org_id)
    running = Counter(other.call_type for other in _running(tables, call.org_id))
    line = Counter(
        other.call_type
        for other in tables.calls.values()
        if other.org_id == call.org_id and other.is_in_line
    )
    # A call that was released for its provider is not new: else the two lines would refuse each other's calls.
    is_new = not call.is_in_line and call.waits_for is None
    return places.refusal_of(call.call_type, running, line if is_new else {})


def wake(tables: MemoryTables, now: datetime) -> bool:
    """Make calls due that find a place now. True if there were any."""
    has_woken = False
    line = [call for call in tables.calls.values() if call.is_in_line]
    for org_id in sorted({call.org_id for call in line}):
        mine = [call for call in line if call.org_id == org_id]
        asleep = [c for c in mine if is_asleep(c, now)]
        taken = [c.call_type for c in mine if not is_asleep(c, now)]
        taken += [c.call_type for c in _running(tables, org_id)]
        can_wake = [c for c in asleep if c.key not in tables.locked and not is_paused(tables, c)]
        can_wake.sort(key=lambda c: (c.rank_at, c.key))
        chosen = _places(tables, org_id).next_of([c.call_type for c in can_wake], taken)
        for n in chosen:
            can_wake[n].due_at = now
            has_woken = True
    return has_woken


def is_asleep(call: CallRow, now: datetime) -> bool:
    """True if a call waits for a place and was not woken."""
    is_limited = call.wait_reason is WaitReason.CONCURRENCY_LIMITED
    return is_limited and call.due_at is not None and call.due_at > now


def ahead_of(tables: MemoryTables, key: CallKey) -> Ahead | None:
    """How many calls come before one that waits for a place, or for held money."""
    call = tables.calls.get(key)
    if call is None or call.wait_reason not in (
        WaitReason.CONCURRENCY_LIMITED,
        WaitReason.BUDGET_HELD,
    ):
        return None
    mine = [other for other in tables.calls.values() if other.org_id == call.org_id]
    if call.wait_reason is WaitReason.CONCURRENCY_LIMITED:
        before = [c for c in mine if c.is_in_line and c.rank_at < call.rank_at]
    else:
        before = [c for c in mine if c.requested_hold_nano_usd and c.created_at < call.created_at]
    return Ahead(sum(c.call_type == call.call_type for c in before), len(before))


def concurrency_lines(tables: MemoryTables) -> list[ConcurrencyLine]:
    """What is declared, and what is used of it."""
    declared = [
        ConcurrencyLine(*_names(rule.calls_of, rule.name), rule.calls_of, rule.amount, 0, 0)
        for rule in tables.declaration.concurrency
        if rule.amount is not None
    ]
    counted = {(line.calls_of, line.org_id, line.call_type): line for line in declared}
    orgs = {c.org_id for c in tables.calls.values() if c.state is CallState.RUNNING or c.is_in_line}
    for org_id in orgs:
        for line in _lines_of(tables, org_id):
            counted[line.calls_of, line.org_id, line.call_type] = line
    return [counted[name] for name in sorted(counted, key=lambda name: (*name[1:], name[0]))]


def _lines_of(tables: MemoryTables, org_id: str) -> Iterator[ConcurrencyLine]:
    places = _places(tables, org_id)
    running = Counter(call.call_type for call in _running(tables, org_id))
    waiting = Counter(
        call.call_type
        for call in tables.calls.values()
        if call.org_id == org_id and call.is_in_line and call.state is CallState.WAITING
    )
    if (most := places.total_max) is not None:
        totals = running.total(), waiting.total()
        yield ConcurrencyLine(org_id, "", CallsOf.ORGANISATION, most, *totals)
    for call_type in {*running, *waiting}:
        if (most := places.type_max(call_type)) is not None:
            counts = running[call_type], waiting[call_type]
            yield ConcurrencyLine(org_id, call_type, CallsOf.CALL_TYPE, most, *counts)


def _names(calls_of: CallsOf, name: str) -> tuple[str, str]:
    return (name, "") if calls_of is CallsOf.ORGANISATION else ("", name)


def _running(tables: MemoryTables, org_id: str) -> Iterator[CallRow]:
    calls = tables.calls.values()
    return (c for c in calls if c.org_id == org_id and c.state is CallState.RUNNING)


def _places(tables: MemoryTables, org_id: str) -> Places:
    return Places(org_id, tables.declaration.concurrency)
