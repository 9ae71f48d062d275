"""
The ledger in memory: the rules of `LedgerPort`, readable in one sitting.

It passes the same contract suite as the Postgres ledger and is the one to use in tests, in simulations and to learn
how calls move. Given its clock and its source of ids, it is deterministic. It forgets everything with its process.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from callgate.adapters.memory import backlog, claims, concurrency, delivery, posting, sums
from callgate.adapters.memory.alerts import MemoryAlerts
from callgate.adapters.memory.bounds import takes_submission
from callgate.adapters.memory.breakers import (
    is_applied,
    is_probe_held,
    note_health,
    release_provider_waiters,
)
from callgate.adapters.memory.cost_series import MemoryCostSeries
from callgate.adapters.memory.dead_letters import MemoryEndedCalls
from callgate.adapters.memory.figures import MemoryFigures
from callgate.adapters.memory.fingerprints import MemoryFingerprints
from callgate.adapters.memory.flow import MemoryFlow
from callgate.adapters.memory.headroom import freed, orgs_with_waiters, release_budget_waiters
from callgate.adapters.memory.leases import MemoryLeases, may_reap
from callgate.adapters.memory.operations import MemoryOperations
from callgate.adapters.memory.overview import MemoryOverview
from callgate.adapters.memory.pauses import free_paused, refuse_frozen
from callgate.adapters.memory.posting import DUE_AGAIN, EXPIRING
from callgate.adapters.memory.redrives import MemoryRedrives
from callgate.adapters.memory.retention import MemoryRetention
from callgate.adapters.memory.rows import CallRow, SubmissionRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.adapters.memory.worker_lines import MemoryWorkers
from callgate.domain import trace_context
from callgate.domain.bounds import LINKS_PER_CALL_MAX, UNSPECIFIED, error_code
from callgate.domain.breaker_words import BreakerChange
from callgate.domain.call_order import EXPRESS_SWEPT_AFTER, Lane
from callgate.domain.calls import AttemptRef, AttemptStatus, Bodies, CallKey, CallState, CallView
from callgate.domain.delivery import Delivery, LinkOutcome
from callgate.domain.identity import call_id
from callgate.domain.ledger import (
    Due,
    DueBatch,
    DueKind,
    NewSubmission,
    Reaper,
    RecordAnswer,
    RecordOutcome,
    Refused,
    ReserveCommand,
    ReserveOutcome,
    Settle,
    Settled,
    SettleOutcome,
    SubmitOutcome,
    Submitted,
)

RowT = TypeVar("RowT")


def utc_now() -> datetime:
    """The process's own time."""
    return datetime.now(UTC)


def uuid7(at: datetime) -> UUID:
    """An id that sorts by time: 48 bits of milliseconds, the rest random. Source: RFC 9562, 5.7."""
    bits = (int(at.timestamp() * 1000) & (2**48 - 1)) << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | (0x7 << 76)
    bits = bits & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=bits)


