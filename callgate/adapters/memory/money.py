"""
How money moves in the memory ledger: reserve, record and settle, one row at a time.

    queued --reserve--> hold --record--> answer kept --settle--> posted in the very budgets the hold was made in
                          \\--settle as unknown--> the whole hold posted --late answer--> posted again at its real cost
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from uuid import UUID

from callgate.adapters.memory.bounds import takes_claim, takes_error, takes_record, takes_settlement
from callgate.adapters.memory.breakers import (
    admission_of,
    guard_of,
    is_refused_again,
    keep,
    pass_the_turn,
)
from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.breaker import Admission, Guard, unavailable_json
from callgate.domain.budgets import (
    ORG_SCOPE,
    BudgetFigures,
    BudgetRefusal,
    RefusalReason,
    Window,
    admit,
    held_wait_s,
    refusal_of,
    scopes_of,
)
from callgate.domain.calls import AttemptKind, AttemptRef, AttemptStatus, CallState, WaitReason
from callgate.domain.ledger import (
    Defer,
    Locked,
    NotClaimed,
    RecordAnswer,
    RecordOutcome,
    Refused,
    Reject,
    Requeue,
    Reserve,
    ReserveCommand,
    Reserved,
    ReserveOutcome,
    Settle,
    Settled,
    SettleOutcome,
    Unstorable,
)
from callgate.domain.requests import OnBudget
from callgate.domain.retention import LATE_ANSWER_MAX
from callgate.domain.retry import WORKER_LOST
from callgate.domain.unknown import is_bill_unknown

DUE_AGAIN = timedelta(seconds=10)
"""How long due calls belong to the caller that took them, and links to the caller that ended their call."""
TOO_LARGE = "a column is larger than its bound"

EXPIRING = json.dumps({"code": WORKER_LOST.code, "message": WORKER_LOST.message})
"""The error of a running call whose attempt was taken as expired; its claim cannot be renewed any more."""


def reserve(
    tables: MemoryTables, command: ReserveCommand, attempt_id: UUID, now: datetime
) -> ReserveOutcome:
    """Decide a queued call: claim it, or reject, defer or requeue it."""
    call = tables.calls.get(command.key)
    if call is None:
        return NotClaimed(command.key, None)
    if call.key in tables.locked and call.state in (CallState.QUEUED, CallState.RUNNING):
        return Locked(call.key)
    if isinstance(command, Reserve):
        return _claim(tables, call, command, attempt_id, now)
    if call.state is not CallState.QUEUED:
        return NotClaimed(call.key, call.state)
    if not takes_error(command.error):
        return Unstorable(TOO_LARGE)
    pass_the_turn(tables, call, now)
    _turn_away(tables, call, command, now)
    return Refused(call.key, call.state, None)


def _claim(
    tables: MemoryTables, call: CallRow, claim: Reserve, attempt_id: UUID, now: datetime
) -> ReserveOutcome:
    """Hold the call's worst-case cost in all of its budgets, or in none."""
    if claimed := _claimed_before(tables, call, claim):
        call.due_at = now + timedelta(seconds=claim.expires_in_s)
        return _reserved(claimed)
    if call.state is not CallState.QUEUED or _is_spent(tables, call, claim):
        return NotClaimed(call.key, call.state, _unsent(tables, call, claim))
    if not takes_claim(claim):
        return Unstorable(TOO_LARGE)
    call.sweeps = 0
    budgets = _budgets(tables, call, claim, now)
    refusal = _refusal(call, budgets, claim.hold_nano_usd, now)
    if refusal is not None:
        pass_the_turn(tables, call, now)
        _refuse(tables, call, claim, budgets, refusal, now)
        return Refused(call.key, call.state, refusal)
    guard = guard_of(tables, call, claim.credential, now)
    admission = admission_of(tables, call, guard, now)
    # It has waited long enough, even if it was a probe each time.
    is_over = call.wait_until is not None and call.wait_until <= now
    if admission is Admission.WAIT or (admission is Admission.PROBE and is_over):
        _wait_for_provider(tables, call, claim, guard, now)
        return Refused(call.key, call.state, None)
    attempt = _hold(tables, call, claim, budgets, attempt_id, now)
    if admission is Admission.PROBE:
        attempt.kind = AttemptKind.PROBE
        call.wait_until = call.wait_until or now + timedelta(seconds=claim.wait_max_s)
    else:
        call.wait_until = None
    keep(tables, guard.with_trial(attempt_id, now), now)
    return _reserved(attempt)


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
    attempt.reply = answer.reply
    attempt.error = answer.error
    attempt.latency_ms = answer.latency_ms
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
    _post(tables, attempt, settlement, now)
    if call.request is None:
        # A late answer of a call that was purged meanwhile: what it cost stays, its text does not.
        attempt.reply = None
    was_open = call.state.is_open
    _move(tables, call, attempt, settlement, now)
    has_ended = was_open and not call.state.is_open
    return Settled(settlement.ref, True, call.state, has_ended and bool(tables.deliveries(call)))


