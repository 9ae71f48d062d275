"""The figures of the memory ledger: `FiguresPort` over its tables."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from callgate.adapters.memory.limit_lines import limit_lines
from callgate.adapters.memory.sums import posted_to
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain import metrics
from callgate.domain.breaker import Breaker
from callgate.domain.budgets import NANO_PER_USD, BudgetFigures
from callgate.domain.calls import AttemptStatus, CallState, WaitReason
from callgate.domain.metric_ports import Figure, LedgerFigures
from callgate.domain.metrics import OTHER, Metric
from callgate.domain.unknown import is_bill_unknown

DRIFT_OF = timedelta(days=2)


class MemoryFigures:
    """The memory ledger's figures; reading is one transaction under the ledger's lock."""

    def __init__(
        self, tables: MemoryTables, clock: Callable[[], datetime], lock: threading.Lock
    ) -> None:
        self._tables = tables
        self._clock = clock
        self._lock = lock
        self._stored: LedgerFigures | None = None

    def read_figures(self, *, interval_s: float, orgs_max: int) -> LedgerFigures:
        """Return the figures; see `FiguresPort.read_figures`."""
        with self._lock:
            now, stored = self._clock(), self._stored
            if stored is None or now - stored.read_at >= timedelta(seconds=interval_s):
                found = tuple(_figures(self._tables, now, orgs_max))
                stored = self._stored = LedgerFigures(now, 0.0, found)
            age_s = (now - stored.read_at).total_seconds()
            return LedgerFigures(stored.read_at, age_s, stored.figures)

    def stored_within(self, age_max_s: float) -> tuple[Figure, ...]:
        """The stored figures, unless they are older. The caller holds the ledger's lock."""
        stored = self._stored
        if stored is None or self._clock() - stored.read_at >= timedelta(seconds=age_max_s):
            return ()
        return stored.figures

    def current_figures(self, *, orgs_max: int) -> tuple[Figure, ...]:
        """Return those of this moment; see `FiguresPort.current_figures`."""
        with self._lock:
            return tuple(_figures(self._tables, self._clock(), orgs_max))


def _figures(tables: MemoryTables, now: datetime, orgs_max: int) -> Iterator[Figure]:
    yield from _calls(tables, now)
    yield from _attempts(tables, now)
    yield from _budgets(tables, now, orgs_max)
    yield from _keys(tables, now)
    yield from _processes(tables, now)


def _calls(tables: MemoryTables, now: datetime) -> Iterator[Figure]:
    counts = Counter(
        (call.state, call.wait_reason or "") for call in tables.calls.values() if call.state.is_open
    )
    yield _of(metrics.CALLS, counts[CallState.QUEUED, ""], CallState.QUEUED, "")
    yield _of(metrics.CALLS, counts[CallState.RUNNING, ""], CallState.RUNNING, "")
    for reason in WaitReason:
        yield _of(metrics.CALLS, counts[CallState.WAITING, reason], CallState.WAITING, reason)
    queued = [c.due_at for c in tables.calls.values() if c.state is CallState.QUEUED and c.due_at]
    yield _of(metrics.QUEUE_AGE, _age_s(queued, now))
    yield _of(metrics.UNDELIVERED, len(tables.undelivered))
    yield _of(metrics.LINKS_OVERDUE, _age_s(tables.undelivered.values(), now))


def _attempts(tables: MemoryTables, now: datetime) -> Iterator[Figure]:
    unposted = [a for a in tables.attempts.values() if not a.status.is_posted]
    calls = tables.calls
    counts = Counter((calls[a.key].provider, calls[a.key].model, a.status.value) for a in unposted)
    for labels, count in counts.items():
        yield _of(metrics.UNPOSTED, count, *labels)
    answered = [a.finished_at for a in unposted if a.status is AttemptStatus.ANSWERED]
    yield _of(metrics.SETTLE_LAG, _age_s(filter(None, answered), now))
    by_rows: Counter[int] = Counter()
    for attempt in unposted:
        for budget_id in attempt.budget_ids:
            by_rows[budget_id] += attempt.hold_nano_usd
    recent = [b for b in tables.budgets.values() if b.ends_at > now - DRIFT_OF]
    drift = sum(abs(b.reserved_nano_usd - by_rows[b.budget_id]) for b in recent)
    yield _of(metrics.DRIFT, drift / NANO_PER_USD, "held")
    spent = sum(abs(b.spent_nano_usd - posted_to(tables, b.budget_id)) for b in recent)
    yield _of(metrics.DRIFT, spent / NANO_PER_USD, "spent")
    unknown = [
        a.posted_nano_usd or 0
        for a in tables.attempts.values()
        if is_bill_unknown(a.status, a.anomalies) and a.settled_by_hand_at is None
    ]
    yield _of(metrics.UNKNOWN_BILLS, len(unknown))
    yield _of(metrics.UNKNOWN_USD, sum(unknown) / NANO_PER_USD)


