"""The provider limits of the memory ledger: declared, learned, taken from, and given back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from callgate.adapters.memory.pauses import is_paused
from callgate.adapters.memory.rows import AttemptRow, CallRow, GuardKey, LimitKey
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.breaker import Breaker
from callgate.domain.calls import AttemptStatus
from callgate.domain.limits import (
    MINUTE_S,
    OBSERVED_MIN,
    Declaration,
    Learned,
    Limit,
    LimitRefusal,
    LimitRule,
    Measure,
    Need,
    Source,
    refusal_of,
)

SHARE_FADES_S = 60.0
"""After this many seconds about a third of a share still counts; with longer windows, after those."""


def publish(tables: MemoryTables, worker_id: str, declaration: Declaration, now: datetime) -> None:
    """Let a declaration count: limits without a rule go, the others get the new amounts."""
    tables.declaration = declaration
    for key, limit in list(tables.limits.items()):
        if limit.source is not Source.DECLARED:
            continue
        rules = sorted(
            (rule for rule in declaration.rules if _makes(rule, limit)),
            key=lambda rule: rule.amount,
        )
        if not rules:
            del tables.limits[key]
            continue
        lowest = rules[0]
        changed = replace(limit, amount=lowest.amount, counts_used=lowest.counts_used)
        if changed != limit:
            level = min(changed.level, changed.capacity)
            tables.limits[key] = replace(changed, level=level, changed_at=now)
    if worker_id in tables.leases:
        tables.leases[worker_id].limits_digest = declaration.digest


def learn(tables: MemoryTables, each: Learned, now: datetime) -> None:
    """Keep a limit that a provider named."""
    learned = each.limit
    window_s = round(learned.window_s)
    name = each.provider, each.model, each.credential, Source.LEARNED, learned.measure, window_s
    counts_used = each.provider in tables.declaration.counting_used
    new = replace(_new(tables, name, learned.amount, now), counts_used=counts_used)
    limit = tables.limits.get(name) or new
    changed = replace(limit.at(now), amount=learned.amount, changed_at=now)
    left = math.inf if learned.remaining is None else float(learned.remaining)
    tables.limits[name] = replace(changed, level=min(changed.level, changed.capacity, left))


def observe(tables: MemoryTables, before: Breaker, after: Breaker, now: datetime) -> None:
    """After a refusal, let the key start again at half the rate that was accepted; see `Source.OBSERVED`."""
    if not after.is_rate_limited or after.probe_at is None:
        return
    key = after.provider, after.model, after.credential
    name = *key, Source.OBSERVED, Measure.REQUESTS, MINUTE_S
    if before.is_rate_limited:
        if known := tables.limits.get(name):
            tables.limits[name] = replace(known, changed_at=after.probe_at)
        return
    if any(limit.source is Source.LEARNED for limit in _current(tables, key, now)):
        return
    since = now - timedelta(seconds=MINUTE_S)
    accepted = sum(_was_accepted(a) for a in _attempts(tables, key) if a.started_at >= since)
    half = max(float(OBSERVED_MIN), accepted / 2)
    limit = tables.limits.get(name) or _new(tables, name, int(half), now)
    tables.limits[name] = replace(
        limit,
        amount=int(half),
        rise_per_s=half / MINUTE_S,
        changed_at=after.probe_at,
        level=min(limit.level, 1.0) if name in tables.limits else 1.0,
    )


def ask(
    tables: MemoryTables, key: GuardKey, call: CallRow, need: Need, now: datetime, *, is_probe: bool
) -> tuple[list[Limit], LimitRefusal | None]:
    """
    The limits of a key, ready for this attempt, and which one refuses it.

    A probe is the only attempt of a blocked key, so the observed rate does not count for it.
    """
    _make_declared(tables, key, now)
    known = _current(tables, key, now)
    known = [x for x in known if not (is_probe and x.source is Source.OBSERVED)]
    chosen = [_folded(tables, limit.at(now)) for limit in known]
    chosen = [
        limit if limit.window_s == 0 else limit.wanting(need.of(limit.measure), now)
        for limit in chosen
    ]
    for limit in chosen:
        tables.limits[_name(limit)] = limit
    timed = [limit for limit in chosen if limit.window_s]
    if refusal := refusal_of(timed, need, now):
        return chosen, refusal
    for limit in chosen:
        if limit.window_s == 0 and in_flight(tables, limit) >= limit.amount:
            return chosen, LimitRefusal(limit.name, 1.0)
    # A call that was woken for a place is new here: else an organisation with such a line passes all others.
    is_new = call.waits_for is None
    if chosen and is_new and _has_waiters(tables, key):
        return chosen, LimitRefusal(chosen[0].name, 1.0)
    if all(limit.source is Source.OBSERVED for limit in chosen):
        return chosen, _slow_start(tables, key, now)
    return chosen, None


def take(
    tables: MemoryTables, key: GuardKey, org_id: str, chosen: Sequence[Limit], need: Need,
    now: datetime,
) -> tuple[int, ...]:  # fmt: skip
    """Take what an attempt needs from each of its limits, and note the organisation's share."""
    for limit in chosen:
        if limit.window_s:
            tables.limits[_name(limit)] = limit.taken(need.of(limit.measure), now)
    if chosen:
        share = max(need.of(limit.measure) / limit.amount for limit in chosen)
        fades_s = max(SHARE_FADES_S, *(limit.window_s for limit in chosen))
        tables.shares[key, org_id] = share_of(tables, key, org_id, now) + share, now, fades_s
    return tuple(limit.limit_id for limit in chosen)


