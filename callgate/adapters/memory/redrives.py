"""The redrives of the memory ledger: `RedrivesPort` over its tables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from callgate.adapters.memory.redrive_rows import RedriveCallRow, RedriveRow
from callgate.adapters.memory.redrive_selection import selected
from callgate.adapters.memory.tables import MemoryTables
from callgate.adapters.memory.unknown import has_unknown_bill
from callgate.domain.errors import CallNotFound, RedriveNotFound, TooManyRedrives
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from callgate.domain.pauses import PauseKey
from callgate.domain.redrive_rules import (
    fails_too_often,
    fits_cap,
    free_after,
    may_release,
    refusal_to_start,
    selection_json,
    state_differs,
    sums_by_org,
)
from callgate.domain.redrives import (
    BUSY_AGAIN_S,
    CHANGED,
    EXPIRES_AFTER,
    FROZEN,
    IDENTITY_DIFFERS,
    IN_PROGRESS,
    LOCKED_AGAIN_S,
    NEWER_GENERATION,
    NOT_ENDED,
    OPEN_REDRIVES_MAX,
    PLAN_EXPIRES_AFTER,
    STEP_CALLS_MAX,
    UNKNOWN_BILL,
    UNSTORABLE,
    WATCH_S,
    NewRedrive,
    PauseCause,
    PricedCall,
    Redrive,
    RedriveCall,
    RedriveOrg,
    RedriveOutcome,
    RedriveState,
    RedriveStep,
    RedriveTerms,
    StartRedrive,
    UnknownBills,
)
from callgate.domain.reports import By

Submit = Callable[[NewSubmission, datetime], Submitted]
LOOKED_AT_ONCE = 20
"""Redrives that one `take` looks at."""


class MemoryRedrives:
    """The memory ledger's redrives; every method is one transaction under the ledger's lock."""

    def __init__(
        self,
        tables: MemoryTables,
        submit: Submit,
        clock: Callable[[], datetime],
        lock: threading.Lock,
        new_id: Callable[[datetime], UUID],
    ) -> None:
        self._tables = tables
        self._submit = submit
        self._clock = clock
        self._lock = lock
        self._new_id = new_id

    def plan(self, new: NewRedrive) -> Redrive:
        """Freeze the calls of a selection; see `RedrivesPort.plan`."""
        with self._lock:
            now, redrives = self._clock(), self._tables.redrives
            if new.redrive_id in redrives:
                return redrives[new.redrive_id].view()
            if sum(row.ended_at is None for row in redrives.values()) >= OPEN_REDRIVES_MAX:
                raise TooManyRedrives(f"{OPEN_REDRIVES_MAX} redrives have not ended: abort some")
            calls = selected(self._tables, new)
            if not calls:
                raise CallNotFound("no such call is dead or refused, without a newer generation")
            row = RedriveRow(
                new.redrive_id, selection_json(new.selection), new.by.operator, now, step_at=now
            )
            row.calls = {n: RedriveCallRow.of(n, call) for n, call in enumerate(calls, start=1)}
            redrives[new.redrive_id] = row
            self._log(now, new.by, "plan", row, calls=len(calls))
            return row.view()

    def start(self, start: StartRedrive) -> Redrive:
        """Let workers release the calls; see `RedrivesPort.start`."""
        with self._lock:
            now, row = self._clock(), self._row(start.redrive_id)
            if refusal := refusal_to_start(row.view(), start):
                raise refusal
            if start.unknown_bills is UnknownBills.SKIP:
                for call in row.pending():
                    if call.has_unknown_bill:
                        call.outcome, call.code = RedriveOutcome.SKIPPED, UNKNOWN_BILL
            row.state, row.by, row.terms = RedriveState.RUNNING, start.by, start.terms
            row.started_at = row.step_at = now
            row.note(now)
            self._log(
                now, start.by, "start", row, calls=start.expected_calls,
                worst_case_nano_usd=row.view().worst_case_nano_usd,
                unknown_bills=start.unknown_bills.value, rate_per_min=start.terms.rate_per_min,
                cap_nano_usd=start.terms.cap_nano_usd,
            )  # fmt: skip
            return row.view()

    def pause(self, redrive_id: UUID, by: By) -> Redrive:
        """Release nothing more; see `RedrivesPort.pause`."""
        with self._lock:
            row, now = self._in(redrive_id, RedriveState.RUNNING), self._clock()
            counts = row.view().counts
            row.state, row.cause = RedriveState.PAUSED, PauseCause.OPERATOR
            self._log(now, by, "pause", row, pending=counts.pending, released=counts.released)
            row.note(now)
            return row.view()

    def resume(self, redrive_id: UUID, terms: RedriveTerms, by: By) -> Redrive:
        """Go on; see `RedrivesPort.resume`."""
        with self._lock:
            row, now = self._in(redrive_id, RedriveState.PAUSED), self._clock()
            counts = row.view().counts
            row.state, row.cause, row.terms, row.step_at = RedriveState.RUNNING, None, terms, now
            row.ended_before, row.failed_before = counts.ended, counts.failed_again
            self._log(
                now, by, "resume", row, pending=counts.pending, released=counts.released,
                rate_per_min=terms.rate_per_min, cap_nano_usd=terms.cap_nano_usd,
            )  # fmt: skip
            row.note(now)
            return row.view()

    def abort(self, redrive_id: UUID, by: By) -> Redrive:
        """Leave what is not released; see `RedrivesPort.abort`."""
        with self._lock:
            row, now = self._in(redrive_id, *NOT_ENDED), self._clock()
            counts = row.view().counts
            row.leave(RedriveState.ABORTED, "aborted")
            self._log(now, by, "abort", row, pending=counts.pending, released=counts.released)
            row.note(now)
            return row.view()

    def get(self, redrive_id: UUID) -> Redrive | None:
        """One redrive; see `RedrivesPort.get`."""
        with self._lock:
            row = self._tables.redrives.get(redrive_id)
            return row.view() if row else None

    def newest(self, *, limit: int) -> Sequence[Redrive]:
        """Redrives, newest first; see `RedrivesPort.newest`."""
        with self._lock:
            rows = sorted(self._tables.redrives.values(), key=lambda row: row.redrive_id)
            newest = sorted(rows, key=lambda row: row.created_at, reverse=True)
            return [row.view() for row in newest[:limit]]

    def calls_of(
        self,
        redrive_id: UUID,
        outcome: RedriveOutcome | None = None,
        *,
        after: int = 0,
        limit: int,
    ) -> Sequence[RedriveCall]:
        """Calls of a redrive; see `RedrivesPort.calls_of`."""
        with self._lock:
            calls = self._calls(redrive_id)
            found = [c for c in calls if c.number > after and outcome in (None, c.outcome)]
            return found[:limit]

    def orgs_of(self, redrive_id: UUID) -> Sequence[RedriveOrg]:
        """Calls by organisation; see `RedrivesPort.orgs_of`."""
        with self._lock:
            return sums_by_org(self._calls(redrive_id))

    def take(self, *, lease_s: float) -> RedriveStep | None:
        """Take a redrive; see `RedrivesPort.take`."""
        with self._lock:
            now = self._clock()
            due = [r for r in self._tables.redrives.values() if r.ended_at is None]
            due = [r for r in due if r.step_at <= now]
            for row in sorted(due, key=lambda r: r.step_at)[:LOOKED_AT_ONCE]:
                if step := self._step(row, lease_s, now):
                    return step
            return None

    def price(self, step: RedriveStep, prices: Sequence[PricedCall]) -> None:
        """Keep prices; see `RedrivesPort.price`."""
        with self._lock:
            row, now = self._tables.redrives.get(step.redrive_id), self._clock()
            if row is None or not row.is_held_by(step, RedriveState.PLANNING):
                return
            for priced in prices:
                call = row.calls[priced.number]
                if call.outcome is RedriveOutcome.PENDING:
                    call.price(priced)
                    call.has_unknown_bill = has_unknown_bill(self._tables, call.key)
            row.step_at = now
            row.note(now)

    def release(self, step: RedriveStep, calls: Sequence[PricedCall]) -> Sequence[Submitted]:
        """Release calls; see `RedrivesPort.release`."""
        with self._lock:
            row, now = self._tables.redrives.get(step.redrive_id), self._clock()
            if row is None or not row.is_held_by(step, RedriveState.RUNNING):
                return []
            self._watch(row, now)
            return self._release(row, calls, now)

    def forget(self, *, age_s: float, limit: int) -> int:
        """Delete old redrives; see `RedrivesPort.forget`."""
        with self._lock:
            before = self._clock() - timedelta(seconds=age_s)
            redrives = self._tables.redrives
            old = [r for r in redrives.values() if r.ended_at and r.ended_at <= before][:limit]
            for row in old:
                del redrives[row.redrive_id]
            return len(old)

    # Inside.

    def _row(self, redrive_id: UUID) -> RedriveRow:
        row = self._tables.redrives.get(redrive_id)
        if row is None:
            raise RedriveNotFound(f"there is no redrive {redrive_id}")
        return row

    def _in(self, redrive_id: UUID, *states: RedriveState) -> RedriveRow:
        row = self._row(redrive_id)
        if row.state not in states:
            raise state_differs(row.view(), *states)
        return row

    def _calls(self, redrive_id: UUID) -> list[RedriveCall]:
        row = self._tables.redrives.get(redrive_id)
        return [call.view() for call in row.calls.values()] if row else []

    def _log(self, now: datetime, by: By, what: str, row: RedriveRow, **detail: object) -> None:
        org_id = row.selection.get("org_id")
        given = {name: value for name, value in detail.items() if value is not None}
        self._tables.log_action(
            now, by, f"redrive.{what}", str(org_id) if org_id else None,
            f"redrive {row.redrive_id}", **given,
        )  # fmt: skip

    def _step(self, row: RedriveRow, lease_s: float, now: datetime) -> RedriveStep | None:
        """Look at a redrive that is due; return what a worker has to do for it."""
        self._watch(row, now)
        self._end_if_old(row, now)
        counts = row.view().counts
        if row.state is RedriveState.RUNNING and fails_too_often(
            row.terms,
            ended=counts.ended - row.ended_before,
            failed_again=counts.failed_again - row.failed_before,
        ):
            row.state, row.cause = RedriveState.PAUSED, PauseCause.FAILURES
        room = {
            RedriveState.PLANNING: STEP_CALLS_MAX,
            RedriveState.RUNNING: self._room(row, now),
        }.get(row.state, 0)
        is_running = row.state is RedriveState.RUNNING
        chosen = [c for c in row.pending() if is_running or c.worst_case_nano_usd is None]
        chosen = [c for c in chosen if c.try_at is None or c.try_at <= now][:room]
        if not chosen:
            row.step_at = now + timedelta(seconds=WATCH_S)
            return None
        row.lease_id, row.step_at = self._new_id(now), now + timedelta(seconds=lease_s)
        keys = tuple((c.number, c.key) for c in chosen)
        return RedriveStep(row.redrive_id, row.lease_id, row.state, keys)

    def _room(self, row: RedriveRow, now: datetime) -> int:
        open_calls = row.view().counts.released
        return may_release(row.terms.rate_per_min, row.free_at, now, open_calls=open_calls)

    def _end_if_old(self, row: RedriveRow, now: datetime) -> None:
        if row.state in IN_PROGRESS and row.started_at and now - row.started_at >= EXPIRES_AFTER:
            row.leave(RedriveState.ABORTED, "expired")
        elif row.started_at is None and now - row.created_at >= PLAN_EXPIRES_AFTER:
            row.leave(RedriveState.EXPIRED, "expired")
        row.note(now)

    def _watch(self, row: RedriveRow, now: datetime) -> None:
        """See what became of released calls."""
        for item in row.calls.values():
            if item.outcome is RedriveOutcome.RELEASED and item.next_key:
                call = self._tables.calls[item.next_key]
                attempts = self._tables.attempts_of[item.next_key]
                item.posted_nano_usd = sum(a.posted_nano_usd or 0 for a in attempts)
                if not call.state.is_open and call.due_at is None:
                    item.end(call.state, call.end_reason)
        row.note(now)

    def _release(
        self, row: RedriveRow, calls: Sequence[PricedCall], now: datetime
    ) -> list[Submitted]:
        room, committed = self._room(row, now), row.view().committed_nano_usd
        answers: list[Submitted] = []
        for priced in calls:
            item = row.calls[priced.number]
            if item.outcome is not RedriveOutcome.PENDING or self._is_left(item, priced, now):
                continue
            if len(answers) >= room:
                continue
            if not fits_cap(row.terms.cap_nano_usd, committed, priced.worst_case_nano_usd):
                if not answers and not row.view().counts.released:
                    row.state, row.cause = RedriveState.PAUSED, PauseCause.CAP
                break
            if answer := self._create(item, priced, now):
                committed += priced.worst_case_nano_usd
                answers.append(answer)
        row.free_at = free_after(row.terms.rate_per_min, row.free_at, now, released=len(answers))
        row.step_at = now
        row.note(now)
        return answers

    def _is_left(self, item: RedriveCallRow, priced: PricedCall, now: datetime) -> bool:
        """True if a call is not released now: for good, with its outcome, or because it is locked."""
        newest = self._tables.newest(item.key.call_id)
        outcome, code = RedriveOutcome.SKIPPED, ""
        if priced.refusal is not None:
            outcome, code = RedriveOutcome.REFUSED, priced.refusal
        elif item.key in self._tables.locked:
            item.try_at = now + timedelta(seconds=LOCKED_AGAIN_S)
            return True
        elif newest is None or newest.key != item.key:
            code = NEWER_GENERATION
        elif newest.state is not item.state:
            code = CHANGED
        elif priced.submission is None or priced.submission.call_id != item.key.call_id:
            outcome, code = RedriveOutcome.REFUSED, IDENTITY_DIFFERS
        elif PauseKey(org_id=item.org_id, is_freeze=True) in self._tables.pauses:
            outcome, code = RedriveOutcome.REFUSED, FROZEN
        if code:
            item.outcome, item.code = outcome, code
        return bool(code)

    def _create(self, item: RedriveCallRow, priced: PricedCall, now: datetime) -> Submitted | None:
        """Give a call its next generation; None if that is not possible now."""
        assert priced.submission is not None
        new = replace(priced.submission, force=True, inherit_links=True)
        answer = self._submit(new, now)
        if answer.outcome is SubmitOutcome.BUSY:
            item.try_at = now + timedelta(seconds=BUSY_AGAIN_S)
            return None
        if answer.outcome is SubmitOutcome.UNSTORABLE:
            item.outcome, item.code = RedriveOutcome.REFUSED, UNSTORABLE
            return None
        item.price(priced)
        item.outcome, item.new_generation = RedriveOutcome.RELEASED, answer.key.generation
        return answer
