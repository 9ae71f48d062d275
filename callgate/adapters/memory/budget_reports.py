"""What pages of operators read about budgets, pauses and unknown bills in the memory ledger."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from uuid import UUID

from callgate.adapters.memory import unknown
from callgate.adapters.memory.headroom import release_budget_waiters
from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.budget_ports import UnknownSum
from callgate.domain.budget_states import (
    PERIODS_SHOWN,
    Affected,
    BudgetName,
    BudgetState,
    MoneyWaiter,
    PastPeriod,
    Short,
    current,
    lately_since,
    limit_changed,
)
from callgate.domain.budgets import BudgetFigures, scopes_of
from callgate.domain.calls import CallState
from callgate.domain.errors import ChangedMeanwhile
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.unknown import UnknownBill, UnknownFilter

DEFAULT_TIMEZONE = "UTC"


class MemoryBudgetReports:
    """`BudgetReportsPort` over the tables of the memory ledger, and the change of a limit that was looked at."""

    tables: MemoryTables
    _clock: Callable[[], datetime]
    _lock: threading.Lock

    def fullest_budgets(self, *, limit: int) -> list[BudgetState]:
        """Read the fullest budgets."""
        with self._lock:
            now = self._clock()
            newest = [self.tables.budgets[i] for i in self.tables.newest_budget.values()]
            running = [self._state(b, now) for b in newest if b.ends_at > now]
        running.sort(key=lambda s: (-s.used_share, -_used(s.figures), s.figures.budget_id))
        return running[:limit]

    def budgets_by_name(
        self, *, org_id: str | None = None, after: BudgetName | None = None, limit: int
    ) -> list[BudgetState]:
        """Read budgets by name."""
        with self._lock:
            names = sorted(self.tables.newest_budget.items())
            found = [
                self.tables.budgets[i]
                for name, i in names
                if org_id in (None, name[0]) and (after is None or name > after)
            ]
            return [self._state(b, self._clock()) for b in found[:limit]]

    def budget_state(self, name: BudgetName) -> BudgetState | None:
        """Read one budget."""
        newest = self.budget_periods(name, limit=1)
        with self._lock:
            return self._state(newest[0], self._clock()) if newest else None

    def budget_periods(self, name: BudgetName, *, limit: int) -> list[BudgetFigures]:
        """Read the periods of a budget, newest first."""
        with self._lock:
            return self._periods(name)[:limit]

    def spent_by_quarter(self, name: BudgetName, since: datetime) -> list[tuple[datetime, int]]:
        """What was spent by quarter hour, oldest first."""
        with self._lock:
            spent: defaultdict[datetime, int] = defaultdict(int)
            for starts_at, nano_usd in self._spent(name, since):
                spent[starts_at] += nano_usd
            return [found for found in sorted(spent.items()) if found[1]]

    def money_waiters(self, org_id: str, *, limit: int) -> list[MoneyWaiter]:
        """Read the calls that wait for money, oldest first."""
        with self._lock:
            found = sorted(
                self._waiters(org_id), key=lambda pair: (pair[0].created_at, pair[0].key)
            )
            return [MoneyWaiter(call.call_type, hold) for call, hold in found[:limit]]

    def affected(self, key: PauseKey) -> Affected:
        """Count what a pause would cover."""
        with self._lock:
            t = self.tables
            calls = [
                call
                for call in t.calls.values()
                if call.state.is_open
                and key.covers(call.org_id, call.call_type, call.provider, call.model)
            ]
            running = [call for call in calls if call.state is CallState.RUNNING]
            attempts = (t.attempts_of[call.key][-1] for call in running)
            return Affected(
                running=len(running),
                held_nano_usd=sum(a.hold_nano_usd for a in attempts if not a.status.is_posted),
                queued=sum(call.state is CallState.QUEUED for call in calls),
                waiting=sum(call.state is CallState.WAITING for call in calls),
                orgs=len({call.org_id for call in calls}),
                is_more=False,
            )

    def unknown_page(
        self, which: UnknownFilter, *, after: tuple[datetime, UUID] | None = None, limit: int
    ) -> list[UnknownBill]:
        """List unknown bills, newest first."""
        with self._lock:
            found = [
                row
                for row in unknown.unknown_bills(self.tables, which)
                if after is None or (row.started_at, row.attempt_id) < after
            ]
            return [unknown.bill_of(self.tables, row) for row in found[:limit]]

    def unknown_sums(self, which: UnknownFilter, *, attempts_max: int) -> list[UnknownSum]:
        """Sum up unknown bills by model, most money first."""
        groups: defaultdict[tuple[str, str], list[AttemptRow]] = defaultdict(list)
        with self._lock:
            for row in unknown.unknown_bills(self.tables, which)[:attempts_max]:
                call = self.tables.calls[row.key]
                groups[call.provider, call.model].append(row)
        sums = [
            UnknownSum(
                *name,
                attempts=len(rows),
                posted_nano_usd=sum(row.posted_nano_usd or 0 for row in rows),
                oldest_at=min(row.started_at for row in rows),
            )
            for name, rows in sorted(groups.items())
        ]
        return sorted(sums, key=lambda found: -found.posted_nano_usd)

    def change_limit(
        self,
        name: BudgetName,
        limit_nano_usd: int,
        *,
        seen_nano_usd: int | None,
        timezone: str | None = None,
        by: By,
    ) -> BudgetFigures:
        """Set a limit, if it is still what the operator saw."""
        with self._lock:
            now = self._clock()
            known = self._periods(name)
            before = known[0].limit_nano_usd if known else None
            if before != seen_nano_usd:
                raise ChangedMeanwhile(limit_changed(before))
            zone = timezone or (known[0].timezone if known else DEFAULT_TIMEZONE)
            figures = self.tables.set_budget(*name, limit_nano_usd, zone, now)
            self.tables.log_action(
                now, by, "budget.set", name.org_id, "/".join(name),
                from_nano_usd=before, to_nano_usd=limit_nano_usd, timezone=zone,
            )  # fmt: skip
            release_budget_waiters(self.tables, [name.org_id], now)
            return figures

    def remove_budget(self, name: BudgetName, *, seen_nano_usd: int, by: By) -> None:
        """Remove a budget, if its limit is still what the operator saw."""
        with self._lock:
            now, known = self._clock(), self._periods(name)
            before = known[0].limit_nano_usd if known else None
            if before != seen_nano_usd:
                raise ChangedMeanwhile(limit_changed(before))
            self.tables.remove_budget(*name)
            self.tables.log_action(
                now, by, "budget.remove", name.org_id, "/".join(name), from_nano_usd=before,
                spent_nano_usd=known[0].spent_nano_usd,
                reserved_nano_usd=known[0].reserved_nano_usd,
            )  # fmt: skip
            release_budget_waiters(self.tables, [name.org_id], now)

    def _periods(self, name: BudgetName) -> list[BudgetFigures]:
        found = [b for b in self.tables.budgets.values() if BudgetName.of(b) == name]
        return sorted(found, key=lambda b: b.starts_at, reverse=True)

    def _state(self, figures: BudgetFigures, now: datetime) -> BudgetState:
        name = BudgetName.of(figures)
        left = current(figures, now).left_nano_usd
        holds = [
            hold
            for call, hold in self._waiters(name.org_id)
            if name.scope in scopes_of(call.call_type) and hold > left
        ]
        before = [b for b in self._periods(name) if b.starts_at < figures.starts_at]
        past = [PastPeriod(b.starts_at, b.limit_nano_usd, b.spent_nano_usd) for b in before]
        return BudgetState(
            figures,
            now,
            lately_nano_usd=sum(spent for _, spent in self._spent(name, lately_since(now))),
            short=Short(len(holds), sum(holds)),
            past=tuple(past[:PERIODS_SHOWN][::-1]),
        )

    def _waiters(self, org_id: str) -> Iterator[tuple[CallRow, int]]:
        for call in self.tables.calls.values():
            if call.org_id == org_id and call.requested_hold_nano_usd is not None:
                yield call, call.requested_hold_nano_usd

    def _spent(self, name: BudgetName, since: datetime) -> Iterator[tuple[datetime, int]]:
        sums = ((*of, found) for of, found in self.tables.quarter_sums.items())
        deltas = ((d.starts_at, d.key, d.measures) for d in self.tables.deltas)
        for starts_at, key, measures in (*sums, *deltas):
            is_mine = key.org_id == name.org_id and name.scope in scopes_of(key.call_type)
            if is_mine and starts_at >= since:
                yield starts_at, measures.posted_nano_usd


def _used(figures: BudgetFigures) -> int:
    return figures.spent_nano_usd + figures.reserved_nano_usd
