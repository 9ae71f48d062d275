"""What operators ask of the memory ledger: `OperationsPort` over its tables."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from callgate.adapters.memory import pauses, unknown
from callgate.adapters.memory.alerts import MemoryAlertOperations
from callgate.adapters.memory.breakers import breaker_line, set_breaker
from callgate.adapters.memory.budget_reports import MemoryBudgetReports
from callgate.adapters.memory.call_search import MemoryCallSearch, matches
from callgate.adapters.memory.concurrency import ahead_of, concurrency_lines
from callgate.adapters.memory.delivery import failures
from callgate.adapters.memory.headroom import freed, release_budget_waiters
from callgate.adapters.memory.limit_lines import limit_lines
from callgate.adapters.memory.recent_ends import recent_ends
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.spending import spending
from callgate.adapters.memory.sums import (
    MemorySums,
    attempts_by_outcome,
    broken_seals,
    posted_in_total,
    posted_to,
)
from callgate.adapters.memory.tables import MemoryTables
from callgate.adapters.memory.worker_lines import MemoryWorkers
from callgate.domain.bounds import reason_json
from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.calls import AttemptStatus, CallKey, CallState
from callgate.domain.delivery import LinkFailure
from callgate.domain.errors import ChangedMeanwhile
from callgate.domain.pauses import Pause, PauseKey, already_paused, paused_again
from callgate.domain.reports import (
    Ahead,
    BreakerLine,
    BudgetDrift,
    By,
    CallFilter,
    ConcurrencyLine,
    DeadGroup,
    EndReason,
    LimitLine,
    LimitPublisher,
    OperatorAction,
    RecentEnd,
    Snapshot,
    SpendingLine,
    UnprocessableMessage,
)
from callgate.domain.unknown import (
    SettleByHand,
    SettledByHand,
    UnknownBill,
    UnknownDay,
    UnknownFilter,
)
from callgate.domain.worker_lines import WorkerLine


class MemoryOperations(MemorySums, MemoryAlertOperations, MemoryBudgetReports, MemoryCallSearch):
    """The operators' half of the memory ledger; `tables` is open to tests that look behind the port."""

    def __init__(
        self, tables: MemoryTables, clock: Callable[[], datetime], lock: threading.Lock
    ) -> None:
        self.tables = tables
        self._clock = clock
        self._lock = lock

    def worker_lines(self) -> list[WorkerLine]:
        """List worker processes."""
        return MemoryWorkers(self.tables, self._clock, self._lock).worker_lines()

    def set_budget(
        self, org_id: str, scope: str, window: Window, limit_nano_usd: int, timezone: str = "UTC"
    ) -> BudgetFigures:
        """Set the limit of a scope, now: the current period keeps what is spent and held in it."""
        with self._lock:
            now = self._clock()
            figures = self.tables.set_budget(org_id, scope, window, limit_nano_usd, timezone, now)
            release_budget_waiters(self.tables, [org_id], now)
            return figures

    def budgets(self, org_id: str | None = None) -> list[BudgetFigures]:
        """List the newest period of every budget, ordered by org, scope, window."""
        with self._lock:
            newest = sorted(self.tables.newest_budget.items())
            return [self.tables.budgets[i] for name, i in newest if org_id in (None, name[0])]

    def dead_groups(self, call_filter: CallFilter) -> list[DeadGroup]:
        """Group dead letters by fingerprint, largest first."""
        with self._lock:
            groups: defaultdict[tuple[str, str, str], list[CallRow]] = defaultdict(list)
            for call in self.tables.calls.values():
                if self._is_dead_letter(call) and matches(call, call_filter):
                    name = (call.error_fingerprint or "", call.provider, call.model)
                    groups[name].append(call)
            found = [_dead_group(*name, calls) for name, calls in sorted(groups.items())]
            return sorted(found, key=lambda group: -group.count)

    def unprocessable_messages(self, *, limit: int) -> list[tuple[datetime, UnprocessableMessage]]:
        """List messages that named no call, newest first."""
        with self._lock:
            return self.tables.unprocessable_messages[::-1][:limit]

    def end(self, keys: Sequence[CallKey], *, code: EndReason, message: str) -> list[CallKey]:
        """Cancel queued or waiting calls, or discard dead ones: they become rejected."""
        with self._lock:
            now = self._clock()
            error = reason_json(code, message)
            known = [self.tables.calls[key] for key in keys if key in self.tables.calls]
            ended = []
            for call in known:
                if call.state in EndReason(code).ends and call.key not in self.tables.locked:
                    self.tables.end(call, CallState.REJECTED, error, now)
                    ended.append(call.key)
            return ended

    def link_failures(self, key: CallKey, *, limit: int) -> list[LinkFailure]:
        """List links of a call that could not be delivered so far."""
        with self._lock:
            return failures(self.tables, key, limit)

    def keep_unprocessable(self, message: UnprocessableMessage) -> None:
        """Keep a message that named no call, as a dead letter."""
        with self._lock:
            self.tables.unprocessable_messages.append((self._clock(), message))

    def spending(
        self, org_ids: Sequence[str], *, days: int, attempts_max: int
    ) -> list[SpendingLine]:
        """Sum what succeeded attempts held and cost lately."""
        with self._lock:
            return spending(
                self.tables, org_ids, self._clock() - timedelta(days=days), attempts_max
            )

    def breakers(self) -> list[BreakerLine]:
        """List the breakers and how many calls wait for each."""
        with self._lock:
            return [breaker_line(self.tables, key) for key in sorted(self.tables.breakers)]

    def limits(self) -> list[LimitLine]:
        """List the provider limits, with what is free now and how many calls wait."""
        with self._lock:
            return limit_lines(self.tables, self._clock())

    def concurrency(self) -> list[ConcurrencyLine]:
        """List how many calls may run at a time, and how many do."""
        with self._lock:
            return concurrency_lines(self.tables)

    def ahead(self, key: CallKey) -> Ahead | None:
        """Count the calls before one that waits for a place, or for held money."""
        with self._lock:
            return ahead_of(self.tables, key)

    def recent_ends(self, *, orgs_max: int, calls_max: int, age_s: float) -> list[RecentEnd]:
        """Count recent ends."""
        with self._lock:
            return recent_ends(self.tables, self._clock(), orgs_max, calls_max, age_s)

    def limit_publishers(self) -> list[LimitPublisher]:
        """List the worker processes that have published provider limits."""
        with self._lock:
            current = self.tables.declaration.digest
            leases = sorted(self.tables.leases.values(), key=lambda lease: lease.worker_id)
            return [
                LimitPublisher(w.worker_id, w.limits_digest, w.limits_digest == current)
                for w in leases
                if w.limits_digest is not None
            ]

    def set_breaker(
        self,
        provider: str,
        model: str,
        credential: str,
        org_id: str = "",
        *,
        is_open: bool,
        seen_at: datetime | None = None,
        by: By,
    ) -> BreakerLine:
        """Open or close a breaker by hand."""
        with self._lock:
            key, now = (provider, model, credential, org_id), self._clock()
            known = self.tables.breakers.get(key)
            if seen_at is not None and (known is None or known.changed_at != seen_at):
                raise ChangedMeanwhile("the breaker has changed")
            set_breaker(self.tables, key, is_open, by.reason, now)
            action = "breaker.open" if is_open else "breaker.close"
            subject = "/".join(filter(None, key[:3]))
            self.tables.log_action(now, by, action, org_id or None, subject)
            return breaker_line(self.tables, key)

    def pauses(self) -> list[Pause]:
        """List the pauses and freezes that hold now, oldest first."""
        with self._lock:
            oldest = sorted(self.tables.pauses.values(), key=lambda pause: pause.at)
            return [pauses.pause_line(self.tables, pause.key) for pause in oldest]

    def pause(self, key: PauseKey, *, is_new: bool = False, by: By) -> Pause:
        """Keep the calls that a key covers from being sent."""
        with self._lock:
            if is_new and key in self.tables.pauses:
                raise ChangedMeanwhile(already_paused(key))
            return pauses.pause(self.tables, key, by, self._clock())

    def resume(self, key: PauseKey, *, seen_at: datetime | None = None, by: By) -> bool:
        """End a pause or a freeze. False if there is none."""
        with self._lock:
            known = self.tables.pauses.get(key)
            if seen_at is not None and known is not None and known.at != seen_at:
                raise ChangedMeanwhile(paused_again(key))
            return pauses.resume(self.tables, key, by, self._clock())

    def unknown_bills(self, which: UnknownFilter, *, limit: int) -> list[UnknownBill]:
        """List attempts with an unknown bill that was not settled by hand, newest first."""
        with self._lock:
            found = unknown.unknown_bills(self.tables, which)
            return [unknown.bill_of(self.tables, attempt) for attempt in found[:limit]]

    def unknown_days(self, which: UnknownFilter) -> list[UnknownDay]:
        """Sum them by day (UTC) and model, newest first, beside the bills that are known."""
        with self._lock:
            return unknown.unknown_days(self.tables, which)

    def bills(self, attempt_ids: Sequence[UUID]) -> dict[UUID, UnknownBill]:
        """Look at attempts that are posted, whatever is known of their bills."""
        with self._lock:
            rows = filter(None, map(self.tables.attempts.get, attempt_ids))
            posted = [row for row in rows if row.status.is_posted]
            return {row.attempt_id: unknown.bill_of(self.tables, row) for row in posted}

    def settle_by_hand(
        self, batch: Sequence[SettleByHand], *, by: By, dry_run: bool = False
    ) -> list[SettledByHand]:
        """Post what the provider billed, and keep who did it and why."""
        with self._lock:
            now, before = self._clock(), dict(self.tables.budgets)
            answers = [unknown.settle(self.tables, s, by, now, dry_run=dry_run) for s in batch]
            release_budget_waiters(
                self.tables, freed(unknown.running(before, now), self.tables.budgets), now
            )
            return answers

    def actions(self, *, limit: int) -> list[OperatorAction]:
        """List what operators changed, newest first."""
        with self._lock:
            return self.tables.actions[::-1][:limit]

    def snapshot(self) -> Snapshot:
        """Read the figures and sums at one moment."""
        with self._lock:
            t = self.tables
            states = Counter(call.state.value for call in t.calls.values())
            statuses = Counter(attempts_by_outcome(t))
            statuses.update(a.status.value for a in t.attempts.values() if not a.status.is_posted)
            return Snapshot(
                at=self._clock(),
                budgets=tuple(
                    self._drift(figures) for figures in sorted(t.budgets.values(), key=_name)
                ),
                calls_by_state=dict(states),
                attempts_by_status=dict(statuses),
                dead_letters=sum(map(self._is_dead_letter, t.calls.values()))
                + len(t.unprocessable_messages),
                spent_nano_usd=posted_in_total(t),
                unknown_attempts=statuses[AttemptStatus.UNKNOWN.value],
                broken_seals=broken_seals(t),
                gaps=0,
            )

    def _is_dead_letter(self, call: CallRow) -> bool:
        """True if the call is dead, and no later generation exists."""
        next_key = CallKey(call.key.call_id, call.key.generation + 1)
        return call.state is CallState.DEAD and next_key not in self.tables.calls

    def _drift(self, figures: BudgetFigures) -> BudgetDrift:
        rows = [a for a in self.tables.attempts.values() if figures.budget_id in a.budget_ids]
        return BudgetDrift(
            budget_id=figures.budget_id,
            org_id=figures.org_id,
            scope=figures.scope,
            window=figures.window.value,
            starts_at=figures.starts_at,
            reserved_nano_usd=figures.reserved_nano_usd,
            reserved_by_rows_nano_usd=sum(a.hold_nano_usd for a in rows if not a.status.is_posted),
            spent_nano_usd=figures.spent_nano_usd,
            spent_by_rows_nano_usd=posted_to(self.tables, figures.budget_id),
        )


def _name(figures: BudgetFigures) -> tuple[str, str, str, datetime]:
    return figures.org_id, figures.scope, figures.window, figures.starts_at


def _dead_group(fingerprint: str, provider: str, model: str, calls: list[CallRow]) -> DeadGroup:
    newest = max(calls, key=lambda call: call.created_at)
    return DeadGroup(
        error_fingerprint=fingerprint,
        provider=provider,
        model=model,
        sample_error=newest.error or "",
        count=len(calls),
        first_at=min(call.created_at for call in calls),
        last_at=newest.created_at,
    )