def give_back(tables: MemoryTables, attempt: AttemptRow) -> None:
    """Note the tokens that an answer did not use; without a known usage there are none."""
    is_known = attempt.status in (AttemptStatus.SUCCEEDED, AttemptStatus.FAILED)
    if attempt.usage is None or not is_known:
        return
    call = tables.calls[attempt.key]
    unused = Need(
        call.input_token_bound - attempt.usage.input_tokens,
        attempt.output_token_bound - attempt.usage.output_tokens,
    )
    for limit in tables.limits.values():
        counts = limit.counts_used and limit.limit_id in attempt.limit_ids
        if counts and limit.measure not in (Measure.REQUESTS, Measure.CONCURRENCY):
            tokens = tables.unused.get(limit.limit_id, 0) + max(0, unused.of(limit.measure))
            tables.unused[limit.limit_id] = tokens


def share_of(tables: MemoryTables, key: GuardKey, org_id: str, now: datetime) -> float:
    """How much an organisation took recently from the limits of a key."""
    share, at, fades_s = tables.shares.get((key, org_id), (0.0, now, SHARE_FADES_S))
    age_s = max(0.0, (now - at).total_seconds())
    return share * math.exp(-min(age_s / fades_s, 10))


def in_flight(tables: MemoryTables, limit: Limit) -> int:
    """How many attempts of a limit's keys are not posted."""
    return sum(
        limit.applies_to(tables.calls[a.key].provider, tables.calls[a.key].model, a.credential)
        for a in tables.attempts.values()
        if not a.status.is_posted
    )


def count_in_flight(tables: MemoryTables, key: GuardKey) -> int:
    """How many attempts of a key are not posted."""
    return sum(not a.status.is_posted for a in _attempts(tables, key))


def current(tables: MemoryTables, key: GuardKey, now: datetime) -> list[Limit]:
    """The limits of a key as they are now, with what was given back."""
    return [_folded(tables, limit.at(now), keep=True) for limit in _current(tables, key, now)]


def _current(tables: MemoryTables, key: GuardKey, now: datetime) -> list[Limit]:
    found = (limit for limit in tables.limits.values() if limit.applies_to(*key))
    return sorted((x for x in found if x.is_current(now)), key=lambda limit: limit.limit_id)


def _make_declared(tables: MemoryTables, key: GuardKey, now: datetime) -> None:
    for rule in sorted(tables.declaration.rules, key=lambda rule: rule.amount):
        if not rule.applies_to(*key):
            continue
        model = rule.model if rule.is_shared else key[1]
        name = rule.provider, model, key[2], Source.DECLARED, rule.measure, rule.window_s
        if name in tables.limits:
            continue
        made = _new(tables, name, rule.amount, now)
        made = replace(made, is_shared=rule.is_shared, counts_used=rule.counts_used)
        tables.limits[name] = replace(made, level=made.capacity)


def _new(tables: MemoryTables, name: LimitKey, amount: int, now: datetime) -> Limit:
    number = 1 + max((limit.limit_id for limit in tables.limits.values()), default=0)
    return Limit(number, *name, amount, False, False, 0.0, now, now)


def _folded(tables: MemoryTables, limit: Limit, *, keep: bool = False) -> Limit:
    """The limit with the tokens that answers did not use."""
    unused = tables.unused.get(limit.limit_id, 0)
    if not keep:
        tables.unused.pop(limit.limit_id, None)
    return limit.given_back(unused) if unused else limit


def _has_waiters(tables: MemoryTables, key: GuardKey) -> bool:
    waiting = (call for call in tables.calls.values() if call.waits_for == key)
    return any(not is_paused(tables, call) for call in waiting)


def _slow_start(tables: MemoryTables, key: GuardKey, now: datetime) -> LimitRefusal | None:
    """Whether too many attempts of a key without known limits are under way."""
    if key[0] not in tables.declaration.cautious:
        return None
    under_way = count_in_flight(tables, key)
    breaker = tables.breakers[*key, ""].slowly_started(under_way, now)
    tables.breakers[*key, ""] = breaker
    most = breaker.in_flight_max
    if most is None or under_way < most:
        return None
    return LimitRefusal(f"{most} attempts under way of {key[0]}/{key[1]}", 1.0)


def _attempts(tables: MemoryTables, key: GuardKey) -> list[AttemptRow]:
    return [
        a
        for a in tables.attempts.values()
        if (tables.calls[a.key].provider, tables.calls[a.key].model, a.credential) == key
    ]


def _was_accepted(a: AttemptRow) -> bool:
    if a.status is AttemptStatus.ANSWERED:
        return a.error is None
    is_paid = a.status is AttemptStatus.FAILED and bool(a.posted_nano_usd)
    return is_paid or a.status in (AttemptStatus.SUCCEEDED, AttemptStatus.UNKNOWN)


def _makes(rule: LimitRule, limit: Limit) -> bool:
    model = limit.model if not rule.is_shared else rule.model
    is_same = (rule.measure, rule.window_s) == (limit.measure, limit.window_s)
    names = limit.model == model and rule.is_shared is limit.is_shared
    return is_same and names and rule.applies_to(limit.provider, limit.model, limit.credential)


def _name(limit: Limit) -> LimitKey:
    return (
        limit.provider, limit.model, limit.credential, limit.source, limit.measure, limit.window_s
    )  # fmt: skip
