"""Which calls of the memory ledger a redrive concerns."""

from __future__ import annotations

from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallKey, CallState
from callgate.domain.redrives import LEFT_ALONE, NewRedrive
from callgate.domain.reports import CallFilter


def selected(tables: MemoryTables, new: NewRedrive) -> list[CallRow]:
    """The calls of a selection without a later generation, oldest first."""
    found = [call for call in tables.calls.values() if _matches(tables, call, new.selection)]
    found.sort(key=lambda call: call.key.call_id)
    found.sort(key=lambda call: call.created_at, reverse=True)
    return found[: new.calls_max][::-1]


def _matches(tables: MemoryTables, call: CallRow, which: CallFilter) -> bool:
    pairs = (
        (which.org_id, call.org_id),
        (which.state, call.state),
        (which.call_type, call.call_type),
        (which.provider, call.provider),
        (which.model, call.model),
        (which.end_reason, call.end_reason),
        (which.error_fingerprint, call.error_fingerprint),
    )
    is_named = call.key.call_id in which.call_ids if which.call_ids else True
    is_named &= which.since is None or call.created_at >= which.since
    is_named &= which.until is None or call.created_at < which.until
    is_chosen = bool(which.call_ids) or which.end_reason is not None
    is_left_alone = call.state is CallState.REJECTED and call.end_reason in LEFT_ALONE
    has_later = CallKey(call.key.call_id, call.key.generation + 1) in tables.calls
    return (
        is_named
        and not has_later
        and (is_chosen or not is_left_alone)
        and all(want in (None, have) for want, have in pairs)
    )