def _budgets(tables: MemoryTables, now: datetime, orgs_max: int) -> Iterator[Figure]:
    running = [b for b in tables.budgets.values() if b.ends_at > now]
    used: Counter[str] = Counter()
    for budget in running:
        used[budget.org_id] += budget.reserved_nano_usd + budget.spent_nano_usd
    named = set(sorted(used, key=lambda org_id: (-used[org_id], org_id))[:orgs_max])
    lines: defaultdict[tuple[str, str, str], list[BudgetFigures]] = defaultdict(list)
    for budget in running:
        org_id = budget.org_id if budget.org_id in named else OTHER
        lines[org_id, budget.scope, budget.window.value].append(budget)
    for labels, of_line in lines.items():
        limit = sum(b.limit_nano_usd for b in of_line)
        held = sum(b.reserved_nano_usd for b in of_line)
        spent = sum(b.spent_nano_usd for b in of_line)
        yield _of(metrics.BUDGET_LIMIT, limit / NANO_PER_USD, *labels)
        yield _of(metrics.BUDGET_HELD, held / NANO_PER_USD, *labels)
        yield _of(metrics.BUDGET_SPENT, spent / NANO_PER_USD, *labels)
    shares = Counter(map(_used_percent, running))
    for percent in ("0", "50", "80", "100"):
        yield _of(metrics.BUDGETS, shares[percent], percent)


def _used_percent(budget: BudgetFigures) -> str:
    used = budget.reserved_nano_usd + budget.spent_nano_usd
    for percent in (100, 80, 50):
        if used * 100 >= budget.limit_nano_usd * percent:
            return str(percent)
    return "0"


def _keys(tables: MemoryTables, now: datetime) -> Iterator[Figure]:
    used: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for line in limit_lines(tables, now):
        key = "organisation" if line.credential else "provider"
        limit = line.provider, line.model, key, line.measure.value, str(line.window_s)
        used[limit] = max(used[limit], 1 - line.free / line.capacity)
    for limit_labels, share in used.items():
        yield _of(metrics.LIMIT_USED, share, *limit_labels)
    opened = [b for b in tables.breakers.values() if b.is_open]
    closed = [b for b in opened if b.is_rate_limited and b.probe_at and not b.org_id]
    for names, count in Counter((b.provider, b.model) for b in closed).items():
        yield _of(metrics.BLOCKED_KEYS, count, *names)
    others = [b for b in opened if not (b.is_rate_limited and b.probe_at)]
    for labels, count in Counter(map(_breaker_labels, others)).items():
        yield _of(metrics.OPEN_BREAKERS, count, *labels)


def _breaker_labels(breaker: Breaker) -> tuple[str, ...]:
    key = "organisation" if breaker.credential else "provider"
    calls_of = "organisation" if breaker.org_id else "all"
    reason = "operator" if breaker.probe_at is None else breaker.reason or ""
    return breaker.provider, breaker.model, key, calls_of, reason


def _processes(tables: MemoryTables, now: datetime) -> Iterator[Figure]:
    freezes = sum(key.is_freeze for key in tables.pauses)
    yield _of(metrics.PAUSES, len(tables.pauses) - freezes, "pause")
    yield _of(metrics.PAUSES, freezes, "freeze")
    live = [lease for lease in tables.leases.values() if lease.expires_at > now]
    yield _of(metrics.LEASES, len(live), "live")
    yield _of(metrics.LEASES, len(tables.leases) - len(live), "expired")
    known = [lease.fingerprint for lease in live if lease.fingerprint is not None]
    parts: dict[str, set[str | None]] = {
        "catalogue": {fingerprint.catalogue for fingerprint in known},
        "limits": {lease.limits_digest for lease in live} - {None},
        "settings": {fingerprint.settings for fingerprint in known},
        "version": {fingerprint.version for fingerprint in known},
        "schema": {fingerprint.schema_revision for fingerprint in known},
    }
    for part, variants in parts.items():
        yield _of(metrics.WORKER_VARIANTS, len(variants), part)


def _age_s(times: Iterable[datetime], now: datetime) -> float:
    return max(0.0, max(((now - at).total_seconds() for at in times), default=0.0))


def _of(metric: Metric, value: float, *labels: str) -> Figure:
    return Figure(metric.name, tuple(str(label) for label in labels), float(value))
