"""The breakers of the memory ledger: who is let through, what attempts came to, which waiting calls are released."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from callgate.adapters.memory_tables import BreakerKey, CallRow, MemoryTables
from callgate.domain.breaker import Admission, Breaker, BreakerChange, Health
from callgate.domain.ledger import AttemptKind, CallState, Locked, Settle, Settled, SettleOutcome
from callgate.domain.operations import BreakerLine


def breaker_of(tables: MemoryTables, call: CallRow, credential: str, now: datetime) -> Breaker:
    """The breaker of a call: a new one is closed and unproven."""
    key = call.provider, call.model, credential
    return tables.breakers.setdefault(key, Breaker(*key, changed_at=now))


def admission_of(tables: MemoryTables, call: CallRow, breaker: Breaker, now: datetime) -> Admission:
    """What the breaker says to an attempt of the call."""
    waiting = _waiting_for(tables, _key(breaker))
    others_wait = any(w.org_id != call.org_id and w.attempt == call.attempt for w in waiting)
    fresher_wait = any(w.attempt < call.attempt for w in waiting)
    return breaker.admit(call.org_id, now, others_wait=others_wait, fresher_wait=fresher_wait)


def is_applied(outcome: SettleOutcome) -> bool:
    """True if a settlement changed something."""
    return isinstance(outcome, Settled) and outcome.is_applied


def is_probe_held(tables: MemoryTables, settle: Settle, outcome: SettleOutcome) -> bool:
    """True if all wait for what the attempt came to, though it is not posted yet because somebody holds its call."""
    attempt = tables.attempt(settle.ref)
    if attempt is None or not isinstance(outcome, Locked):
        return False
    return attempt.kind is AttemptKind.PROBE and attempt.status is settle.seen


def note_health(tables: MemoryTables, settle: Settle, now: datetime) -> tuple[BreakerChange, ...]:
    """Tell the breaker what an attempt came to; say if it was opened or closed."""
    attempt, call = tables.attempts[settle.ref.attempt_id], tables.calls[settle.ref.key]
    key = call.provider, call.model, attempt.credential
    if (before := tables.breakers.get(key)) is None:
        return ()
    after = before.after(
        attempt.attempt_id, attempt.started_at, settle.health, settle.failure_code, now
    )
    tables.breakers[key] = after
    is_change = after.is_open != before.is_open
    return (BreakerChange(*key, after.is_open, after.reason),) if is_change else ()


def is_refused_again(tables: MemoryTables, settle: Settle, call: CallRow, credential: str) -> bool:
    """True if the attempt met a refused key that is known already: its call waits, as the others do."""
    is_free = settle.health is Health.KEY_REFUSED and not settle.posted_nano_usd
    breaker = tables.breakers.get((call.provider, call.model, credential))
    return is_free and breaker is not None and breaker.is_open


def pass_the_turn(tables: MemoryTables, call: CallRow) -> None:
    """A call that was released to be a probe is none: the next organisation has its turn."""
    if call.breaker is not None and tables.breakers[call.breaker].is_open:
        breaker = tables.breakers[call.breaker]
        tables.breakers[call.breaker] = replace(breaker, probed_org=call.org_id)


def release(tables: MemoryTables, now: datetime) -> bool:
    """Make calls due that wait for a breaker which has room again; say whether there were any."""
    released = []
    for key in {call.breaker for call in tables.calls.values() if call.breaker is not None}:
        breaker = tables.breakers[key]
        calls = _waiting_for(tables, key)
        waiting = [call for call in calls if call.due_at and call.due_at > now]
        room = breaker.room(now) - (len(calls) - len(waiting))
        waiting.sort(key=_in_turn(breaker) if breaker.is_open else _by_age)
        released += waiting[: max(room, 0)]
    for call in released:
        call.due_at = now
    return bool(released)


def breaker_line(tables: MemoryTables, key: BreakerKey) -> BreakerLine:
    """One breaker, as operators see it."""
    b = tables.breakers[key]
    waiting = sum(c.state is CallState.WAITING for c in _waiting_for(tables, key))
    return BreakerLine(
        *key, b.is_open, b.reason, b.failures, b.changed_at, b.proven_at, b.probe_at, waiting
    )


def set_breaker(
    tables: MemoryTables, key: BreakerKey, is_open: bool, reason: str, now: datetime
) -> None:
    """Open or close a breaker by hand; a closed one is proven, and its calls are released."""
    before = tables.breakers.get(key) or Breaker(*key, changed_at=now)
    closed = replace(before.closed(now), proven_at=now)
    tables.breakers[key] = before.opened(reason, None, now) if is_open else closed
    release(tables, now)


def _waiting_for(tables: MemoryTables, key: BreakerKey) -> list[CallRow]:
    """Calls that wait for a breaker, released ones too, until they are claimed or refused again; none that is held."""
    calls = (call for call in tables.calls.values() if call.breaker == key)
    return [call for call in calls if call.key not in tables.locked]


def _key(breaker: Breaker) -> BreakerKey:
    return breaker.provider, breaker.model, breaker.credential


def _by_age(call: CallRow) -> tuple[object, ...]:
    return call.created_at, call.key


def _in_turn(breaker: Breaker) -> Callable[[CallRow], tuple[object, ...]]:
    """Calls with few attempts come first; of those, organisations behind the one that was probed last."""
    return lambda call: (
        call.attempt, call.org_id <= breaker.probed_org, call.org_id, call.created_at,
    )  # fmt: skip
