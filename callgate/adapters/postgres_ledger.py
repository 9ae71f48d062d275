"""
The ledger in Postgres: each method is one statement, in a file of its own under `sql/`.

Batches that Postgres refuses because of one row are halved until that row stands alone: it is answered as unstorable,
its neighbours are written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from callgate.db.session import PostgresSession
from callgate.domain.breaker import BreakerChange
from callgate.domain.budget import BudgetRefusal
from callgate.domain.errors import RowRefused
from callgate.domain.ledger import (
    AttemptKind,
    AttemptRef,
    AttemptStatus,
    AttemptView,
    Bodies,
    CallKey,
    CallState,
    CallView,
    Delivery,
    Due,
    DueBatch,
    DueKind,
    Judge,
    Locked,
    NewSubmission,
    NotClaimed,
    Record,
    RecordOutcome,
    Refused,
    Reserve,
    Reserved,
    ReserveOutcome,
    Settle,
    Settled,
    SettleOutcome,
    SubmitOutcome,
    Submitted,
    Unstorable,
    WaitReason,
)
from callgate.domain.models import OnBudget, Usage

In = TypeVar("In")
Out = TypeVar("Out")
SUBMIT_BATCH_MAX = 1_000
BODIES_BYTES_MAX = 4 * 2**20
"""Bodies read by one statement; heavier ones alone, for a statement has a deadline, and memory an end."""

SUBMIT = """SELECT * FROM callgate_submit_v1(
    %(submission_ids)s::uuid[], %(org_ids)s::text[], %(call_ids)s::uuid[], %(input_hashes)s::bytea[],
    %(call_types)s::text[], %(providers)s::text[], %(models)s::text[], %(input_token_bounds)s::int[],
    %(requests)s::bytea[], %(idempotency_keys)s::text[], %(links)s::text[], %(forces)s::boolean[],
    %(inherits)s::boolean[])"""
READ = """SELECT * FROM callgate_read_v1(
    %(call_ids)s::uuid[], %(generations)s::int[], %(attempt_ids)s::uuid[], %(request_bytes_max)s,
    %(with_reply)s, %(bytes_max)s)"""
RESERVE = """SELECT * FROM callgate_reserve_v1(
    %(call_ids)s::uuid[], %(generations)s::int[], %(holds)s::bigint[], %(leases_s)s::float8[],
    %(worker_ids)s::text[], %(price_sources)s::text[], %(trace_ids)s::text[], %(waits)s::boolean[],
    %(default_limits)s::bigint[], %(refusals)s::text[], %(put_off_s)s::float8[], %(put_off_reasons)s::text[],
    %(credentials)s::text[], %(waits_max_s)s::float8[])"""
RECORD = """SELECT * FROM callgate_record_v1(
    %(attempt_ids)s::uuid[], %(replies)s::bytea[], %(errors)s::text[], %(latencies_ms)s::int[],
    %(provider_request_ids)s::text[])"""
SETTLE = """SELECT * FROM callgate_settle_v1(
    %(call_ids)s::uuid[], %(generations)s::int[], %(attempt_ids)s::uuid[], %(seen)s::text[],
    %(statuses)s::text[], %(posted)s::bigint[], %(next_states)s::text[], %(due_in_s)s::float8[],
    %(input_tokens)s::int[], %(cached_input_tokens)s::int[], %(cache_write_tokens)s::int[],
    %(output_tokens)s::int[], %(reasoning_tokens)s::int[], %(price_sources)s::text[],
    %(service_tiers)s::text[], %(errors)s::text[], %(fingerprints)s::text[],
    %(healths)s::text[], %(failure_codes)s::text[], %(anomalies)s::text[])"""
DUE = """SELECT now() AS at, d.* FROM (SELECT 1) one LEFT JOIN LATERAL callgate_due_v1(
    %(limit)s, %(judge)s, %(steady_s)s, %(queued_before)s) d ON true"""
DELIVER = "SELECT callgate_deliver_v1(%(submission_ids)s::uuid[])"


class PostgresLedger:
    """`LedgerPort` over Postgres 16 or later."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def submit(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """Store submissions; see `LedgerPort.submit`. The whole batch is one transaction per thousand."""
        # Sorted, so that concurrent batches lock the same calls in the same order.
        order = sorted(range(len(batch)), key=lambda i: batch[i].call_id.bytes)
        answers: dict[int, Submitted] = {}
        for start in range(0, len(order), SUBMIT_BATCH_MAX):
            chunk = order[start : start + SUBMIT_BATCH_MAX]
            rows = [batch[i] for i in chunk]
            answers.update(
                zip(chunk, _bisected(rows, self._submit, _unstorable_submission), strict=True)
            )
        return [answers[i] for i in range(len(batch))]

    def _submit(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        rows = self._session.answers(
            SUBMIT,
            {
                "submission_ids": [s.submission_id for s in batch],
                "org_ids": [s.org_id for s in batch],
                "call_ids": [s.call_id for s in batch],
                "input_hashes": [s.input_hash for s in batch],
                "call_types": [s.call_type for s in batch],
                "providers": [s.provider for s in batch],
                "models": [s.model for s in batch],
                "input_token_bounds": [s.input_token_bound for s in batch],
                "requests": [s.request for s in batch],
                "idempotency_keys": [s.idempotency_key for s in batch],
                "links": [s.link for s in batch],
                "forces": [s.force for s in batch],
                "inherits": [s.inherit_links for s in batch],
            },
        )
        return [
            Submitted(
                s.submission_id,
                SubmitOutcome(row.outcome),
                CallKey(s.call_id, row.generation),
                CallState(row.state),
            )
            for s, row in zip(batch, _in_order(rows), strict=True)
        ]

    def read(
        self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies = Bodies.NONE
    ) -> Iterator[CallView | None]:
        """Look at calls; see `LedgerPort.read`. Each statement brings as many as are not too heavy together."""
        while keys:
            views = self._read(keys, bodies)
            keys = keys[len(views) :]
            # And keep none of them while the next are read.
            while views:
                yield views.popleft()

    def _read(self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies) -> deque[CallView | None]:
        """The first of these calls; if there is none of them, nothing but None."""
        refs = [(k.key, k.attempt_id) if isinstance(k, AttemptRef) else (k, None) for k in keys]
        rows = self._session.answers(
            READ,
            {
                "call_ids": [key.call_id for key, _ in refs],
                "generations": [key.generation for key, _ in refs],
                "attempt_ids": [attempt_id for _, attempt_id in refs],
                "request_bytes_max": bodies.request_bytes_max,
                "with_reply": bodies in (Bodies.REPLY, Bodies.BOTH),
                "bytes_max": BODIES_BYTES_MAX,
            },
        )
        found = {row.ord: _call_view(row) for row in rows}
        if any(view.key != refs[n - 1][0] for n, view in found.items()):
            self._session.distrust()
        return deque(found.get(n) for n in range(1, max(found, default=len(keys)) + 1))

    def reserve(self, batch: Sequence[Reserve]) -> list[ReserveOutcome]:
        """Claim calls and hold their cost; see `LedgerPort.reserve`."""
        return _bisected(batch, self._reserve, lambda r, why: Unstorable(why))

    def _reserve(self, batch: Sequence[Reserve]) -> list[ReserveOutcome]:
        rows = self._session.answers(
            RESERVE,
            {
                "call_ids": [r.key.call_id for r in batch],
                "generations": [r.key.generation for r in batch],
                "holds": [r.hold_nano_usd for r in batch],
                "leases_s": [r.lease_s for r in batch],
                "worker_ids": [r.worker_id for r in batch],
                "price_sources": [r.price_source for r in batch],
                "trace_ids": [r.trace_id for r in batch],
                "waits": [r.on_budget is OnBudget.WAIT for r in batch],
                "default_limits": [r.default_limit_nano_usd for r in batch],
                "refusals": [r.refuse_with for r in batch],
                "put_off_s": [r.put_off_s for r in batch],
                "put_off_reasons": [r.put_off_reason for r in batch],
                "credentials": [r.credential for r in batch],
                "waits_max_s": [r.wait_max_s for r in batch],
            },
        )
        return [_reserve_outcome(r, row) for r, row in zip(batch, _in_order(rows), strict=True)]

    def record(self, batch: Sequence[Record]) -> list[RecordOutcome]:
        """Keep answers; see `LedgerPort.record`."""
        return _bisected(batch, self._record, lambda r, why: RecordOutcome.UNSTORABLE)

    def _record(self, batch: Sequence[Record]) -> list[RecordOutcome]:
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
        return _bisected(batch, self._settle, lambda s, why: Unstorable(why))

    def _settle(self, batch: Sequence[Settle]) -> list[SettleOutcome]:
        rows = self._session.answers(SETTLE, _settle_parameters(batch))
        of_batch = next((row for row in rows if row.ord == 0), None)
        has_woken = of_batch is not None and of_batch.applied
        changes = tuple(map(BreakerChange.from_json, of_batch.links if of_batch else ()))
        settled = _in_order([row for row in rows if row.ord > 0])
        return [
            _settle_outcome(s, row, has_woken, changes)
            for s, row in zip(batch, settled, strict=True)
        ]

    def due(
        self, *, limit: int, judge: Judge | None = None, queued_before: datetime | None = None
    ) -> DueBatch:
        """Take what is due; see `LedgerPort.due`."""
        rows = self._session.answers(
            DUE,
            {
                "limit": limit,
                "judge": judge and judge.worker_id,
                "steady_s": judge and judge.steady_s,
                "queued_before": queued_before,
            },
        )
        items = [
            Due(
                DueKind(row.kind),
                key := CallKey(row.call_id, row.generation),
                row.attempt_id,
                _deliveries(key, row),
            )
            for row in rows
            if row.kind is not None
        ]
        return DueBatch(rows[0].at, tuple(items))

    def deliver(self, submission_ids: Sequence[UUID]) -> None:
        """Mark links as published; see `LedgerPort.deliver`."""
        if submission_ids:
            self._session.answers(DELIVER, {"submission_ids": list(submission_ids)})


def _bisected(
    batch: Sequence[In], run: Callable[[Sequence[In]], list[Out]], alone: Callable[[In, str], Out]
) -> list[Out]:
    """Run a batch; where a row is refused, halve until it stands alone and answer `alone` for it."""
    if not batch:
        return []
    try:
        return run(batch)
    except RowRefused as exc:
        if len(batch) == 1:
            return [alone(batch[0], str(exc))]
        half = len(batch) // 2
        return _bisected(batch[:half], run, alone) + _bisected(batch[half:], run, alone)


def _unstorable_submission(s: NewSubmission, why: str) -> Submitted:
    return Submitted(
        s.submission_id, SubmitOutcome.UNSTORABLE, CallKey(s.call_id, 0), CallState.REJECTED
    )


def _in_order(rows: list[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: row.ord)


def _reserve_outcome(r: Reserve, row: Any) -> ReserveOutcome:
    if row.outcome == "reserved":
        return Reserved(AttemptRef(r.key, row.attempt_id), row.attempt, row.queue_ms)
    if row.outcome == "locked":
        return Locked(r.key)
    if row.outcome == "not_claimed":
        unsent = AttemptRef(r.key, row.attempt_id) if row.attempt_id else None
        return NotClaimed(r.key, CallState(row.state) if row.state else None, unsent)
    refusal = BudgetRefusal.from_json(row.refusal) if row.is_budget else None
    return Refused(r.key, CallState(row.state), refusal)


def _settle_outcome(
    s: Settle, row: Any, has_woken: bool, changes: tuple[BreakerChange, ...]
) -> SettleOutcome:
    if row.state is None:
        return Unstorable(f"there is no call {s.ref.key.task_id}")
    if row.applied is None:
        return Locked(s.ref.key)
    deliveries = _deliveries(s.ref.key, row)
    return Settled(s.ref, row.applied, CallState(row.state), deliveries, has_woken, changes)


def _settle_parameters(batch: Sequence[Settle]) -> dict[str, Any]:
    usages = [s.usage for s in batch]
    return {
        "call_ids": [s.ref.key.call_id for s in batch],
        "generations": [s.ref.key.generation for s in batch],
        "attempt_ids": [s.ref.attempt_id for s in batch],
        "seen": [s.seen.value for s in batch],
        "statuses": [s.status.value for s in batch],
        "posted": [s.posted_nano_usd for s in batch],
        "next_states": [s.next_state.value for s in batch],
        "due_in_s": [s.due_in_s for s in batch],
        **{
            field: [getattr(u, field) if u else None for u in usages]
            for field in Usage.model_fields
        },
        "price_sources": [s.price_source for s in batch],
        "service_tiers": [s.service_tier for s in batch],
        "errors": [s.error for s in batch],
        "fingerprints": [s.error_fingerprint for s in batch],
        "healths": [s.health.value for s in batch],
        "failure_codes": [s.failure_code for s in batch],
        "anomalies": [",".join(s.anomalies) for s in batch],
    }


def _deliveries(key: CallKey, row: Any) -> tuple[Delivery, ...]:
    state = CallState(row.state)
    return tuple(
        Delivery(submission_id, key, state, link)
        for submission_id, link in zip(row.submission_ids, row.links, strict=True)
    )


def _call_view(row: Any) -> CallView:
    return CallView(
        key=CallKey(row.call_id, row.generation),
        org_id=row.org_id,
        input_hash=bytes(row.input_hash),
        state=CallState(row.state),
        due_at=row.due_at,
        attempt=row.attempt,
        call_type=row.call_type,
        provider=row.provider,
        model=row.model,
        input_token_bound=row.input_token_bound,
        request=_bytes(row.request),
        error=row.error,
        created_at=row.created_at,
        posted_nano_usd=row.posted_nano_usd,
        lost_attempts=row.lost_attempts,
        unknown_attempts=row.unknown_attempts,
        paid_failures=row.paid_failures,
        free_probes=row.free_probes,
        wait_reason=WaitReason(row.wait_reason) if row.wait_reason else None,
        sweeps=row.sweeps,
        is_purged=row.is_purged,
        request_bytes=row.request_bytes,
        last=_attempt_view(row) if row.attempt_id is not None else None,
    )


def _attempt_view(row: Any) -> AttemptView:
    return AttemptView(
        attempt_id=row.attempt_id,
        attempt=row.a_attempt,
        status=AttemptStatus(row.status),
        hold_nano_usd=row.hold_nano_usd,
        posted_nano_usd=row.a_posted,
        usage=_usage(row),
        price_source=row.price_source,
        service_tier=row.service_tier,
        latency_ms=row.latency_ms,
        queue_ms=row.queue_ms,
        provider_request_id=row.provider_request_id,
        error=row.error_json,
        reply=_bytes(row.reply),
        worker_id=row.worker_id,
        started_at=row.started_at,
        finished_at=row.finished_at,
        kind=AttemptKind(row.kind),
        credential=row.credential,
        anomalies=tuple(row.anomalies),
    )


def _usage(row: Any) -> Usage | None:
    if row.input_tokens is None:
        return None
    return Usage(
        input_tokens=row.input_tokens,
        cached_input_tokens=row.cached_input_tokens,
        cache_write_tokens=row.cache_write_tokens,
        output_tokens=row.output_tokens,
        reasoning_tokens=row.reasoning_tokens,
    )


def _bytes(column: memoryview | None) -> bytes | None:
    return None if column is None else bytes(column)
