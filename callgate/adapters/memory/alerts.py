"""The alerts of the memory ledger: `AlertsPort` over its tables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from callgate.adapters.memory.alert_conditions import (
    OPERATOR_CHARS_MAX,
    Condition,
    budgets,
    figures,
    states,
    workers,
)
from callgate.adapters.memory.figures import MemoryFigures
from callgate.adapters.memory.rows import AlertDeliveryRow, AlertRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.alerts import (
    FIGURES_AGE_MAX_S,
    RAISED_AGAIN_S,
    STATES,
    Alert,
    AlertDelivery,
    AlertEvent,
    AlertKind,
    AlertLine,
    AlertOutcome,
    Channel,
    LookTerms,
)
from callgate.domain.reports import By

ALWAYS_KNOWN = {
    AlertKind.BREAKER_OPEN,
    AlertKind.KEY_BLOCKED,
    AlertKind.DEAD_LETTERS,
    AlertKind.FROZEN,
    AlertKind.WORKERS_DIFFER,
}
"""States that do not hold if no row says so. The others need figures that are new."""


class MemoryAlerts:
    """The memory ledger's alerts; every method is one transaction under the ledger's lock."""

    def __init__(
        self,
        tables: MemoryTables,
        stored: MemoryFigures,
        clock: Callable[[], datetime],
        lock: threading.Lock,
    ) -> None:
        self._tables = tables
        self._figures = stored
        self._clock = clock
        self._lock = lock
        self._looked_at: datetime | None = None

    def look(self, terms: LookTerms) -> int:
        """Raise and resolve; see `AlertsPort.look`."""
        with self._lock:
            now = self._clock()
            interval = timedelta(seconds=terms.interval_s)
            if self._looked_at is not None and now - self._looked_at < interval:
                return 0
            self._looked_at = now
            found = [
                *states(self._tables, terms.rules, now),
                *workers(self._tables, terms.rules, now),
                *figures(self._figures.stored_within(FIGURES_AGE_MAX_S), terms.rules),
            ]
            again_after = now - timedelta(seconds=RAISED_AGAIN_S)
            quiet = {
                row.key
                for row in self._tables.alerts.values()
                if row.resolved_at is not None and row.resolved_at > again_after
            }
            holding = [c for c in found if c.holds and c.key not in quiet]
            events = list(budgets(self._tables, terms.rules, now))
            self._resolve(found, now)
            raised = [add_alert(self._tables, c, now) for c in (*holding, *events)]
            return sum(alert_id is not None for alert_id in raised)

    def _resolve(self, found: Sequence[Condition], now: datetime) -> None:
        holds = {condition.key: condition.holds for condition in found}
        for row in self._tables.alerts.values():
            is_known = row.kind in ALWAYS_KNOWN or row.key in holds
            if row.resolved_at is None and is_known and not holds.get(row.key, False):
                row.resolved_at, row.is_queued = now, False

    def take(
        self, channels: Sequence[Channel], *, limit: int, lease_s: float
    ) -> list[AlertDelivery]:
        """Take messages; see `AlertsPort.take`."""
        with self._lock:
            now = self._clock()
            for row in [r for r in self._tables.alerts.values() if not r.is_queued][:limit]:
                row.is_queued = True
                for channel in channels:
                    self._queue(row, channel, now)
            due = [
                d for d in self._deliveries() if d.is_open and d.next_at <= now and d.channel in channels
            ]  # fmt: skip
            taken = sorted(due, key=lambda d: d.next_at)[:limit]
            for delivery in taken:
                delivery.tries += 1
                delivery.next_at = now + timedelta(seconds=lease_s)
            taken.sort(key=lambda d: (d.alert_id, d.event))
            return [
                AlertDelivery(d.delivery_id, d.event, d.channel, d.tries, self._alert(d.alert_id))
                for d in taken
            ]

    def _deliveries(self) -> list[AlertDeliveryRow]:
        return list(self._tables.alert_deliveries.values())

    def _alert(self, alert_id: int) -> Alert:
        return self._tables.alerts[alert_id].fact()

    def _queue(self, row: AlertRow, channel: Channel, now: datetime) -> None:
        for event in _events(row):
            key = row.alert_id, event, channel
            if key not in self._tables.alert_deliveries:
                self._tables.alert_deliveries[key] = _message(self._tables, key, now)

    def keep(self, outcomes: Sequence[AlertOutcome], *, dead_after_s: float) -> list[UUID]:
        """Store how tries ended; see `AlertsPort.keep`."""
        with self._lock:
            now, dead = self._clock(), []
            by_id = {d.delivery_id: d for d in self._deliveries()}
            for outcome in outcomes:
                delivery = by_id.get(outcome.delivery_id)
                if delivery is None or delivery.delivered_at is not None:
                    continue
                delivery.failure = outcome.failure
                delivery.next_at = now + timedelta(seconds=outcome.again_s)
                if outcome.failure is None:
                    delivery.delivered_at = now
                    delivery.dead_at = None
                elif now - delivery.queued_at >= timedelta(seconds=dead_after_s):
                    delivery.dead_at = now
                    dead.append(delivery.delivery_id)
            return dead

    def forget(self, *, age_s: float, limit: int) -> int:
        """Delete old alerts; see `AlertsPort.forget`."""
        with self._lock:
            before = self._clock() - timedelta(seconds=age_s)
            old = [
                row.alert_id
                for row in self._tables.alerts.values()
                if row.at <= before and (row.resolved_at is not None or row.kind not in STATES)
            ][:limit]
            for alert_id in old:
                del self._tables.alerts[alert_id]
                for key in [k for k in self._tables.alert_deliveries if k[0] == alert_id]:
                    del self._tables.alert_deliveries[key]
            return len(old)


def add_alert(tables: MemoryTables, condition: Condition, now: datetime) -> int | None:
    """Raise one alert, unless one with its key is there and not resolved."""
    if any(r.key == condition.key and r.resolved_at is None for r in tables.alerts.values()):
        return None
    alert_id = tables.alerts_made = tables.alerts_made + 1
    tables.alerts[alert_id] = AlertRow(
        alert_id, condition.kind, condition.key, condition.org_id, condition.subject,
        condition.detail, now,
    )  # fmt: skip
    return alert_id


class MemoryAlertOperations:
    """The part of `OperationsPort` that is about alerts."""

    tables: MemoryTables
    _clock: Callable[[], datetime]
    _lock: threading.Lock

    def alerts(
        self,
        org_id: str | None = None,
        *,
        ids: Sequence[int] | None = None,
        only_holding: bool = False,
        limit: int,
    ) -> list[AlertLine]:
        """List alerts; see `OperationsPort.alerts`."""
        with self._lock:
            found = [
                row
                for row in sorted(self.tables.alerts.values(), key=lambda row: -row.alert_id)
                if org_id in (None, row.org_id) and (ids is None or row.alert_id in ids)
                if not only_holding or (row.kind in STATES and row.resolved_at is None)
            ]
            return [_line(self.tables, row) for row in found[:limit]]

    def alert_watchers(self) -> int:
        """Count live workers."""
        with self._lock:
            now = self._clock()
            return sum(lease.expires_at > now for lease in self.tables.leases.values())

    def replay_alerts(self, ids: Sequence[int] | None, *, limit: int, by: By) -> list[int]:
        """Send messages again; see `OperationsPort.replay_alerts`."""
        with self._lock:
            return _replay(self.tables, ids, limit, by, self._clock())

    def test_alert(self, operator: str) -> int:
        """Raise a test; see `OperationsPort.test_alert`."""
        with self._lock:
            key = f"test:{self.tables.alerts_made + 1}"
            detail = {"operator": operator[:OPERATOR_CHARS_MAX]}
            add_alert(
                self.tables, Condition(AlertKind.TEST, key, "", "test", detail), self._clock()
            )
            return self.tables.alerts_made


def _line(tables: MemoryTables, row: AlertRow) -> AlertLine:
    """An alert as operators list it."""
    messages = [
        d
        for (alert_id, _, channel), d in tables.alert_deliveries.items()
        if alert_id == row.alert_id and channel is Channel.WEBHOOK
    ]
    webhook = "delivered" if messages else ""
    if any(d.is_open for d in messages):
        webhook = "pending"
    if any(d.dead_at is not None for d in messages):
        webhook = "dead"
    failures = [d.failure for d in messages if d.failure is not None]
    tries = max((d.tries for d in messages), default=0)
    return AlertLine(row.fact(), webhook, tries, max(failures, default=None))


def _replay(
    tables: MemoryTables, ids: Sequence[int] | None, limit: int, by: By, now: datetime
) -> list[int]:
    """Have messages sent again; see `OperationsPort.replay_alerts`."""
    dead = {d.alert_id for d in tables.alert_deliveries.values() if d.dead_at is not None}
    named = dead if ids is None else set(ids)
    chosen = sorted(named & tables.alerts.keys())[:limit]
    for alert_id in chosen:
        row = tables.alerts[alert_id]
        for event in _events(row):
            key = alert_id, event, Channel.WEBHOOK
            before = tables.alert_deliveries.get(key)
            tables.alert_deliveries[key] = again = _message(tables, key, now)
            again.delivery_id = before.delivery_id if before else again.delivery_id
    if chosen:
        what, ends = f"{len(chosen)} alerts", {"first": chosen[0], "last": chosen[-1]}
        tables.log_action(now, by, "alerts.replay", None, what, **ends)
    return chosen


def _message(
    tables: MemoryTables, key: tuple[int, AlertEvent, Channel], now: datetime
) -> AlertDeliveryRow:
    tables.alert_messages_made += 1
    return AlertDeliveryRow(UUID(int=tables.alert_messages_made), *key, now, now)


def _events(row: AlertRow) -> list[AlertEvent]:
    return [AlertEvent.RAISED, *([AlertEvent.RESOLVED] if row.resolved_at is not None else [])]
