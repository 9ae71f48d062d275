"""Pauses in the memory ledger: what is paused, and which calls wait no more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallState, WaitReason
from callgate.domain.errors import OrganisationFrozen
from callgate.domain.ledger import NewSubmission
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import By

FREED_AT_ONCE = 1_000
"""How many calls the end of a pause makes due; the due query makes the others due."""


def pause_of(tables: MemoryTables, call: CallRow) -> Pause | None:
    """The oldest pause that covers a call."""
    found = (pause for pause in tables.pauses.values() if _covers(pause.key, call))
    return min(found, key=lambda pause: pause.at, default=None)


def is_paused(tables: MemoryTables, call: CallRow) -> bool:
    """True if a pause covers the call."""
    return pause_of(tables, call) is not None


def is_org_paused(tables: MemoryTables, org_id: str) -> bool:
    """True if all calls of an organisation are paused."""
    wholly = (PauseKey(), PauseKey(org_id=org_id), PauseKey(org_id=org_id, is_freeze=True))
    return any(key in tables.pauses for key in wholly)


def pause_line(tables: MemoryTables, key: PauseKey) -> Pause:
    """A pause, with the calls that wait for its end."""
    pause = tables.pauses[key]
    waiting = sum(_waits(call) and _covers(key, call) for call in tables.calls.values())
    return Pause(key, pause.by, pause.at, waiting)


def pause(tables: MemoryTables, key: PauseKey, by: By, now: datetime) -> Pause:
    """Keep calls from being sent."""
    tables.pauses[key] = Pause(key, by, now)
    action = "freeze" if key.is_freeze else "pause"
    tables.log_action(now, by, action, key.org_id or None, str(key))
    return pause_line(tables, key)


def resume(tables: MemoryTables, key: PauseKey, by: By, now: datetime) -> bool:
    """End a pause. False if there is none."""
    if tables.pauses.pop(key, None) is None:
        return False
    action = "unfreeze" if key.is_freeze else "resume"
    tables.log_action(now, by, action, key.org_id or None, str(key))
    free_paused(tables, FREED_AT_ONCE, now)
    return True


def free_paused(tables: MemoryTables, limit: int, now: datetime) -> None:
    """Make calls due that no pause covers any more, by rank."""
    found = [
        call
        for call in tables.calls.values()
        if _waits(call) and call.due_at and call.due_at > now
        if call.key not in tables.locked and not is_paused(tables, call)
    ]
    for call in sorted(found, key=lambda call: (call.rank_at, call.key))[:limit]:
        call.due_at = now


def refuse_frozen(tables: MemoryTables, batch: Sequence[NewSubmission]) -> None:
    """
    Refuse submissions that are not known yet, of frozen organisations.

    Raises:
        OrganisationFrozen
    """
    for new in batch:
        freeze = tables.pauses.get(PauseKey(org_id=new.org_id, is_freeze=True))
        if freeze is not None and new.submission_id not in tables.submissions:
            raise OrganisationFrozen(
                f"organisation {new.org_id} is frozen ({freeze.by.reason}): "
                "submit again when an operator has unfrozen it"
            )


def _waits(call: CallRow) -> bool:
    return call.state is CallState.WAITING and call.wait_reason is WaitReason.PAUSED


def _covers(key: PauseKey, call: CallRow) -> bool:
    return key.covers(call.org_id, call.call_type, call.provider, call.model)