def _awaits_late_answer(attempt: AttemptRow, now: datetime) -> bool:
    is_open = attempt.status is AttemptStatus.UNKNOWN and attempt.finished_at is None
    return is_open and now - attempt.started_at < LATE_ANSWER_MAX


def _claimed_before(tables: MemoryTables, call: CallRow, claim: Reserve) -> AttemptRow | None:
    """The attempt that this claim made, if it is dispatched and was not taken as expired."""
    current = tables.attempts[call.attempt_id] if call.attempt_id else None
    if current is None or call.state is not CallState.RUNNING or call.error is not None:
        return None
    is_under_way = current.status is AttemptStatus.DISPATCHED
    return current if is_under_way and current.worker_id == claim.worker_id else None


def _is_spent(tables: MemoryTables, call: CallRow, claim: Reserve) -> bool:
    """True if this claim made an attempt before: the statement arrives late, and must not make another."""
    return any(a.worker_id == claim.worker_id for a in tables.attempts_of[call.key])


def _unsent(tables: MemoryTables, call: CallRow, claim: Reserve) -> AttemptRef | None:
    """The attempt that this claim made of a call which has ended since."""
    if call.state is CallState.RUNNING:
        return None
    made = (a for a in tables.attempts_of[call.key] if a.worker_id == claim.worker_id)
    unsent = (a.attempt_id for a in made if a.status is AttemptStatus.DISPATCHED)
    return next((AttemptRef(call.key, attempt_id) for attempt_id in unsent), None)


def _budgets(
    tables: MemoryTables, call: CallRow, claim: Reserve, now: datetime
) -> list[BudgetFigures]:
    """Every budget the call must fit into."""
    limit = claim.default_limit_nano_usd
    if limit is not None and not tables.has_budget(call.org_id):
        tables.set_budget(call.org_id, ORG_SCOPE, Window.DAY, limit, "UTC", now)
    return tables.current_budgets(call.org_id, scopes_of(call.call_type), now)


def _refusal(
    call: CallRow, budgets: list[BudgetFigures], hold_nano_usd: int, now: datetime
) -> BudgetRefusal | None:
    if budgets:
        return admit(budgets, call.org_id, hold_nano_usd, now)
    return BudgetRefusal(
        RefusalReason.NOT_CONFIGURED, call.org_id, ORG_SCOPE, None, 0, 0, 0, hold_nano_usd
    )


def _turn_away(
    tables: MemoryTables, call: CallRow, command: Reject | Defer | Requeue, now: datetime
) -> None:
    match command:
        case Reject():
            tables.end(call, CallState.REJECTED, command.error, now)
        case Defer():
            _wait(call, command.reason, command.error, now + timedelta(seconds=command.wait_s))
        case Requeue():
            _wait(call, WaitReason.LOCKED, command.error, now)
            call.sweeps = 0


