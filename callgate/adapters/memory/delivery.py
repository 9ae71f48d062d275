"""Delivery of links in the memory ledger: which are due, and what each try brought."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from callgate.adapters.memory.posting import DUE_AGAIN
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallKey
from callgate.domain.delivery import Delivery, LinkFailure, LinkOutcome

ORG_LINKS_MAX = 50
CALL_LINKS_MAX = 10


def take(
    tables: MemoryTables,
    limit: int,
    after_org_id: str,
    keys: Sequence[CallKey] | None,
    now: datetime,
) -> list[Delivery]:
    """
    Take due links, of `keys` or of the organisations after `after_org_id`.

    Other callers get these calls again after ten seconds (`DUE_AGAIN`).
    """
    if keys is not None:
        named = [key for key in keys if key in tables.undelivered]
        return _of_calls(tables, named, CALL_LINKS_MAX, limit, now)
    taken: list[Delivery] = []
    for org_id in sorted({tables.calls[key].org_id for key in tables.undelivered}):
        if org_id > after_org_id:
            due = [k for k, at in tables.undelivered.items() if at <= now]
            own = sorted(
                (k for k in due if tables.calls[k].org_id == org_id),
                key=tables.undelivered.__getitem__,
            )
            links_max = min(ORG_LINKS_MAX, limit - len(taken))
            taken += _of_calls(tables, own, links_max, links_max, now)
    return taken


def _of_calls(
    tables: MemoryTables, keys: Sequence[CallKey], per_call: int, limit: int, now: datetime
) -> list[Delivery]:
    taken: list[Delivery] = []
    for key in keys:
        if len(taken) >= limit:
            break
        tables.undelivered[key] = now + DUE_AGAIN
        due = [
            d
            for d in tables.deliveries(tables.calls[key])
            if (tables.submissions[d.submission_id].try_at or now) <= now
        ]
        taken += due[: min(per_call, limit - len(taken))]
        if not due:
            tables.reschedule_delivery(key, now)
    return taken


def keep(tables: MemoryTables, outcomes: Sequence[LinkOutcome], now: datetime) -> None:
    """Store delivery results."""
    keys = set()
    for outcome in outcomes:
        submission = tables.submissions.get(outcome.submission_id)
        if submission is None:
            continue
        keys.add(submission.key)
        if not submission.has_link_to_tell:
            continue
        submission.tries += 1
        submission.failure = outcome.why
        if outcome.why is None:
            submission.delivered_at = now
        elif outcome.again_s is None:
            submission.given_up_at = now
        else:
            submission.try_at = now + timedelta(seconds=outcome.again_s)
    for key in keys & tables.undelivered.keys():
        tables.reschedule_delivery(key, now)


def failures(tables: MemoryTables, key: CallKey, limit: int) -> list[LinkFailure]:
    """Links of a call that could not be delivered so far, those that were given up first."""
    failed = [s for s in tables.submissions_of[key] if s.failure is not None]
    failed.sort(key=lambda s: (s.given_up_at is None, s.given_up_at or s.try_at))
    return [
        LinkFailure(
            s.submission_id,
            s.tries,
            s.failure or "",
            s.try_at if s.given_up_at is None else None,
            s.given_up_at,
        )
        for s in failed[:limit]
    ]
