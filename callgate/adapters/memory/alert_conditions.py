"""What is to be alerted in the memory ledger, by the rules of `budget_alerts_v1` and `state_alerts_v1`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from callgate.adapters.memory.rows import LeaseRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain import metrics
from callgate.domain.alert_rules import AlertRules
from callgate.domain.alerts import AlertKind
from callgate.domain.breaker import Breaker
from callgate.domain.budgets import ORG_SCOPE, BudgetFigures
from callgate.domain.calls import CallState, WaitReason
from callgate.domain.fingerprints import Fingerprint
from callgate.domain.metric_ports import Figure

HOUR = timedelta(hours=1)
OPERATOR_CHARS_MAX = 200
NAMED_MAX = 5
"""Workers that an alert names."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Something to alert, or a figure that is in order."""

    kind: AlertKind
    key: str
    org_id: str
    subject: str
    detail: dict[str, Any]
    holds: bool = True


def budgets(tables: MemoryTables, rules: AlertRules, now: datetime) -> Iterator[Condition]:
    """The highest threshold that the use of each budget has reached, and 100 percent if it refuses calls."""
    for budget in tables.budgets.values():
        percents = rules.percents(budget.org_id)
        if budget.ends_at <= now or budget.limit_nano_usd == 0 or not percents:
            continue
        used = (budget.reserved_nano_usd + budget.spent_nano_usd) * 100
        lowest = min(p for ps in (rules.budget_percents, *_own(rules), percents) for p in ps)
        if used < budget.limit_nano_usd * lowest:
            continue
        by_use = [p for p in percents if used >= budget.limit_nano_usd * p]
        reached = {max(by_use)} if by_use else set()
        if 100 in percents and _is_exhausted(tables, budget):
            reached.add(100)
        for percent in sorted(reached):
            yield _threshold(budget, percent)


def _own(rules: AlertRules) -> Iterator[tuple[int, ...]]:
    return (own.budget_percents for own in rules.orgs.values() if own.budget_percents)


def _is_exhausted(tables: MemoryTables, budget: BudgetFigures) -> bool:
    """True if a call waits because its hold does not fit into what is left of the period."""
    left = budget.limit_nano_usd - budget.spent_nano_usd
    return any(
        call.org_id == budget.org_id
        and call.wait_reason is WaitReason.BUDGET_EXHAUSTED
        and budget.scope in (ORG_SCOPE, f"call_type:{call.call_type}")
        and (call.requested_hold_nano_usd or 0) > left
        for call in tables.calls.values()
    )


def _threshold(budget: BudgetFigures, percent: int) -> Condition:
    return Condition(
        AlertKind.BUDGET_THRESHOLD,
        f"budget_threshold:{budget.budget_id}:{percent}",
        budget.org_id,
        f"{budget.org_id}/{budget.scope}/{budget.window.value}",
        {
            "percent": percent,
            "scope": budget.scope,
            "window": budget.window.value,
            "starts_at": budget.starts_at.isoformat(),
            "ends_at": budget.ends_at.isoformat(),
            "limit_nano_usd": budget.limit_nano_usd,
            "spent_nano_usd": budget.spent_nano_usd,
            "held_nano_usd": budget.reserved_nano_usd,
        },
    )


def states(tables: MemoryTables, rules: AlertRules, now: datetime) -> Iterator[Condition]:
    """What holds now by the rows of the ledger."""
    blocked_before = now - timedelta(seconds=rules.blocked_key_s)
    for breaker in tables.breakers.values():
        is_blocked = breaker.is_rate_limited and breaker.probe_at is not None
        if breaker.is_open and (not is_blocked or breaker.changed_at <= blocked_before):
            yield _breaker(breaker, is_blocked)
    deaths = Counter(
        call.org_id
        for call in tables.calls.values()
        if call.state is CallState.DEAD
        and call.attempt_id in tables.attempts
        and tables.attempts[call.attempt_id].started_at >= now - HOUR
    )
    for org_id, count in deaths.items():
        threshold = rules.deaths_per_hour(org_id)
        if count >= threshold:
            kind = AlertKind.DEAD_LETTERS
            detail = {"per_hour": count, "threshold": threshold}
            yield Condition(kind, f"{kind}:{org_id}", org_id, org_id, detail)
    for pause in tables.pauses.values():
        if pause.key.is_freeze:
            org_id = pause.key.org_id
            words: dict[str, Any] = {
                "operator": pause.by.operator[:OPERATOR_CHARS_MAX],
                "reason": pause.by.reason[:OPERATOR_CHARS_MAX],
                "since": pause.at.isoformat(),
            }
            yield Condition(AlertKind.FROZEN, f"frozen:{org_id}", org_id, org_id, words)


