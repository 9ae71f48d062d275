"""The breakers of the memory ledger: they admit attempts, count their results, and release waiting calls."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime

from callgate.adapters.memory import limits
from callgate.adapters.memory.limit_headroom import LimitHeadroom
from callgate.adapters.memory.pauses import is_paused
from callgate.adapters.memory.rows import BreakerKey, CallRow, GuardKey
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.breaker import (
    REMEMBERED_FOR,
    SHARE_OF,
    Admission,
    Breaker,
    Guard,
    Health,
    Why,
    fails_often,
)
from callgate.domain.breaker_words import BreakerChange
from callgate.domain.calls import AttemptKind, CallState
from callgate.domain.causes import cause_of_json
from callgate.domain.ledger import Locked, Settle, Settled, SettleOutcome
from callgate.domain.limits import Need
from callgate.domain.reports import BreakerLine


def guard_of(tables: MemoryTables, call: CallRow, credential: str, now: datetime) -> Guard:
    """The two breakers of a call. The shared one is made if it does not exist yet: closed and unproven."""
    key = (call.provider, call.model, credential, "")
    tables.breakers.setdefault(key, Breaker(*key, changed_at=now))
    return _guard(tables, key[:3], call.org_id)


def admission_of(tables: MemoryTables, call: CallRow, guard: Guard, now: datetime) -> Admission:
    """Decide whether the breakers admit an attempt of the call."""
    key = _key(guard.shared)[:3]
    waiting = (c for c in _waiting_for(tables, key) if not is_paused(tables, c))
    orgs = {c.org_id for c in waiting} - {call.org_id}
    others_wait = any(_guard(tables, key, org).headroom(now) > 0 for org in orgs)
    return guard.admit(now, others_wait=others_wait)


def keep(tables: MemoryTables, guard: Guard, now: datetime) -> None:
    """Store both breakers. An organisation's own one is deleted if it is closed, old and without failures."""
    own, key = guard.own, _key(guard.own)
    tables.breakers[_key(guard.shared)] = guard.shared
    is_old = now - own.changed_at >= REMEMBERED_FOR
    if own.is_open or own.failed_orgs or (key in tables.breakers and not is_old):
        tables.breakers[key] = own
    else:
        tables.breakers.pop(key, None)


def is_applied(outcome: SettleOutcome) -> bool:
    """True if a settlement changed something."""
    return isinstance(outcome, Settled) and outcome.is_applied


def is_probe_held(tables: MemoryTables, settle: Settle, outcome: SettleOutcome) -> bool:
    """True if the attempt's result matters to other calls but is not posted yet: its call is locked."""
    attempt = tables.attempt(settle.ref)
    if attempt is None or not isinstance(outcome, Locked):
        return False
    return attempt.kind is AttemptKind.PROBE and attempt.status is settle.expected_status


def note_health(tables: MemoryTables, settle: Settle, now: datetime) -> tuple[BreakerChange, ...]:
    """Report an attempt's result to its breakers. Return those that were opened or closed."""
    attempt, call = tables.attempts[settle.ref.attempt_id], tables.calls[settle.ref.key]
    key = call.provider, call.model, attempt.credential
    if (*key, "") not in tables.breakers:
        return ()
    before = _guard(tables, key, call.org_id)
    has_failed = settle.health is Health.FAILED
    after = before.after(
        attempt.attempt_id, attempt.started_at, settle.health, _why(settle), now,
        blocked_for_s=settle.blocked_for_s,
        often=(
            has_failed and _fails_often(tables, before.shared, now),
            has_failed and _fails_often(tables, before.own, now),
        ),
    )  # fmt: skip
    keep(tables, after, now)
    if settle.health is Health.LIMITED:
        limits.observe(tables, before.shared, after.shared, now)
    pairs = (before.shared, after.shared), (before.own, after.own)
    return tuple(
        BreakerChange(*_key(b), b.is_open, b.reason) for a, b in pairs if a.is_open != b.is_open
    )


def _why(settle: Settle) -> Why:
    cause = cause_of_json(settle.error)
    return Why(settle.failure_code, cause, settle.error_fingerprint)


def _fails_often(tables: MemoryTables, b: Breaker, now: datetime) -> bool:
    results: defaultdict[str, list[bool]] = defaultdict(list)
    for a in tables.attempts.values():
        call = tables.calls[a.key]
        is_of = (call.provider, call.model, a.credential) == _key(b)[:3]
        is_young = now - a.started_at < SHARE_OF and a.started_at >= b.changed_at
        is_heard = a.health in (Health.ALIVE, Health.FAILED)
        if is_of and is_young and is_heard and b.org_id in ("", call.org_id):
            results[call.org_id].append(a.health is Health.FAILED)
    return fails_often(results, is_shared=not b.org_id)


def is_refused_again(tables: MemoryTables, settle: Settle, call: CallRow, credential: str) -> bool:
    """True if the provider refused the credential, and a breaker is open already. The call then waits, as others do."""
    key = call.provider, call.model, credential
    if settle.health is not Health.KEY_REFUSED or settle.posted_nano_usd:
        return False
    known = (tables.breakers.get((*key, org_id)) for org_id in ("", call.org_id))
    return any(breaker is not None and breaker.is_open for breaker in known)


