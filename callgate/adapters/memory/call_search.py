"""Calls of the memory ledger, as operators look for them: `CallSearchPort`."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from callgate.adapters.memory.cost_series import MemoryCostSeries
from callgate.adapters.memory.rows import AttemptRow, CallRow, SubmissionRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.bounds import reason_json
from callgate.domain.call_history import (
    ACTIONS_MAX,
    ATTEMPTS_MAX,
    BODY_MAX_BYTES,
    GENERATIONS_MAX,
    SUBMISSIONS_MAX,
    Attempt,
    Body,
    CallHistory,
    Generation,
    SubmissionLine,
    Submissions,
)
from callgate.domain.call_pages import (
    COUNTED_MAX,
    CallChart,
    CallCount,
    CallPage,
    PageOf,
    Position,
    chart_of_sums,
    floor_of,
    looked_max,
    page_of,
    step_of,
    sums_can_tell,
)
from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.reports import By, CallFilter, EndReason
from callgate.domain.short_ids import DIGITS_MIN

STUCK = (CallState.WAITING, CallState.DEAD, CallState.REJECTED)
Counts = defaultdict[str, defaultdict[datetime, int]]
SAVING = (SubmitOutcome.JOINED, SubmitOutcome.REPLAYED)


class MemoryCallSearch:
    """`CallSearchPort` over the tables of a memory ledger."""

    tables: MemoryTables
    _clock: Callable[[], datetime]
    _lock: threading.Lock

    def calls(self, call_filter: CallFilter, *, limit: int) -> list[CallView]:
        """List calls, newest first, without bodies."""
        with self._lock:
            return [self._view(call) for call in self._matching(call_filter)[:limit]]

    def call_page(self, call_filter: CallFilter, page: PageOf) -> CallPage:
        """Return one page of calls."""
        with self._lock:
            ahead = self._ahead(call_filter, page)
            looked = ahead[: looked_max(call_filter, page)]
            found = [_position(c) for c in looked if self._matches(c, call_filter)]
            was_all = len(looked) == len(ahead) or len(found) > page.limit
            stop = None if was_all else _position(looked[-1])
            return page_of(found[: page.limit + 1], stop, page, self._views_of)

    def views(self, keys: Sequence[CallKey]) -> list[CallView | None]:
        """Look at calls; None where there is none."""
        with self._lock:
            rows = (self.tables.calls.get(key) for key in keys)
            return [self._view(row) if row else None for row in rows]

    def call_ids(self, first: UUID, last: UUID, *, limit: int) -> list[UUID]:
        """List call ids of a range."""
        if str(first)[:DIGITS_MIN] != str(last)[:DIGITS_MIN]:
            return []
        with self._lock:
            found = {key.call_id for key in self.tables.calls if first <= key.call_id <= last}
        return sorted(found)[:limit]

    def count_calls(self, call_filter: CallFilter) -> CallCount:
        """Count calls, to `COUNTED_MAX`."""
        with self._lock:
            calls = len(self._matching(call_filter))
            return CallCount(min(calls, COUNTED_MAX), calls >= COUNTED_MAX, None)

    def call_chart(self, call_filter: CallFilter, now: datetime) -> CallChart:
        """Count calls over time, or their attempts."""
        if sums := sums_can_tell(call_filter):
            return chart_of_sums(MemoryCostSeries(self.tables, self._lock), sums, now)
        with self._lock:
            found = self._matching(call_filter)[:COUNTED_MAX]
            until = call_filter.until or now
            since = call_filter.since or min((c.created_at for c in found), default=until)
            step = step_of(until - since)
            counts = _counts()
            for call in found:
                counts[call.state.value][floor_of(call.created_at, step)] += 1
            step_s = int(step.total_seconds())
            return CallChart(step_s, since, until, _plain(counts), is_of_attempts=False)

    def call_history(self, key: CallKey) -> CallHistory:
        """Return what is kept of one call."""
        with self._lock:
            rows = self.tables.attempts_of[key][-ATTEMPTS_MAX:] if key in self.tables.calls else []
            attempts = tuple(_attempt(row) for row in rows)
            subjects = {key.task_id, *(str(a.view.attempt_id) for a in attempts)}
            of_call = CallFilter(call_ids=(key.call_id,))
            generations = self._matching(of_call)[:GENERATIONS_MAX]
            return CallHistory(
                attempts,
                self._submissions(key),
                tuple(Generation(c.key, c.state, c.created_at) for c in generations),
                tuple(a for a in self.tables.actions[::-1] if a.subject in subjects)[:ACTIONS_MAX],
            )

    def cancel(self, key: CallKey, *, by: By) -> bool:
        """Cancel a call that is queued or waiting, and keep who did it and why."""
        with self._lock:
            call, now = self.tables.calls.get(key), self._clock()
            may_end = call is not None and call.state in EndReason.CANCELLED.ends
            if call is None or not may_end or key in self.tables.locked:
                return False
            error = reason_json(EndReason.CANCELLED, by.reason)
            self.tables.end(call, CallState.REJECTED, error, now)
            self.tables.log_action(now, by, "call.cancel", call.org_id, key.task_id)
            return True

    def show_body(self, key: CallKey, attempt_id: UUID | None, *, by: By) -> Body | None:
        """Read a body, and keep who read it and why."""
        with self._lock:
            call = self.tables.calls.get(key)
            attempt = self.tables.attempts.get(attempt_id) if attempt_id else None
            if call is None or (attempt_id and (attempt is None or attempt.key != key)):
                return None
            data = attempt.reply if attempt else call.request
            self.tables.log_action(
                self._clock(), by, "body.show", call.org_id, key.task_id,
                body="reply" if attempt else "request",
                attempt_id=str(attempt_id) if attempt_id else None,
            )  # fmt: skip
            return Body(data and data[:BODY_MAX_BYTES], len(data or b""))

    def _matching(self, which: CallFilter) -> list[CallRow]:
        """All calls of a filter, newest first."""
        found = (c for c in self.tables.calls.values() if self._matches(c, which))
        return sorted(found, key=_position, reverse=True)

    def _ahead(self, which: CallFilter, page: PageOf) -> list[CallRow]:
        """The calls that a walk from the position of a page meets, in its direction."""
        walked = CallFilter(org_id=which.org_id, since=which.since, until=which.until)
        found = self._matching(walked)
        if at := page.newer_than:
            return [c for c in found[::-1] if _position(c) > at]
        return [c for c in found if page.older_than is None or _position(c) < page.older_than]

    def _matches(self, call: CallRow, which: CallFilter) -> bool:
        return matches(call, which) and self._has_attempt(call, which)

    def _has_attempt(self, call: CallRow, which: CallFilter) -> bool:
        """True if it has an attempt of the tier, kind, outcome and trace that are meant, or none is meant."""
        if (which.tier, which.kind, which.outcome, which.trace_id) == (None, None, None, None):
            return True
        return any(
            which.tier in (None, attempt.service_tier or "")
            and which.kind in (None, attempt.kind)
            and which.outcome in (None, attempt.status)
            and which.trace_id in (None, attempt.trace_id)
            for attempt in self.tables.attempts_of[call.key]
        )

    def _view(self, call: CallRow) -> CallView:
        return self.tables.view(call, None, Bodies.NONE)

    def _views_of(self, keys: Sequence[CallKey]) -> list[CallView]:
        return [self._view(self.tables.calls[key]) for key in keys]

    def _submissions(self, key: CallKey) -> Submissions:
        rows = [row for row in self.tables.submissions.values() if row.key == key]
        rows.sort(key=lambda row: (row.created_at, row.outcome is not SubmitOutcome.CREATED))
        return Submissions(
            lines=tuple(_submission(row) for row in rows[:SUBMISSIONS_MAX]),
            total=len(rows),
            collapsed=sum(row.is_collapsed for row in rows),
            saving=sum(row.outcome in SAVING for row in rows),
            links=sum(_has_link(row) for row in rows),
            told=sum(row.delivered_at is not None for row in rows),
            given_up=sum(row.given_up_at is not None for row in rows),
        )


def matches(call: CallRow, which: CallFilter) -> bool:
    """Whether a call is meant, whatever its attempts."""
    pairs = (
        (which.org_id, call.org_id),
        (which.state, call.state),
        (which.reason, call.wait_reason or call.end_reason),
        (which.wait_reason, call.wait_reason),
        (which.end_reason, call.end_reason),
        (which.call_type, call.call_type),
        (which.provider, call.provider),
        (which.model, call.model),
        (which.error_fingerprint, call.error_fingerprint if call.state in STUCK else None),
        (which.generation, call.key.generation),
    )
    is_named = not which.call_ids or call.key.call_id in which.call_ids
    is_named &= which.since is None or call.created_at >= which.since
    is_named &= which.until is None or call.created_at < which.until
    return is_named and all(want is None or want == have for want, have in pairs)


def _position(call: CallRow) -> Position:
    return Position(call.created_at, call.key)


def _attempt(row: AttemptRow) -> Attempt:
    size = None if row.reply is None else len(row.reply)
    return Attempt(row.view(with_reply=False), row.posted_at, row.settled_by_hand_at, size)


def _has_link(row: SubmissionRow) -> bool:
    return bool(row.link or row.delivered_at or row.given_up_at)


def _submission(row: SubmissionRow) -> SubmissionLine:
    is_tried_again = row.failure is not None and row.given_up_at is None
    return SubmissionLine(
        submission_id=row.submission_id,
        outcome=row.outcome.value if row.outcome else "inherited",
        at=row.created_at,
        idempotency_key=row.idempotency_key,
        has_link=_has_link(row),
        delivered_at=row.delivered_at,
        tries=row.tries,
        failure=row.failure,
        try_at=row.try_at if is_tried_again else None,
        given_up_at=row.given_up_at,
    )


def _plain(counts: Counts) -> dict[str, dict[datetime, int]]:
    """Without steps in which there were none."""
    kept = {name: {at: n for at, n in steps.items() if n} for name, steps in counts.items()}
    return {name: steps for name, steps in kept.items() if steps}


def _counts() -> Counts:
    return defaultdict(lambda: defaultdict(int))