def workers(tables: MemoryTables, rules: AlertRules, now: datetime) -> Iterator[Condition]:
    """What differs between the workers that have been alive for a while; see `workers_differ_v1`."""
    began_before = now - timedelta(seconds=rules.workers_differ_s)
    compared = {
        lease.worker_id: lease
        for lease in sorted(tables.leases.values(), key=lambda lease: lease.worker_id)
        if lease.fingerprint and lease.expires_at > now and lease.began_at <= began_before
    }
    made_of = {worker_id: lease.fingerprint for worker_id, lease in compared.items()}
    if len(set(made_of.values())) < 2:
        return
    counts = Counter(made_of.values())
    usual = max(counts, key=lambda f: (counts[f], " ".join(astuple(f)) if f else ""))
    odd = [worker_id for worker_id, found in made_of.items() if found != usual]
    detail = {
        "differ": list(_differing(compared.values())),
        "workers": odd[:NAMED_MAX],
        "count": len(odd),
        "alive": len(compared),
    }
    yield Condition(AlertKind.WORKERS_DIFFER, AlertKind.WORKERS_DIFFER, "", "workers", detail)


def _differing(compared: Collection[LeaseRow]) -> Iterator[str]:
    fingerprints = [lease.fingerprint for lease in compared if lease.fingerprint]
    values = zip(*map(astuple, fingerprints), strict=True)
    names = [f.name.removesuffix("_revision") for f in fields(Fingerprint)]
    for name, found in zip(names, values, strict=True):
        if len(set(found)) > 1:
            sections = _differing_sections(compared) if name == "catalogue" else []
            yield f"{name} ({', '.join(sections)})" if sections else name


def _differing_sections(compared: Collection[LeaseRow]) -> list[str]:
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for lease in compared:
        for name, digest in lease.sections.items():
            digests[name].add(digest)
    return sorted(name for name, found in digests.items() if len(found) > 1)


def _breaker(breaker: Breaker, is_blocked: bool) -> Condition:
    kind = AlertKind.KEY_BLOCKED if is_blocked else AlertKind.BREAKER_OPEN
    names = filter(None, (breaker.provider, breaker.model, breaker.credential))
    detail = {
        "provider": breaker.provider,
        "model": breaker.model,
        "credential": breaker.credential,
        "since": breaker.changed_at.isoformat(),
        "calls_of": breaker.org_id or "all",
        "reason": "operator" if breaker.probe_at is None else breaker.reason or "",
        "cause": breaker.cause,
        "fingerprint": breaker.error_fingerprint,
    }
    guarded = (breaker.provider, breaker.model, breaker.credential, breaker.org_id)
    key = ":".join((kind, *guarded))
    return Condition(kind, key, breaker.org_id or breaker.credential, "/".join(names), detail)


def figures(stored: Iterable[Figure], rules: AlertRules) -> Iterator[Condition]:
    """What the stored figures of the ledger say."""
    values: Counter[str] = Counter()
    for figure in stored:
        values[figure.name] += figure.value  # type: ignore[assignment]
    for kind, metric, threshold in (
        (AlertKind.UNKNOWN_MONEY, metrics.UNKNOWN_USD, float(rules.unknown_usd)),
        (AlertKind.QUEUE_AGE, metrics.QUEUE_AGE, rules.queue_age_s),
        (AlertKind.DRIFT, metrics.DRIFT, 0.0),
    ):
        if metric.name in values:
            value = values[metric.name]
            holds = value != 0 if kind is AlertKind.DRIFT else value >= threshold
            detail = {"value": value, "threshold": threshold}
            yield Condition(kind, kind, "", "ledger", detail, holds)