class MemoryLedger(MemoryOperations, MemoryRetention):
    """
    `LedgerPort`, `OperationsPort` and `RetentionPort` over dicts; every method is one transaction under one lock.

    Args:
        clock: The ledger's own time, aware; asked once per method.
        new_id: Makes the ids of attempts and of inherited submissions from the ledger's time.
    """

    def __init__(
        self,
        clock: Callable[[], datetime] = utc_now,
        new_id: Callable[[datetime], UUID] = uuid7,
    ) -> None:
        super().__init__(MemoryTables(), clock, threading.Lock())
        self._new_id = new_id
        self.flow = MemoryFlow(self.tables, clock, self._lock)
        self.leases = MemoryLeases(self.tables, clock, self._lock)
        self.figures = MemoryFigures(self.tables, clock, self._lock)
        self.kept_alerts = MemoryAlerts(self.tables, self.figures, clock, self._lock)
        self.fingerprints = MemoryFingerprints(self.tables, clock, self._lock)
        self.redrives = MemoryRedrives(
            self.tables, lambda new, now: self._submit(new, now), clock, self._lock, new_id
        )
        self.overview = MemoryOverview(self.tables, clock, self._lock)
        self.ended_calls = MemoryEndedCalls(self.tables, clock, self._lock)
        self.cost_series = MemoryCostSeries(self.tables, self._lock)
        self.workers = MemoryWorkers(self.tables, clock, self._lock)

    def submit(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """Store each submission, and a call for it unless one answers already."""
        with self._lock:
            now = self._clock()
            refuse_frozen(self.tables, batch)
            return [self._submit(new, now) for new in batch]

    def read(
        self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies = Bodies.NONE
    ) -> list[CallView | None]:
        """Look at calls; None where there is none."""
        with self._lock:
            return [self._read(key, bodies) for key in keys]

    def reserve(self, batch: Sequence[ReserveCommand]) -> list[ReserveOutcome]:
        """Decide queued calls one by one, in the order given: claim, reject, defer or requeue each."""
        with self._lock:
            now = self._clock()
            outcomes = [claims.reserve(self.tables, c, self._new_id(now), now) for c in batch]
            return [self._with_code(outcome) for outcome in outcomes]

    def _with_code(self, outcome: ReserveOutcome) -> ReserveOutcome:
        if not isinstance(outcome, Refused) or outcome.code != UNSPECIFIED:
            return outcome
        return replace(outcome, code=error_code(self.tables.calls[outcome.key].error or ""))

    def record(self, batch: Sequence[RecordAnswer]) -> list[RecordOutcome]:
        """Keep what the provider answered."""
        with self._lock:
            now = self._clock()
            return [posting.record(self.tables, answer, now) for answer in batch]

    def settle(self, batch: Sequence[Settle]) -> list[SettleOutcome]:
        """Post attempts and move their calls; settling twice changes nothing."""
        with self._lock:
            now, before = self._clock(), dict(self.tables.budgets)
            outcomes: list[SettleOutcome] = []
            changes: tuple[BreakerChange, ...] = ()
            for settlement in batch:
                outcomes.append(posting.settle(self.tables, settlement, now))
                if is_applied(outcomes[-1]) or is_probe_held(self.tables, settlement, outcomes[-1]):
                    changes += note_health(self.tables, settlement, now)
            has_freed_waiters = release_budget_waiters(
                self.tables, freed(before, self.tables.budgets), now
            )
            has_freed_waiters |= release_provider_waiters(self.tables, now)
            has_freed_waiters |= concurrency.wake(self.tables, now)
            has_freed_waiters |= backlog.release(self.tables, now)
            return [
                replace(o, has_freed_waiters=has_freed_waiters, breaker_changes=changes)
                if isinstance(o, Settled)
                else o
                for o in outcomes
            ]

    def take_due(self, *, limit: int, reaper: Reaper | None = None) -> DueBatch:
        """Take up to `limit` calls whose `due_at` has come, oldest first."""
        with self._lock:
            now = self._clock()
            release_provider_waiters(self.tables, now)
            concurrency.wake(self.tables, now)
            backlog.release(self.tables, now)
            free_paused(self.tables, limit, now)
            items = self._due_calls(self._may_expire(reaper, now), limit, now)
            return DueBatch(now, items + self._due_late_answers(limit - len(items), now))

    def take_lost_messages(self, *, limit: int, queued_before: datetime) -> DueBatch:
        """Take up to `limit` calls that were queued before a time and are unclaimed."""
        with self._lock:
            now = self._clock()
            release_budget_waiters(self.tables, orgs_with_waiters(self.tables), now)
            return DueBatch(now, self._take_lost(queued_before, limit, now))

    def links(
        self, *, limit: int, after: str = "", keys: Sequence[CallKey] | None = None
    ) -> list[Delivery]:
        """Take links of ended calls: of organisations in turn, or of the calls that are named."""
        with self._lock:
            return delivery.take(self.tables, limit, after, keys, self._clock())

    def keep_link_outcomes(self, outcomes: Sequence[LinkOutcome]) -> None:
        """Store delivery results. A call without open links leaves the list."""
        with self._lock:
            delivery.keep(self.tables, outcomes, self._clock())

    # Submit.

    def _submit(self, new: NewSubmission, now: datetime) -> Submitted:
        known = self.tables.submissions.get(new.submission_id)
        is_other = known is not None and known.key.call_id != new.call_id
        if (
            not takes_submission(new)
            or is_other
            or new.call_id != call_id(new.org_id, new.input_hash)
        ):
            return _not_stored(new, SubmitOutcome.UNSTORABLE)
        if known:
            call = self.tables.calls[known.key]
            again = _outcome_again(known, call)
            lane = Lane.CALL if again is SubmitOutcome.CREATED else None
            return Submitted(new.submission_id, again, call.key, call.state, lane)
        if self._is_key_used(new):
            return _not_stored(new, SubmitOutcome.IDEMPOTENCY_MISMATCH)
        newest = self.tables.newest(new.call_id)
        if newest is not None and newest.input_hash != new.input_hash:
            return _not_stored(new, SubmitOutcome.UNSTORABLE)
        outcome = _outcome(new, newest)
        is_new = outcome is SubmitOutcome.CREATED
        if is_new and (full := backlog.full(self.tables, new.org_id)):
            return replace(_not_stored(new, SubmitOutcome.BUSY), open_calls=full)
        if newest is not None and not is_new and self._has_too_many_links(new, newest):
            return _not_stored(new, SubmitOutcome.UNSTORABLE)
        if newest is None or is_new:
            call, lane = self._create(new, newest, now)
        else:
            call, lane = newest, backlog.raised(newest, new, now)
        self._add_submission(new, call, outcome, now)
        span = trace_context.checked(call.traceparent)
        return Submitted(new.submission_id, outcome, call.key, call.state, lane, traceparent=span)

    def _has_too_many_links(self, new: NewSubmission, call: CallRow) -> bool:
        return new.link is not None and len(self.tables.deliveries(call)) >= LINKS_PER_CALL_MAX

    def _is_key_used(self, new: NewSubmission) -> bool:
        """True if the idempotency key was used for another call."""
        used_for = self.tables.idempotency_keys.get((new.org_id, new.idempotency_key))
        return used_for not in (None, new.call_id)

    def _create(
        self, new: NewSubmission, before: CallRow | None, now: datetime
    ) -> tuple[CallRow, Lane | None]:
        call = CallRow(
            key=CallKey(new.call_id, before.key.generation + 1 if before else 1),
            org_id=new.org_id,
            input_hash=new.input_hash,
            state=CallState.QUEUED,
            due_at=now,
            call_type=new.call_type,
            provider=new.provider,
            model=new.model,
            input_token_bound=new.input_token_bound,
            request=new.request,
            created_at=now,
            priority=new.priority,
            start_before=backlog.deadline_of(new, now),
            traceparent=new.traceparent,
        )
        if new.inherit_links and before is not None and call.traceparent is None:
            call.traceparent = before.traceparent
        lane = backlog.lane_for(self.tables, call, now)
        call.lane = lane or Lane.CALL
        if lane is None:
            backlog.add(call, now)
        self.tables.add_call(call)
        if new.inherit_links and before is not None:
            self._inherit_links(before, call, now)
        return call, lane

    def _inherit_links(self, before: CallRow, call: CallRow, now: datetime) -> None:
        for heir in self.tables.submissions_of[before.key]:
            if heir.link is not None:
                inherited = SubmissionRow(self._new_id(now), call.key, None, heir.link, now)
                self.tables.add_submission(inherited)

    def _add_submission(
        self, new: NewSubmission, call: CallRow, outcome: SubmitOutcome, now: datetime
    ) -> None:
        row = SubmissionRow(
            new.submission_id, call.key, outcome, new.link, now, idempotency_key=new.idempotency_key
        )
        self.tables.add_submission(row)
        sums.note_collapsed(self.tables, row)
        if new.idempotency_key is not None:
            self.tables.idempotency_keys[new.org_id, new.idempotency_key] = new.call_id
        if new.link is not None and not call.state.is_open:
            self.tables.schedule_delivery(call, now)

    # Read.

    def _read(self, key: CallKey | AttemptRef, bodies: Bodies) -> CallView | None:
        attempt_id = key.attempt_id if isinstance(key, AttemptRef) else None
        call = self.tables.calls.get(key.key if isinstance(key, AttemptRef) else key)
        return self.tables.view(call, attempt_id, bodies) if call else None

    # Due.

    def _take_lost(self, queued_before: datetime, limit: int, now: datetime) -> tuple[Due, ...]:
        """Take queued calls whose message was lost; each take counts as a sweep."""
        found = [
            (call.due_at, call)
            for call in self.tables.calls.values()
            if call.state is CallState.QUEUED and call.due_at and call.due_at < queued_before
            if call.key not in self.tables.locked
            if call.due_at < queued_before - EXPRESS_SWEPT_AFTER or call.lane is not Lane.EXPRESS
        ]
        lost = _oldest(found, limit)
        for call in lost:
            call.sweeps += 1
        return tuple(self._publish(call, now) for call in lost)

    def _may_expire(self, reaper: Reaper | None, now: datetime) -> bool:
        if reaper is None:
            return False
        return may_reap(
            self.tables, reaper.worker_id, timedelta(seconds=reaper.lease_stable_for_s), now
        )

    def _due_calls(self, expire: bool, limit: int, now: datetime) -> tuple[Due, ...]:
        found = [
            (call.due_at, call)
            for call in self.tables.calls.values()
            if call.due_at and call.due_at <= now and self._needs(call, expire)
            if call.key not in self.tables.locked
        ]
        return tuple(self._take(call, now) for call in _oldest(found, limit))

    def _needs(self, call: CallRow, expire: bool) -> bool:
        """True if recovery can move the call: it waits, or its attempt is answered, or may be expired."""
        if call.state is CallState.WAITING:
            return True
        attempt = self.tables.unposted(call.key)
        return attempt is not None and (expire or attempt.status is AttemptStatus.ANSWERED)

    def _take(self, call: CallRow, now: datetime) -> Due:
        attempt = self.tables.unposted(call.key)
        if call.state is CallState.WAITING or attempt is None:
            return self._publish(call, now)
        call.due_at = now + DUE_AGAIN
        if attempt.status is AttemptStatus.ANSWERED:
            return Due(DueKind.SETTLE, call.key, attempt.attempt_id)
        if call.state.is_open:
            call.error = EXPIRING
        return Due(DueKind.EXPIRED, call.key, attempt.attempt_id)

    def _publish(self, call: CallRow, now: datetime) -> Due:
        call.state = CallState.QUEUED
        call.wait_reason = None
        call.due_at = now
        call.lane = lane = backlog.lane_again(self.tables, call, now)
        return Due(DueKind.PUBLISH, call.key, lane=lane)

    def _due_late_answers(self, limit: int, now: datetime) -> tuple[Due, ...]:
        found = [
            (attempt.late_due_at, attempt)
            for attempt in self.tables.attempts.values()
            if attempt.late_due_at and attempt.late_due_at <= now
        ]
        taken = _oldest(found, limit)
        for attempt in taken:
            attempt.late_due_at = now + DUE_AGAIN
        return tuple(Due(DueKind.SETTLE, a.key, a.attempt_id) for a in taken)


def _not_stored(new: NewSubmission, outcome: SubmitOutcome) -> Submitted:
    return Submitted(new.submission_id, outcome, CallKey(new.call_id, 0), CallState.REJECTED)


def _outcome(new: NewSubmission, newest: CallRow | None) -> SubmitOutcome:
    """The outcome of a new submission, by the newest generation of its call."""
    if newest is None:
        return SubmitOutcome.CREATED
    if newest.state.is_open:
        return SubmitOutcome.JOINED
    has_been_redriven = new.inherit_links and newest.state is CallState.SUCCEEDED
    is_forced = new.force and not has_been_redriven
    if is_forced or newest.request is None or newest.state is CallState.REJECTED:
        return SubmitOutcome.CREATED
    is_dead = newest.state is CallState.DEAD
    return SubmitOutcome.FAILED if is_dead else SubmitOutcome.REPLAYED


def _outcome_again(known: SubmissionRow, call: CallRow) -> SubmitOutcome:
    """The outcome of a submission that was stored before, by the state of its call."""
    if call.state is CallState.QUEUED:
        is_creator = known.outcome is SubmitOutcome.CREATED
        return SubmitOutcome.CREATED if is_creator else SubmitOutcome.JOINED
    if call.state is CallState.SUCCEEDED:
        return SubmitOutcome.REPLAYED
    return SubmitOutcome.FAILED if call.state is CallState.DEAD else SubmitOutcome.JOINED


def _oldest(found: Iterable[tuple[datetime, RowT]], limit: int) -> list[RowT]:
    """The rows that were due first. Rows with the same time are in the order of their insertion."""
    return [row for _, row in sorted(found, key=lambda pair: pair[0])[: max(limit, 0)]]
