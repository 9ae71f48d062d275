"""Unknown bills in the memory ledger: which there are, and how an operator settles one by hand."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow
from callgate.adapters.memory.sums import noted
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.budgets import BudgetFigures
from callgate.domain.calls import AttemptStatus, CallKey
from callgate.domain.reports import By
from callgate.domain.unknown import (
    WHOLE_HOLD,
    HandOutcome,
    SettleByHand,
    SettledByHand,
    UnknownBill,
    UnknownDay,
    UnknownFilter,
    is_bill_unknown,
)


def unknown_bills(tables: MemoryTables, which: UnknownFilter) -> list[AttemptRow]:
    """The attempts with an unknown bill that was not settled by hand, newest first."""
    found = [
        row
        for row in tables.attempts.values()
        if row.status.is_posted and row.settled_by_hand_at is None
        if _is_unknown(row) or (which.with_past and _posts_whole_hold(row))
        if _matches(tables, row, which)
    ]
    return sorted(found, key=lambda row: (row.started_at, row.attempt_id), reverse=True)


def has_unknown_bill(tables: MemoryTables, key: CallKey) -> bool:
    """True if the bill of an attempt of this call is unknown, and was not settled by hand."""
    attempts = tables.attempts_of[key]
    return any(
        a.posted_at is not None and a.settled_by_hand_at is None and _is_unknown(a)
        for a in attempts
    )


def bill_of(tables: MemoryTables, row: AttemptRow) -> UnknownBill:
    """A posted attempt, as far as its bill is concerned."""
    call = tables.calls[row.key]
    return UnknownBill(
        attempt_id=row.attempt_id,
        key=row.key,
        attempt=row.attempt,
        org_id=call.org_id,
        call_type=call.call_type,
        provider=call.provider,
        model=call.model,
        credential=row.credential,
        status=row.status,
        anomalies=row.anomalies,
        hold_nano_usd=row.hold_nano_usd,
        posted_nano_usd=row.posted_nano_usd or 0,
        started_at=row.started_at,
        settled_by_hand_at=row.settled_by_hand_at,
        provider_request_id=row.provider_request_id,
        error=row.error,
    )


def unknown_days(tables: MemoryTables, which: UnknownFilter) -> list[UnknownDay]:
    """Unknown bills by day and model, newest first, beside the known bills of the same day and model."""
    unknown = unknown_bills(tables, which)
    ids = {row.attempt_id for row in unknown}
    groups: defaultdict[tuple[date, str, str], list[AttemptRow]] = defaultdict(list)
    for row in tables.attempts.values():
        if row.status.is_posted and _matches(tables, row, which):
            call = tables.calls[row.key]
            groups[row.started_at.astimezone(UTC).date(), call.provider, call.model].append(row)
    days = [
        UnknownDay(*name, *_sum(rows, ids, is_in=True), *_sum(rows, ids, is_in=False))
        for name, rows in sorted(groups.items())
    ]
    return sorted((d for d in days if d.attempts), key=lambda d: d.day, reverse=True)


def settle(
    tables: MemoryTables, s: SettleByHand, by: By, now: datetime, *, dry_run: bool
) -> SettledByHand:
    """Post by hand what the provider billed, in the budgets the hold was made in."""
    row = tables.attempts.get(s.attempt_id)
    outcome = _outcome(row, s)
    before = row.posted_nano_usd if row else None
    if row is None or before is None or outcome is not HandOutcome.SETTLED:
        return SettledByHand(s.attempt_id, outcome, before, before)
    if not dry_run:
        for budget_id in row.budget_ids:
            tables.change_budget(budget_id, spent=s.billed_nano_usd - before)
        with noted(tables, row):
            row.posted_nano_usd = s.billed_nano_usd
            row.settled_by_hand_at = now
        call = tables.calls[row.key]
        tables.log_action(
            now, by, "unknown.settle", call.org_id, str(row.attempt_id), from_nano_usd=before,
            to_nano_usd=s.billed_nano_usd, provider=call.provider, model=call.model,
        )  # fmt: skip
    return SettledByHand(s.attempt_id, outcome, before, s.billed_nano_usd)


def running(budgets: dict[int, BudgetFigures], now: datetime) -> dict[int, BudgetFigures]:
    """The budgets whose period contains `now`. Only these can release waiting calls."""
    return {i: b for i, b in budgets.items() if b.starts_at <= now < b.ends_at}


def _outcome(row: AttemptRow | None, s: SettleByHand) -> HandOutcome:
    if row is None:
        return HandOutcome.NOT_FOUND
    is_by_hand = row.settled_by_hand_at is not None
    if is_by_hand and row.posted_nano_usd == s.billed_nano_usd:
        return HandOutcome.UNCHANGED
    is_open = is_by_hand or _is_unknown(row) or _posts_whole_hold(row)
    if not row.status.is_posted or not is_open:
        return HandOutcome.NOT_UNKNOWN
    if row.posted_nano_usd != s.seen_posted_nano_usd:
        return HandOutcome.CHANGED
    if s.billed_nano_usd > row.hold_nano_usd and not s.may_exceed_hold:
        return HandOutcome.ABOVE_HOLD
    return HandOutcome.SETTLED


def _is_unknown(row: AttemptRow) -> bool:
    return is_bill_unknown(row.status, row.anomalies)


def _posts_whole_hold(row: AttemptRow) -> bool:
    """True if the whole hold was posted because no amount was known (format of older versions)."""
    is_failed = row.status is AttemptStatus.FAILED and row.usage is None
    is_whole = 0 < row.hold_nano_usd == row.posted_nano_usd
    return is_whole and (is_failed or row.price_source.startswith(WHOLE_HOLD))


def _matches(tables: MemoryTables, row: AttemptRow, which: UnknownFilter) -> bool:
    call = tables.calls[row.key]
    pairs = (
        (which.org_id, call.org_id),
        (which.provider, call.provider),
        (which.model, call.model),
    )
    is_in_time = (which.since is None or row.started_at >= which.since) and (
        which.before is None or row.started_at < which.before
    )
    return is_in_time and all(want is None or want == have for want, have in pairs)


def _sum(rows: list[AttemptRow], ids: set[UUID], *, is_in: bool) -> tuple[int, int]:
    """Number and posted sum of the rows whose id is in `ids`, or of those whose id is not."""
    posted = [row.posted_nano_usd or 0 for row in rows if (row.attempt_id in ids) == is_in]
    return len(posted), sum(posted)
