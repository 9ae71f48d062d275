"""Submissions as parameters of `callgate_submit_v2`, and its rows as what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from callgate.domain import trace_context
from callgate.domain.call_order import Lane
from callgate.domain.calls import CallKey, CallState
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from callgate.domain.open_calls import OpenCalls

SUBMIT = """SELECT * FROM callgate_submit_v2(
    %(submission_ids)s::uuid[], %(org_ids)s::text[], %(call_ids)s::uuid[], %(input_hashes)s::bytea[],
    %(call_types)s::text[], %(providers)s::text[], %(models)s::text[], %(input_token_bounds)s::int[],
    %(requests)s::bytea[], %(idempotency_keys)s::text[], %(links)s::text[], %(forces)s::boolean[],
    %(inherits)s::boolean[], %(priorities)s::smallint[], %(start_within_s)s::float8[],
    %(traceparents)s::text[])"""


def submit_parameters(batch: Sequence[NewSubmission]) -> dict[str, Any]:
    return {
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
        "priorities": [s.priority.value for s in batch],
        "start_within_s": [s.start_within_s for s in batch],
        "traceparents": [s.traceparent for s in batch],
    }


def submitted(s: NewSubmission, row: Any) -> Submitted:
    is_busy = row.open_calls_max is not None
    return Submitted(
        s.submission_id,
        SubmitOutcome(row.outcome),
        CallKey(s.call_id, row.generation),
        CallState(row.state),
        Lane(row.lane) if row.lane else None,
        OpenCalls(row.open_calls, row.open_calls_max) if is_busy else None,
        trace_context.checked(row.traceparent),
    )


def unstorable(s: NewSubmission, why: str) -> Submitted:
    key = CallKey(s.call_id, 0)
    return Submitted(s.submission_id, SubmitOutcome.UNSTORABLE, key, CallState.REJECTED)
