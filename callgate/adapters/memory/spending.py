"""What attempts held and cost lately, from the memory ledger's tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from callgate.adapters.memory.rows import AttemptRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import AttemptStatus
from callgate.domain.reports import SpendingLine

ATTEMPTS_MAX = 10_000


def spending(
    tables: MemoryTables, org_ids: Sequence[str], since: datetime, attempts_max: int
) -> list[SpendingLine]:
    """See `OperationsPort.spending`."""
    groups: defaultdict[tuple[str, str, str, str], list[AttemptRow]] = defaultdict(list)
    for org_id in set(org_ids):
        rows = [
            (tables.calls[row.key], row)
            for row in tables.attempts.values()
            if tables.calls[row.key].org_id == org_id and row.started_at >= since
        ]
        rows.sort(key=lambda found: found[1].started_at, reverse=True)
        for call, row in rows[: min(attempts_max, ATTEMPTS_MAX)]:
            if row.status is AttemptStatus.SUCCEEDED and row.hold_nano_usd:
                groups[org_id, call.call_type, call.provider, call.model].append(row)
    return [
        SpendingLine(
            *name,
            attempts=len(found),
            output_tokens=sum(row.usage.output_tokens for row in found if row.usage),
            hold_nano_usd=sum(row.hold_nano_usd for row in found),
            posted_nano_usd=sum(row.posted_nano_usd or 0 for row in found),
        )
        for name, found in sorted(groups.items())
    ]