def _wait_for_provider(
    tables: MemoryTables, call: CallRow, claim: Reserve, guard: Guard, now: datetime
) -> None:
    """Let the call wait until both breakers have headroom, or reject it if it has waited long enough."""
    error = unavailable_json(guard.refusing)
    wait_until = call.wait_until or now + timedelta(seconds=claim.wait_max_s)
    if wait_until <= now:
        tables.end(call, CallState.REJECTED, error, now)
        return
    _wait(call, WaitReason.PROVIDER, error, wait_until)
    call.wait_until = wait_until
    call.waits_for = call.provider, call.model, claim.credential


def _refuse(
    tables: MemoryTables, call: CallRow, claim: Reserve, budgets: list[BudgetFigures],
    refusal: BudgetRefusal, now: datetime,
) -> None:  # fmt: skip
    """Let the call wait where waiting can help and is allowed, else reject it."""
    is_patient = claim.on_budget is OnBudget.WAIT
    if refusal.reason is RefusalReason.HELD:
        age_s = (now - call.created_at).total_seconds()
        due_at = now + timedelta(seconds=held_wait_s(age_s))
        _wait(call, WaitReason.BUDGET_HELD, refusal.to_json(), due_at)
        call.requested_hold_nano_usd = claim.hold_nano_usd
    elif refusal.reason is RefusalReason.EXHAUSTED and is_patient:
        reasons = [(refusal_of(b, claim.hold_nano_usd, now), b.ends_at) for b in budgets]
        ends = [ends_at for reason, ends_at in reasons if reason is RefusalReason.EXHAUSTED]
        _wait(call, WaitReason.BUDGET_EXHAUSTED, refusal.to_json(), max(ends))
        call.requested_hold_nano_usd = claim.hold_nano_usd
    else:
        tables.end(call, CallState.REJECTED, refusal.to_json(), now)


def _hold(
    tables: MemoryTables, call: CallRow, claim: Reserve, budgets: list[BudgetFigures],
    attempt_id: UUID, now: datetime,
) -> AttemptRow:  # fmt: skip
    for budget in budgets:
        tables.change_budget(budget.budget_id, reserved=claim.hold_nano_usd)
    queued_at = call.due_at or now
    attempt = AttemptRow(
        attempt_id=attempt_id,
        key=call.key,
        attempt=call.attempt + 1,
        hold_nano_usd=claim.hold_nano_usd,
        budget_ids=tuple(b.budget_id for b in budgets),
        price_source=claim.price_source,
        queue_ms=int((now - queued_at) / timedelta(milliseconds=1)),
        worker_id=claim.worker_id,
        credential=claim.credential,
        trace_id=claim.trace_id,
        started_at=now,
    )
    tables.add_attempt(attempt)
    call.state = CallState.RUNNING
    call.attempt = attempt.attempt
    call.attempt_id = attempt.attempt_id
    call.error = None
    call.requested_hold_nano_usd = None
    call.waits_for = None
    call.due_at = now + timedelta(seconds=claim.expires_in_s)
    return attempt


def _reserved(attempt: AttemptRow) -> Reserved:
    ref = AttemptRef(attempt.key, attempt.attempt_id)
    return Reserved(ref, attempt.attempt, attempt.queue_ms)


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
    attempt.late_due_at = None


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
        _wait(call, WaitReason.RETRY, settlement.error, due_at)
    else:
        tables.end(call, settlement.next_state, settlement.error, now + DUE_AGAIN)


def _succeed(tables: MemoryTables, call: CallRow, winner: AttemptRow, now: datetime) -> None:
    """End a call. A newer attempt that this supersedes may still send until it expires."""
    expires_at = call.due_at
    call.attempt_id = winner.attempt_id
    call.error_fingerprint = None
    tables.end(call, CallState.SUCCEEDED, None, now + DUE_AGAIN)
    if tables.unposted(call.key) is not None and expires_at is not None:
        call.due_at = max(now + DUE_AGAIN, expires_at)


def _wait(call: CallRow, reason: WaitReason, error: str | None, due_at: datetime) -> None:
    call.state = CallState.WAITING
    call.wait_reason = reason
    call.error = error
    call.due_at = due_at
    call.requested_hold_nano_usd = None
    call.waits_for = None
    if reason is not WaitReason.RETRY:
        call.wait_until = None