def pass_the_turn(tables: MemoryTables, call: CallRow, now: datetime) -> None:
    """Pass the turn to the next organisation: the released call was not sent."""
    if call.waits_for is None:
        return
    breaker = tables.breakers[*call.waits_for, ""]
    if breaker.is_open or not breaker.is_proven(now):
        tables.breakers[_key(breaker)] = replace(breaker, turn_org=call.org_id)


def release_provider_waiters(tables: MemoryTables, now: datetime) -> bool:
    """Make calls due that wait for a provider, as many as its breakers admit. True if there were any."""
    waited_for = {call.waits_for for call in tables.calls.values() if call.waits_for is not None}
    released = [call for key in waited_for for call in _next_of(tables, key, now)]
    for call in released:
        call.due_at = now
    return bool(released)


def breaker_line(tables: MemoryTables, key: BreakerKey) -> BreakerLine:
    """One breaker, as operators see it. A call is counted at the one that is the reason of its wait."""
    b = tables.breakers[key]
    calls = (c for c in _waiting_for(tables, key[:3]) if c.state is CallState.WAITING)
    guards = (_guard(tables, key[:3], call.org_id) for call in calls)
    waiting = sum(guard.refusing.org_id == b.org_id for guard in guards)
    return BreakerLine(
        *key, b.is_open, b.reason, b.failures, b.changed_at, b.proven_at, b.probe_at, waiting,
        b.cause, b.error_fingerprint,
    )  # fmt: skip


def set_breaker(
    tables: MemoryTables, key: BreakerKey, is_open: bool, reason: str, now: datetime
) -> None:
    """Open or close a breaker by hand. Closing the shared one closes all. A closed one is proven."""
    if is_open:
        tables.breakers.setdefault((*key[:3], ""), Breaker(*key[:3], "", changed_at=now))
    before = tables.breakers.get(key) or Breaker(*key, changed_at=now)
    closed = replace(before.closed(now), proven_at=now)
    tables.breakers[key] = before.opened(Why(reason), None, now) if is_open else closed
    if not is_open and not key[3]:
        for other, own in tables.breakers.items():
            if other[:3] == key[:3]:
                tables.breakers[other] = replace(own.closed(now), proven_at=now)
    release_provider_waiters(tables, now)


def forget(tables: MemoryTables, now: datetime, limit: int) -> int:
    """Delete breakers that were not used for long and that no call waits for. Return their number."""
    used = {call.waits_for for call in tables.calls.values()}
    old = [
        key for key, b in tables.breakers.items() if b.is_forgettable(now) and key[:3] not in used
    ]
    for key in old[:limit]:
        del tables.breakers[key]
    return len(old[:limit])


def _guard(tables: MemoryTables, key: GuardKey, org_id: str) -> Guard:
    shared = tables.breakers[*key, ""]
    blank = Breaker(*key, org_id, changed_at=shared.changed_at)
    return Guard(shared, tables.breakers.get((*key, org_id), blank))


def _next_of(tables: MemoryTables, key: GuardKey, now: datetime) -> list[CallRow]:
    """
    Choose calls to release. Calls with the fewest attempts come first.

    Organisations that took little from the limits come first; without limits, and to probe, they take turns.
    """
    shared = tables.breakers[*key, ""]
    if (headroom := shared.headroom("", now)) <= 0:
        return []
    asleep: defaultdict[str, list[CallRow]] = defaultdict(list)
    on_their_way: Counter[str] = Counter()
    for call in _waiting_for(tables, key):
        if call.due_at and call.due_at > now:
            # Paused calls keep their place.
            asleep[call.org_id] += [] if is_paused(tables, call) else [call]
        else:
            on_their_way[call.org_id] += 1
    left = LimitHeadroom.of(tables, key, now)
    line: list[tuple[float, bool, str, int, CallRow]] = []
    for org_id, calls in asleep.items():
        calls.sort(key=lambda call: (call.rank_at, call.key))
        places = _guard(tables, key, org_id).headroom(now) - on_their_way[org_id]
        share = limits.share_of(tables, key, org_id, now)
        for n, call in enumerate(calls[: max(places, 0)]):
            # An open breaker admits a probe by turn alone.
            order = 0.0 if shared.is_open else share
            line.append((order, org_id <= shared.turn_org, org_id, n, call))
            share += max(1e-9, left.part(_need(call)))
    line.sort(key=lambda place: place[:4])
    released = [_need(c) for c in _waiting_for(tables, key) if not (c.due_at and c.due_at > now)]
    count = left.fitting([_need(place[4]) for place in line], released)
    return [place[4] for place in line[: max(0, min(count, headroom - on_their_way.total()))]]


def _need(call: CallRow) -> Need:
    return Need(call.input_token_bound, call.output_token_bound)


def _waiting_for(tables: MemoryTables, key: GuardKey) -> list[CallRow]:
    """Calls that wait for a provider and are not locked. Released ones count until they are claimed or refused."""
    calls = (call for call in tables.calls.values() if call.waits_for == key)
    return [call for call in calls if call.key not in tables.locked]


def _key(breaker: Breaker) -> BreakerKey:
    return breaker.provider, breaker.model, breaker.credential, breaker.org_id
