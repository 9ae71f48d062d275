"""Rows of the ledger as the views of `callgate.domain.calls`."""

from __future__ import annotations

from typing import Any

from callgate.domain import trace_context
from callgate.domain.call_order import Priority
from callgate.domain.calls import (
    AttemptKind,
    AttemptStatus,
    AttemptView,
    BrokenAnswer,
    CallKey,
    CallState,
    CallView,
    WaitReason,
)
from callgate.domain.requests import Usage


def call_view(row: Any) -> CallView:
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
        worker_losses=row.worker_losses,
        unknown_attempts=row.unknown_attempts,
        paid_failures=row.paid_failures,
        uncounted_attempts=row.free_probes,
        repairs=row.repairs,
        broken=BrokenAnswer(row.broken_id, row.broken_bytes) if row.broken_id else None,
        wait_reason=WaitReason(row.wait_reason) if row.wait_reason else None,
        end_reason=row.end_reason,
        traceparent=trace_context.checked(row.traceparent),
        priority=Priority(row.priority),
        start_before=row.start_before,
        sweeps=row.sweeps,
        is_purged=row.is_purged,
        request_bytes=row.request_bytes,
        last=attempt_view(row) if row.attempt_id is not None else None,
    )


def attempt_view(row: Any) -> AttemptView:
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
        trace_id=row.trace_id,
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
        cache_write_1h_tokens=row.cache_write_1h_tokens or 0,
    )


def _bytes(column: memoryview | None) -> bytes | None:
    return None if column is None else bytes(column)
