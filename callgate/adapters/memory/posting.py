"""
How money is posted in the memory ledger: record keeps an answer, settle posts its attempt and moves its call.

    hold --record--> answer kept --settle--> posted in the very budgets the hold was made in
      \\--settle as unknown--> the whole hold posted --late answer--> posted again at its real cost
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from callgate.adapters.memory import limits
from callgate.adapters.memory.bounds import TOO_LARGE, takes_record, takes_settlement
from callgate.adapters.memory.breakers import is_refused_again
from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.adapters.memory.sums import end_savings, noted
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.breaker import Health
from callgate.domain.calls import AttemptKind, AttemptStatus, CallState, WaitReason
from callgate.domain.ledger import (
    Locked,
    RecordAnswer,
    RecordOutcome,
    Settle,
    Settled,
    SettleOutcome,
    Unstorable,
)
from callgate.domain.retention import LATE_ANSWER_MAX
from callgate.domain.retry import WORKER_LOST
from callgate.domain.unknown import is_bill_unknown

DUE_AGAIN = timedelta(seconds=10)
"""How long due calls belong to the caller that took them, and links to the caller that ended their call."""
EXPIRING = json.dumps({"code": WORKER_LOST.code, "message": WORKER_LOST.message})
"""The error of a running call whose attempt was taken as expired; its claim cannot be renewed any more."""


def record(tables: MemoryTables, answer: RecordAnswer, now: datetime) -> RecordOutcome:
    """Keep what the provider answered, late or not; the first answer stays."""
    attempt = tables.attempt(answer.ref)
    if attempt is None:
        return RecordOutcome.CLOSED
    if not takes_record(answer):
        return RecordOutcome.UNSTORABLE
    if attempt.status is AttemptStatus.ANSWERED:
        return RecordOutcome.RECORDED
    if attempt.status is AttemptStatus.DISPATCHED:
        attempt.status = AttemptStatus.ANSWERED
        outcome = RecordOutcome.RECORDED
    elif _awaits_late_answer(attempt, now):
        attempt.late_due_at = now + DUE_AGAIN
        outcome = RecordOutcome.LATE
    else:
        return RecordOutcome.CLOSED
    with noted(tables, attempt):
        attempt.latency_ms = answer.latency_ms
    attempt.reply = answer.reply
    attempt.error = answer.error
    attempt.provider_request_id = answer.provider_request_id
    attempt.finished_at = now
    return outcome


def settle(tables: MemoryTables, settlement: Settle, now: datetime) -> SettleOutcome:
    """Post an attempt and move its call, unless it is posted already."""
    call = tables.calls.get(settlement.ref.key)
    if call is None:
        return Unstorable("there is no such call")
    if call.key in tables.locked:
        return Locked(call.key)
    if not takes_settlement(settlement):
        return Unstorable(TOO_LARGE)
    attempt = tables.attempt(settlement.ref)
    if attempt is None or not _is_settleable(attempt, settlement):
        return Settled(settlement.ref, False, call.state)
    with noted(tables, attempt):
        _post(tables, attempt, settlement, now)
    if call.request is None:
        # A late answer of a call that was purged meanwhile: what it cost stays, its text does not.
        attempt.reply = None
    was_open = call.state.is_open
    _move(tables, call, attempt, settlement, now)
    has_ended = was_open and not call.state.is_open
    has_links = has_ended and bool(tables.deliveries(call))
    return Settled(settlement.ref, True, call.state, has_ended, has_links)


def _awaits_late_answer(attempt: AttemptRow, now: datetime) -> bool:
    is_open = attempt.status is AttemptStatus.UNKNOWN and attempt.finished_at is None
    return is_open and now - attempt.started_at < LATE_ANSWER_MAX


def _is_settleable(attempt: AttemptRow, settlement: Settle) -> bool:
    """An attempt without an answer can only become unknown; one that has changed since is left alone."""
    if attempt.status is not settlement.expected_status:
        return False
    if attempt.status is AttemptStatus.DISPATCHED:
        return settlement.status is AttemptStatus.UNKNOWN
    return attempt.status is AttemptStatus.ANSWERED or attempt.late_due_at is not None


def _post(tables: MemoryTables, attempt: AttemptRow, settlement: Settle, now: datetime) -> None:
    """Replace the hold, or the amount that was posted before a late answer, by the new amount."""
    if not is_bill_unknown(settlement.status, settlement.anomalies):
        attempt.settled_by_hand_at = None
    # A real cost replaces what an operator entered; another guess does not.
    is_by_hand = attempt.settled_by_hand_at is not None
    posted = (attempt.posted_nano_usd or 0) if is_by_hand else settlement.posted_nano_usd
    release = 0 if attempt.status.is_posted else attempt.hold_nano_usd
    spent = posted - (attempt.posted_nano_usd or 0)
    for budget_id in attempt.budget_ids:
        tables.change_budget(budget_id, reserved=-release, spent=spent)
    attempt.status = settlement.status
    attempt.posted_nano_usd = posted
    attempt.posted_at = now
    attempt.usage = settlement.usage
    attempt.price_source = settlement.price_source or attempt.price_source
    attempt.service_tier = settlement.service_tier
    attempt.anomalies = settlement.anomalies
    attempt.error = settlement.error
    attempt.health = settlement.health
    attempt.late_due_at = None
    limits.give_back(tables, attempt)


def _move(
    tables: MemoryTables, call: CallRow, attempt: AttemptRow, settlement: Settle, now: datetime
) -> None:
    """Move the call: a success always does, any other result only if its attempt is the current one."""
    is_current = call.attempt_id == attempt.attempt_id and call.state is CallState.RUNNING
    if not call.state.is_open:
        tables.rest(call)
    elif settlement.status is AttemptStatus.SUCCEEDED:
        _succeed(tables, call, attempt, now)
    elif is_current:
        _fail(tables, call, attempt, settlement, now)


def _fail(
    tables: MemoryTables, call: CallRow, attempt: AttemptRow, settlement: Settle, now: datetime
) -> None:
    call.error_fingerprint = settlement.error_fingerprint
    is_refused_once_more = is_refused_again(tables, settlement, call, attempt.credential)
    if settlement.next_state is CallState.WAITING or is_refused_once_more:
        due_at = now + timedelta(seconds=settlement.due_in_s or 0.0)
        if settlement.health is Health.LIMITED:
            wait_until = call.wait_until or due_at
            call.wait(WaitReason.RATE_LIMITED, settlement.error, wait_until)
            call.wait_until = wait_until
            call.waits_for = call.provider, call.model, attempt.credential
            return
        if attempt.kind is not AttemptKind.PROBE:
            call.wait_until = None
        call.wait(WaitReason.RETRY, settlement.error, due_at)
    else:
        tables.end(call, settlement.next_state, settlement.error, now + DUE_AGAIN)


def _succeed(tables: MemoryTables, call: CallRow, winner: AttemptRow, now: datetime) -> None:
    """End a call. A newer attempt that this supersedes may still send until it expires."""
    expires_at = call.due_at
    call.attempt_id = winner.attempt_id
    call.error_fingerprint = None
    tables.end(call, CallState.SUCCEEDED, None, now + DUE_AGAIN)
    end_savings(tables, call)
    if tables.unposted(call.key) is not None and expires_at is not None:
        call.due_at = max(now + DUE_AGAIN, expires_at)
