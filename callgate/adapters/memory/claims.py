"""Decide a queued call of the memory ledger: claim it and hold its cost, reject it, or let it wait."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from uuid import UUID

from callgate.adapters.memory import concurrency, limits, slots
from callgate.adapters.memory.bounds import TOO_LARGE, takes_claim, takes_error
from callgate.adapters.memory.breakers import (
    admission_of,
    guard_of,
    keep,
    pass_the_turn,
)
from callgate.adapters.memory.pauses import pause_of
from callgate.adapters.memory.rows import AttemptRow, CallRow, GuardKey
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.bounds import error_code
from callgate.domain.breaker import Admission, Guard
from callgate.domain.breaker_words import unavailable_json
from callgate.domain.budgets import (
    ORG_SCOPE,
    PERIOD_WAIT_MAX,
    BudgetFigures,
    BudgetRefusal,
    RefusalReason,
    Window,
    admit,
    held_wait_s,
    refusal_of,
    scopes_of,
)
from callgate.domain.call_order import BACKLOG_WAIT, DEADLINE_CODE
from callgate.domain.calls import AttemptKind, AttemptRef, AttemptStatus, CallState, WaitReason
from callgate.domain.ledger import (
    Defer,
    Locked,
    NotClaimed,
    Refused,
    Reject,
    Requeue,
    Reserve,
    ReserveCommand,
    Reserved,
    ReserveOutcome,
    Unstorable,
)
from callgate.domain.limits import Limit, Need
from callgate.domain.pauses import paused_json
from callgate.domain.requests import OnBudget
from callgate.domain.slots import GAVE_WAY

PAST_DEADLINE = json.dumps(
    {"code": DEADLINE_CODE, "message": "it was not sent before its deadline"}
)


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
    call.input_token_bound = max(call.input_token_bound, claim.input_token_bound)
    if call.start_before is not None and call.start_before <= now:
        _end_refused(tables, call, claim, PAST_DEADLINE, now)
        return Refused(call.key, call.state, None, error_code(PAST_DEADLINE))
    budgets = _budgets(tables, call, claim, now)
    if pause := pause_of(tables, call):
        pass_the_turn(tables, call, now)
        why = WaitReason.PAUSED, paused_json(pause.by.reason)
        _wait_to_its_end(tables, call, claim, why, now)
        return Refused(call.key, call.state, None)
    refusal = _refusal(call, budgets, claim.hold_nano_usd, now)
    if refusal is not None:
        pass_the_turn(tables, call, now)
        _refuse(tables, call, claim, budgets, refusal, now)
        return Refused(call.key, call.state, refusal)
    if _has_no_place(tables, call, claim, now):
        return Refused(call.key, call.state, None)
    key = call.provider, call.model, claim.credential
    need = Need(call.input_token_bound, claim.output_token_bound)
    admitted = _ask_provider(tables, call, claim, key, need, now)
    if isinstance(admitted, Refused):
        return admitted
    admission, chosen = admitted
    attempt = _hold(tables, call, claim, budgets, attempt_id, now)
    attempt.limit_ids = limits.take(tables, key, call.org_id, chosen, need, now)
    if admission is Admission.PROBE:
        attempt.kind = AttemptKind.PROBE
        call.wait_until = call.wait_until or now + timedelta(seconds=claim.wait_max_s)
    guard = guard_of(tables, call, claim.credential, now)
    keep(tables, guard.with_trial(attempt_id, now), now)
    return _reserved(attempt)


def _has_no_place(tables: MemoryTables, call: CallRow, claim: Reserve, now: datetime) -> bool:
    """True if its slot is for others, or no more calls of its organisation may run: it waits, or its wait is over."""
    if slots.gives_way(tables, call, now):
        call.wait(WaitReason.BACKLOG, GAVE_WAY, now + BACKLOG_WAIT)
        return True
    error = concurrency.refusal_of(tables, call)
    if error is None:
        return False
    pass_the_turn(tables, call, now)
    _wait_to_its_end(tables, call, claim, (WaitReason.CONCURRENCY_LIMITED, error), now)
    return True


def _ask_provider(
    tables: MemoryTables, call: CallRow, claim: Reserve, key: GuardKey, need: Need, now: datetime
) -> tuple[Admission, list[Limit]] | Refused:
    """Ask the breakers, then the limits of the key. A call that they refuse waits, or has waited long enough."""
    call.output_token_bound = claim.output_token_bound
    guard = guard_of(tables, call, claim.credential, now)
    admission = admission_of(tables, call, guard, now)
    # It has waited long enough, even if it was a probe each time.
    is_over = call.wait_until is not None and call.wait_until <= now
    if admission is Admission.WAIT or (admission is Admission.PROBE and is_over):
        _wait_for_provider(tables, call, claim, _provider_wait(guard), now)
        return Refused(call.key, call.state, None)
    chosen, limited = limits.ask(
        tables, key, call, need, now, is_probe=admission is Admission.PROBE
    )
    if limited is None:
        return admission, chosen
    if limited.wait_s is None:
        _end_refused(tables, call, claim, limited.to_json(), now)
        return Refused(call.key, call.state, None, error_code(limited.to_json()))
    wait = WaitReason.RATE_LIMITED, limited.to_json()
    _wait_for_provider(tables, call, claim, wait, now)
    return Refused(call.key, call.state, None)


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
            call.wait(command.reason, command.error, now + timedelta(seconds=command.wait_s))
        case Requeue():
            call.wait(WaitReason.LOCKED, command.error, now)
            call.sweeps = 0


def _provider_wait(guard: Guard) -> tuple[WaitReason, str]:
    refusing = guard.refusing
    reason = WaitReason.RATE_LIMITED if refusing.is_rate_limited else WaitReason.PROVIDER
    return reason, unavailable_json(refusing)


def _wait_for_provider(
    tables: MemoryTables, call: CallRow, claim: Reserve, wait: tuple[WaitReason, str], now: datetime
) -> None:
    """Let the call wait until its provider has headroom, or reject it if it has waited long enough."""
    if _wait_to_its_end(tables, call, claim, wait, now):
        call.waits_for = call.provider, call.model, claim.credential


def _wait_to_its_end(
    tables: MemoryTables, call: CallRow, claim: Reserve, wait: tuple[WaitReason, str], now: datetime
) -> bool:
    """Let the call wait for as long as it may in total. False: it has waited for so long, and ends."""
    reason, error = wait
    wait_until = call.wait_until or now + timedelta(seconds=claim.wait_max_s)
    if wait_until <= now:
        _end_refused(tables, call, claim, error, now)
        return False
    call.wait(reason, error, wait_until)
    call.wait_until = wait_until
    return True


def _refuse(
    tables: MemoryTables, call: CallRow, claim: Reserve, budgets: list[BudgetFigures],
    refusal: BudgetRefusal, now: datetime,
) -> None:  # fmt: skip
    """Let the call wait where waiting can help and is allowed, else reject it."""
    age = now - call.created_at
    is_patient = claim.on_budget is OnBudget.WAIT and age < PERIOD_WAIT_MAX
    if refusal.reason is RefusalReason.HELD:
        wait = WaitReason.BUDGET_HELD, refusal.to_json()
        if _wait_to_its_end(tables, call, claim, wait, now):
            again_at = now + timedelta(seconds=held_wait_s(age.total_seconds()))
            call.due_at = min(call.due_at or again_at, again_at)
            call.requested_hold_nano_usd = claim.hold_nano_usd
    elif refusal.reason is RefusalReason.EXHAUSTED and is_patient:
        reasons = [(refusal_of(b, claim.hold_nano_usd, now), b.ends_at) for b in budgets]
        ends = [ends_at for reason, ends_at in reasons if reason is RefusalReason.EXHAUSTED]
        call.wait(WaitReason.BUDGET_EXHAUSTED, refusal.to_json(), max(ends))
        call.wait_until = None
        call.requested_hold_nano_usd = claim.hold_nano_usd
    else:
        _end_refused(tables, call, claim, refusal.to_json(), now)


def _end_refused(
    tables: MemoryTables, call: CallRow, claim: Reserve, error: str, now: datetime
) -> None:
    """
    Reject a call that fits no budget or limit, or has waited long enough.

    A call whose answer was to be repaired is dead, with the failure of its newest attempt: it was paid, so the same
    submission must not make it again.
    """
    if claim.repair_after != call.attempt:
        tables.end(call, CallState.REJECTED, error, now)
        return
    newest = tables.attempts[call.attempt_id] if call.attempt_id else None
    tables.end(call, CallState.DEAD, (newest.error if newest else None) or error, now)


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
        kind=_kind(call, claim),
        output_token_bound=claim.output_token_bound,
    )
    tables.add_attempt(attempt)
    call.state = CallState.RUNNING
    call.attempt = attempt.attempt
    call.attempt_id = attempt.attempt_id
    call.error = None
    call.requested_hold_nano_usd = None
    call.waits_for = None
    call.is_in_line = False
    call.due_at = now + timedelta(seconds=claim.expires_in_s)
    return attempt


def _kind(call: CallRow, claim: Reserve) -> AttemptKind:
    """The kind of an attempt that is no probe."""
    if claim.repair_after == call.attempt:
        return AttemptKind.REPAIR
    return AttemptKind.RETRY if call.attempt else AttemptKind.FIRST


def _reserved(attempt: AttemptRow) -> Reserved:
    ref = AttemptRef(attempt.key, attempt.attempt_id)
    return Reserved(ref, attempt.attempt, attempt.queue_ms, attempt.kind)
