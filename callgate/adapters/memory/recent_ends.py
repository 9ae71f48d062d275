"""How the newest calls of the memory ledger ended without an answer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta

from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallState
from callgate.domain.reports import RecentEnd

WITHOUT_ANSWER = (CallState.DEAD, CallState.REJECTED)


def recent_ends(
    tables: MemoryTables, now: datetime, orgs_max: int, calls_max: int, age_s: float
) -> list[RecentEnd]:
    """See `OperationsPort.recent_ends`."""
    ended: defaultdict[tuple[str, str], defaultdict[str, list[CallRow]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for org_id in sorted({call.org_id for call in tables.calls.values()})[:orgs_max]:
        newest = sorted(
            (c for c in tables.calls.values() if c.org_id == org_id),
            key=lambda c: c.created_at,
            reverse=True,
        )
        for call in newest[:calls_max]:
            is_recent = call.created_at > now - timedelta(seconds=age_s)
            if is_recent and call.state in WITHOUT_ANSWER:
                ended[call.state, str(call.end_reason)][org_id].append(call)
    found = [_recent_end(*name, orgs) for name, orgs in ended.items()]
    return sorted(found, key=lambda end: (-end.calls, end.state, end.reason))


def _recent_end(state: str, reason: str, orgs: Mapping[str, list[CallRow]]) -> RecentEnd:
    most = min(orgs, key=lambda org_id: (-len(orgs[org_id]), org_id))
    calls = [call for of_org in orgs.values() for call in of_org]
    fingerprints = {call.error_fingerprint for call in calls} - {None}
    of_most = {call.error_fingerprint for call in orgs[most] if call.error_fingerprint}
    is_budget = reason.startswith("budget")
    needed = [json.loads(c.error or "{}").get("requested_nano_usd", 0) for c in calls if is_budget]
    return RecentEnd(
        state,
        reason,
        len(calls),
        len(orgs),
        most,
        provider=min(call.provider for call in orgs[most]),
        model=min(call.model for call in orgs[most]),
        error_fingerprint=min(of_most, default=None),
        fingerprints=len(fingerprints),
        needed_nano_usd=max(needed, default=0) or None,
    )
