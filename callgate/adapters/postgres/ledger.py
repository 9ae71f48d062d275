"""
The ledger in Postgres: each method calls one SQL function, whose text is under `sql/functions/`.

If Postgres refuses a batch because of one row, the batch is halved until that row stands alone. That row is answered as
unstorable, the others are written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from callgate.adapters.postgres.batches import BATCH_MAX_BYTES, bisected, written
from callgate.adapters.postgres.parameters import reserve_parameters, settle_parameters
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.submissions import (
    SUBMIT,
    submit_parameters,
    submitted,
    unstorable,
)
from callgate.adapters.postgres.views import call_view
from callgate.domain.bounds import LINK_FAILURE_CHARS_MAX, ROWS_MAX, error_code, one_line
from callgate.domain.breaker_words import BreakerChange
from callgate.domain.budgets import BudgetRefusal
from callgate.domain.call_order import Lane
from callgate.domain.calls import (
    AttemptKind,
    AttemptRef,
    Bodies,
    CallKey,
    CallState,
    CallView,
)
from callgate.domain.delivery import Delivery, LinkOutcome
from callgate.domain.errors import RowRefused
from callgate.domain.ledger import (
    Due,
    DueBatch,
    DueKind,
    Locked,
    NewSubmission,
    NotClaimed,
    Reaper,
    RecordAnswer,
    RecordOutcome,
    Refused,
    ReserveCommand,
    Reserved,
    ReserveOutcome,
    Settle,
    Settled,
    SettleOutcome,
    Submitted,
    Unstorable,
)
from callgate.event_log import event_log

log = event_log(__name__)

Out = TypeVar("Out")
ORG_LINKS_MAX = 50
"""Links of one organisation in one turn."""
CALL_LINKS_MAX = 10
"""Links of one call that the process that ended it delivers at once."""

READ = """SELECT * FROM callgate_read_v2(
    %(call_ids)s::uuid[], %(generations)s::int[], %(attempt_ids)s::uuid[], %(request_max_bytes)s,
    %(with_reply)s, %(max_bytes)s)"""
VIEWS = "SELECT * FROM callgate_views_v1(%(call_ids)s::uuid[], %(generations)s::int[])"
"""What logins may execute that read no bodies."""
RESERVE = """SELECT * FROM callgate_reserve_v2(
    %(call_ids)s::uuid[], %(generations)s::int[], %(commands)s::text[], %(holds)s::bigint[],
    %(expires_in_s)s::float8[], %(worker_ids)s::text[], %(price_sources)s::text[], %(trace_ids)s::text[],
    %(waits)s::boolean[], %(default_limits)s::bigint[], %(credentials)s::text[], %(waits_max_s)s::float8[],
    %(errors)s::text[], %(defer_s)s::float8[], %(defer_reasons)s::text[], %(output_tokens)s::int[],
    %(input_tokens)s::int[], %(repairs_after)s::int[])"""
RECORD = """SELECT * FROM callgate_record_v1(
    %(attempt_ids)s::uuid[], %(replies)s::bytea[], %(errors)s::text[], %(latencies_ms)s::int[],
    %(provider_request_ids)s::text[])"""
SETTLE = """SELECT * FROM callgate_settle_v2(
    %(call_ids)s::uuid[], %(generations)s::int[], %(attempt_ids)s::uuid[], %(expected_statuses)s::text[],
    %(statuses)s::text[], %(posted)s::bigint[], %(next_states)s::text[], %(due_in_s)s::float8[],
    %(input_tokens)s::int[], %(cached_input_tokens)s::int[], %(cache_write_tokens)s::int[],
    %(output_tokens)s::int[], %(reasoning_tokens)s::int[], %(cache_write_1h_tokens)s::int[],
    %(price_sources)s::text[], %(service_tiers)s::text[], %(errors)s::text[], %(fingerprints)s::text[],
    %(healths)s::text[], %(failure_codes)s::text[], %(anomalies)s::text[], %(blocked_for_s)s::float8[])"""
DUE = """SELECT now() AS at, d.* FROM (SELECT 1) one LEFT JOIN LATERAL callgate_take_due_v2(
    %(limit)s, %(reaper)s, %(lease_stable_for_s)s) d ON true"""
LOST_MESSAGES = """SELECT now() AS at, d.* FROM (SELECT 1) one LEFT JOIN LATERAL callgate_take_lost_messages_v2(
    %(limit)s, %(queued_before)s) d ON true"""
LINKS = """SELECT * FROM callgate_links_v1(
    %(after)s, %(call_ids)s::uuid[], %(generations)s::int[], %(per_call)s, %(per_org)s, %(limit)s, %(max_bytes)s)"""
DELIVER = "SELECT callgate_deliver_v1(%(submission_ids)s::uuid[], %(failures)s::text[], %(again_s)s::float8[])"


class PostgresLedger:
    """`LedgerPort` over Postgres 16 or later."""

    def __init__(self, session: PostgresSession, *, read: str = READ) -> None:
        self._session = session
        self._read_sql = read

    def submit(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """Store submissions; see `LedgerPort.submit`. Up to a thousand are one transaction."""
        # Sorted, so that concurrent batches lock the same calls in the same order.
        order = sorted(range(len(batch)), key=lambda i: batch[i].call_id.bytes)
        rows = [batch[i] for i in order]
        answers = dict(zip(order, written(rows, self._submit, unstorable), strict=True))
        return [answers[i] for i in range(len(batch))]

    def _submit(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        rows = self._session.answers(SUBMIT, submit_parameters(batch))
        return [submitted(s, row) for s, row in zip(batch, _in_order(rows), strict=True)]

    def read(
        self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies = Bodies.NONE
    ) -> Iterator[CallView | None]:
        """Look at calls; see `LedgerPort.read`. Each statement brings as many as are not too heavy together."""
        while keys:
            views = self._read(keys, bodies)
            keys = keys[len(views) :]
            # No views are kept while the next are read.
            while views:
                yield views.popleft()

    def _read(self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies) -> deque[CallView | None]:
        """The first of these calls; None for one that does not exist or cannot be read."""
        keys = keys[:ROWS_MAX]
        try:
            return self._read_rows(keys, bodies)
        except RowRefused as exc:
            if len(keys) == 1:
                log.error("row.not_read", key=str(keys[0]), reason=str(exc))
                return deque([None])
            return self._read(keys[: len(keys) // 2], bodies)

    def _read_rows(
        self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies
    ) -> deque[CallView | None]:
        refs = [(k.key, k.attempt_id) if isinstance(k, AttemptRef) else (k, None) for k in keys]
        rows = self._session.answers(
            self._read_sql,
            {
                "call_ids": [key.call_id for key, _ in refs],
                "generations": [key.generation for key, _ in refs],
                "attempt_ids": [attempt_id for _, attempt_id in refs],
                "request_max_bytes": bodies.request_max_bytes,
                "with_reply": bodies in (Bodies.REPLY, Bodies.BOTH),
                "max_bytes": BATCH_MAX_BYTES,
            },
        )
        if any(CallKey(row.call_id, row.generation) != refs[row.ord - 1][0] for row in rows):
            self._session.distrust()
        found = {row.ord: _understood(call_view, row) for row in rows}
        return deque(found.get(n) for n in range(1, max(found, default=len(keys)) + 1))

    def reserve(self, batch: Sequence[ReserveCommand]) -> list[ReserveOutcome]:
        """Decide queued calls; see `LedgerPort.reserve`."""
        return written(batch, self._reserve, lambda r, why: Unstorable(why))

    def _reserve(self, batch: Sequence[ReserveCommand]) -> list[ReserveOutcome]:
        rows = self._session.answers(RESERVE, reserve_parameters(batch))
        return [_reserve_outcome(c, row) for c, row in zip(batch, _in_order(rows), strict=True)]

    def record(self, batch: Sequence[RecordAnswer]) -> list[RecordOutcome]:
        """Keep answers; see `LedgerPort.record`."""
        return written(batch, self._record, lambda r, why: RecordOutcome.UNSTORABLE)

    def _record(self, batch: Sequence[RecordAnswer]) -> list[RecordOutcome]:
        rows = self._session.answers(
            RECORD,
            {
                "attempt_ids": [r.ref.attempt_id for r in batch],
                "replies": [r.reply for r in batch],
                "errors": [r.error for r in batch],
                "latencies_ms": [r.latency_ms for r in batch],
                "provider_request_ids": [r.provider_request_id for r in batch],
            },
        )
        return [RecordOutcome(row.outcome) for row in _in_order(rows)]

    def settle(self, batch: Sequence[Settle]) -> list[SettleOutcome]:
        """Post attempts; see `LedgerPort.settle`."""
        return written(batch, self._settle, lambda s, why: Unstorable(why))

    def _settle(self, batch: Sequence[Settle]) -> list[SettleOutcome]:
        rows = self._session.answers(SETTLE, settle_parameters(batch))
        of_batch = next((row for row in rows if row.ord == 0), None)
        has_freed_waiters = of_batch is not None and of_batch.applied
        changes = tuple(map(BreakerChange.from_json, of_batch.breakers if of_batch else ()))
        settled = _in_order([row for row in rows if row.ord > 0])
        return [
            _settle_outcome(s, row, has_freed_waiters, changes)
            for s, row in zip(batch, settled, strict=True)
        ]

    def take_due(self, *, limit: int, reaper: Reaper | None = None) -> DueBatch:
        """Take what is due; see `LedgerPort.take_due`."""
        return self._take(limit, reaper, None)

    def take_lost_messages(self, *, limit: int, queued_before: datetime) -> DueBatch:
        """Take calls whose messages were lost; see `LedgerPort.take_lost_messages`."""
        return self._take(limit, None, queued_before)

    def _take(self, limit: int, reaper: Reaper | None, queued_before: datetime | None) -> DueBatch:
        rows = self._session.answers(
            DUE if queued_before is None else LOST_MESSAGES,
            {
                "limit": limit,
                "reaper": reaper and reaper.worker_id,
                "lease_stable_for_s": reaper and reaper.lease_stable_for_s,
                "queued_before": queued_before,
            },
        )
        items = [_understood(_due, row) for row in rows if row.kind is not None]
        return DueBatch(rows[0].at, tuple(item for item in items if item is not None))

    def links(
        self, *, limit: int, after: str = "", keys: Sequence[CallKey] | None = None
    ) -> list[Delivery]:
        """Take links to deliver; see `LedgerPort.links`."""
        rows = self._session.answers(
            LINKS,
            {
                "after": after,
                "call_ids": None if keys is None else [k.call_id for k in keys],
                "generations": None if keys is None else [k.generation for k in keys],
                "per_call": limit if keys is None else CALL_LINKS_MAX,
                "per_org": ORG_LINKS_MAX if keys is None else limit,
                "limit": limit,
                "max_bytes": BATCH_MAX_BYTES,
            },
        )
        return [d for d in (_understood(_delivery, row) for row in rows) if d is not None]

    def keep_link_outcomes(self, outcomes: Sequence[LinkOutcome]) -> None:
        """Keep what became of links; see `LedgerPort.keep_link_outcomes`."""
        bisected(outcomes, self._keep_link_outcomes, _log_lost_outcome)

    def _keep_link_outcomes(self, outcomes: Sequence[LinkOutcome]) -> list[None]:
        self._session.answers(
            DELIVER,
            {
                "submission_ids": [t.submission_id for t in outcomes],
                "failures": [t.why and one_line(t.why, LINK_FAILURE_CHARS_MAX) for t in outcomes],
                "again_s": [t.again_s for t in outcomes],
            },
        )
        return [None] * len(outcomes)


def _understood(build: Callable[[Any], Out], row: Any) -> Out | None:
    """
    Build a value from a row; None if the row contains words that this version does not know.

    Another version may have written it. The other rows are not affected.
    """
    try:
        return build(row)
    except (ValueError, TypeError) as exc:
        # The error's own words may quote the row, so only its type is logged.
        key = CallKey(row.call_id, row.generation)
        log.error("row.not_understood", task_id=key.task_id, reason=type(exc).__name__)
        return None


def _log_lost_outcome(outcome: LinkOutcome, why: str) -> None:
    log.error("link_outcome.not_stored", submission_id=str(outcome.submission_id), reason=why)


def _in_order(rows: list[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: row.ord)


def _reserve_outcome(r: ReserveCommand, row: Any) -> ReserveOutcome:
    if row.outcome == "reserved":
        ref = AttemptRef(r.key, row.attempt_id)
        return Reserved(ref, row.attempt, row.queue_ms, AttemptKind(row.kind))
    if row.outcome == "locked":
        return Locked(r.key)
    if row.outcome == "not_claimed":
        unsent = AttemptRef(r.key, row.attempt_id) if row.attempt_id else None
        return NotClaimed(r.key, CallState(row.state) if row.state else None, unsent)
    refusal = BudgetRefusal.from_json(row.refusal) if row.is_budget else None
    return Refused(r.key, CallState(row.state), refusal, error_code(row.refusal))


def _settle_outcome(
    s: Settle, row: Any, has_freed_waiters: bool, changes: tuple[BreakerChange, ...]
) -> SettleOutcome:
    if row.state is None:
        return Unstorable(f"there is no call {s.ref.key.task_id}")
    if row.applied is None:
        return Locked(s.ref.key)
    return Settled(
        s.ref,
        row.applied,
        CallState(row.state),
        row.has_ended,
        row.has_links,
        has_freed_waiters,
        changes,
    )


def _due(row: Any) -> Due:
    lane = Lane(row.lane) if row.lane else Lane.CALL
    return Due(DueKind(row.kind), CallKey(row.call_id, row.generation), row.attempt_id, lane)


def _delivery(row: Any) -> Delivery:
    key, state = CallKey(row.call_id, row.generation), CallState(row.state)
    return Delivery(row.submission_id, key, state, row.link, row.org_id, row.tries)
