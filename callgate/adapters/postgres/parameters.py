"""The parameters of the statements that claim and settle: each is an array with one element for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from callgate.domain.calls import CallKey
from callgate.domain.ledger import Defer, Reject, Requeue, Reserve, ReserveCommand, Settle
from callgate.domain.requests import OnBudget, Usage


def reserve_parameters(batch: Sequence[ReserveCommand]) -> dict[str, Any]:
    claims = [c if isinstance(c, Reserve) else _NO_CLAIM for c in batch]
    return {
        "call_ids": [c.key.call_id for c in batch],
        "generations": [c.key.generation for c in batch],
        "commands": [_COMMANDS[type(c)] for c in batch],
        "holds": [c.hold_nano_usd for c in claims],
        "expires_in_s": [c.expires_in_s for c in claims],
        "worker_ids": [c.worker_id for c in claims],
        "price_sources": [c.price_source for c in claims],
        "trace_ids": [c.trace_id for c in claims],
        "waits": [c.on_budget is OnBudget.WAIT for c in claims],
        "default_limits": [c.default_limit_nano_usd for c in claims],
        "credentials": [c.credential for c in claims],
        "waits_max_s": [c.wait_max_s for c in claims],
        "errors": [None if isinstance(c, Reserve) else c.error for c in batch],
        "defer_s": [c.wait_s if isinstance(c, Defer) else None for c in batch],
        "output_tokens": [c.output_token_bound for c in claims],
        "input_tokens": [c.input_token_bound for c in claims],
        "repairs_after": [c.repair_after for c in claims],
        "defer_reasons": [c.reason.value if isinstance(c, Defer) else None for c in batch],
    }


_COMMANDS: dict[type[ReserveCommand], str] = {
    Reserve: "reserve",
    Reject: "reject",
    Defer: "defer",
    Requeue: "requeue",
}
_NO_CLAIM = Reserve(CallKey(UUID(int=0), 1), 0, 0.0, worker_id="", price_source="")
"""What the statement is given for a command that claims nothing; no attempt has an empty worker id."""


def settle_parameters(batch: Sequence[Settle]) -> dict[str, Any]:
    usages = [s.usage for s in batch]
    return {
        "call_ids": [s.ref.key.call_id for s in batch],
        "generations": [s.ref.key.generation for s in batch],
        "attempt_ids": [s.ref.attempt_id for s in batch],
        "expected_statuses": [s.expected_status.value for s in batch],
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
        "blocked_for_s": [s.blocked_for_s for s in batch],
    }
