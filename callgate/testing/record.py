"""What a test may ask about: what was submitted, what the provider was sent, and what the log has."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from callgate.adapters.memory.rows import AttemptRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.bounds import error_code
from callgate.domain.budgets import NANO_PER_USD
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.ledger import SubmitOutcome
from callgate.domain.requests import LLMRequest, Usage


@dataclass(frozen=True, slots=True)
class SubmissionRecord:
    """One submission that was accepted."""

    task_id: str
    request: LLMRequest
    outcome: SubmitOutcome
    """`created`, or why no call of its own was started: `joined`, `replayed`, `failed`."""
    state: CallState
    """Of its call, now."""
    failure_code: str | None
    """Why the call is dead or rejected, or waits."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt: a row of the log."""

    task_id: str
    number: int
    status: AttemptStatus
    cost_usd: Decimal
    """What was posted; 0 while nothing is."""
    hold_usd: Decimal
    """What was held for it."""
    usage: Usage | None
    failure_code: str | None
    latency_ms: int | None


def submissions_in(tables: MemoryTables) -> list[SubmissionRecord]:
    """Every submission, in order; not those that a redrive made."""
    return [
        SubmissionRecord(
            row.key.task_id,
            LLMRequest.from_stored(call.request or b""),
            row.outcome,
            call.state,
            error_code(call.error) if call.error else None,
        )
        for row in tables.submissions.values()
        if row.outcome is not None and (call := tables.calls[row.key]).request is not None
    ]


def attempts_in(tables: MemoryTables, task_id: str | None = None) -> list[AttemptRecord]:
    """Every attempt, or those of one call, in the order in which they began."""
    rows = (row for row in tables.attempts.values() if task_id in (None, row.key.task_id))
    return [_attempt(row) for row in rows]


def _attempt(row: AttemptRow) -> AttemptRecord:
    return AttemptRecord(
        task_id=row.key.task_id,
        number=row.attempt,
        status=row.status,
        cost_usd=Decimal(row.posted_nano_usd or 0) / NANO_PER_USD,
        hold_usd=Decimal(row.hold_nano_usd) / NANO_PER_USD,
        usage=row.usage,
        failure_code=error_code(row.error) if row.error else None,
        latency_ms=row.latency_ms,
    )
