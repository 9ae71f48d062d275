"""The rows of redrives in the memory ledger; changed in place under its lock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from callgate.adapters.memory.rows import CallRow
from callgate.domain.calls import CallKey, CallState
from callgate.domain.redrives import (
    DEFAULT_TERMS,
    ENDED,
    IN_PROGRESS,
    PauseCause,
    PricedCall,
    Redrive,
    RedriveCall,
    RedriveCounts,
    RedriveOutcome,
    RedriveState,
    RedriveStep,
    RedriveTerms,
)
from callgate.domain.reports import By


@dataclass(slots=True)
class RedriveCallRow:
    """One call of a redrive."""

    number: int
    key: CallKey
    org_id: str
    call_type: str
    provider: str
    model: str
    state: CallState
    """In which it was frozen."""
    outcome: RedriveOutcome = RedriveOutcome.PENDING
    code: str | None = None
    has_unknown_bill: bool = False
    worst_case_nano_usd: int | None = None
    input_token_bound: int = 0
    output_token_bound: int = 0
    new_generation: int | None = None
    posted_nano_usd: int | None = None
    try_at: datetime | None = None
    """Not before."""

    @classmethod
    def of(cls, number: int, call: CallRow) -> RedriveCallRow:
        """Freeze a call."""
        return cls(
            number, call.key, call.org_id, call.call_type, call.provider, call.model, call.state
        )

    @property
    def next_key(self) -> CallKey | None:
        """The generation that was released."""
        return self.view().next_key

    def price(self, priced: PricedCall) -> None:
        """Keep what it can cost, or why it is refused."""
        self.worst_case_nano_usd = priced.worst_case_nano_usd
        self.input_token_bound = priced.input_token_bound
        self.output_token_bound = priced.output_token_bound
        if priced.refusal is not None:
            self.outcome, self.code = RedriveOutcome.REFUSED, priced.refusal

    def end(self, state: CallState, reason: str | None) -> None:
        """Its next generation has ended."""
        self.outcome = {
            CallState.SUCCEEDED: RedriveOutcome.SUCCEEDED,
            CallState.DEAD: RedriveOutcome.FAILED,
        }.get(state, RedriveOutcome.REJECTED)
        self.code = reason

    def view(self) -> RedriveCall:
        """The row as callers see it."""
        return RedriveCall(
            number=self.number,
            key=self.key,
            org_id=self.org_id,
            call_type=self.call_type,
            provider=self.provider,
            model=self.model,
            outcome=self.outcome,
            code=self.code,
            has_unknown_bill=self.has_unknown_bill,
            worst_case_nano_usd=self.worst_case_nano_usd,
            input_token_bound=self.input_token_bound,
            output_token_bound=self.output_token_bound,
            new_generation=self.new_generation,
            posted_nano_usd=self.posted_nano_usd,
        )


@dataclass(slots=True)
class RedriveRow:
    """One redrive and its calls."""

    redrive_id: UUID
    selection: dict[str, object]
    planned_by: str
    created_at: datetime
    step_at: datetime
    state: RedriveState = RedriveState.PLANNING
    cause: PauseCause | None = None
    by: By | None = None
    terms: RedriveTerms = DEFAULT_TERMS
    started_at: datetime | None = None
    ended_at: datetime | None = None
    lease_id: UUID | None = None
    free_at: datetime | None = None
    ended_before: int = 0
    failed_before: int = 0
    calls: dict[int, RedriveCallRow] = field(default_factory=dict)

    def pending(self) -> list[RedriveCallRow]:
        """Calls that are not released yet, oldest first."""
        return [c for c in self.calls.values() if c.outcome is RedriveOutcome.PENDING]

    def is_held_by(self, step: RedriveStep, state: RedriveState) -> bool:
        """True if a step may change it."""
        return self.lease_id == step.lease_id and self.state is state

    def leave(self, state: RedriveState, code: str) -> None:
        """End it before its calls are released."""
        self.state, self.cause = state, None
        for call in self.pending():
            call.outcome, call.code = RedriveOutcome.LEFT, code

    def note(self, now: datetime) -> None:
        """Move it to the state that follows from its calls; the same as `note_redrive_v1`."""
        counts = Counter(call.outcome for call in self.calls.values())
        unpriced = [c for c in self.pending() if c.worst_case_nano_usd is None]
        if self.state is RedriveState.PLANNING and not unpriced:
            self.state = RedriveState.PLANNED
        if counts[RedriveOutcome.PENDING] + counts[RedriveOutcome.RELEASED]:
            return
        self.cause = None
        if self.state in IN_PROGRESS:
            self.state = RedriveState.DONE
        if self.state in (RedriveState.DONE, RedriveState.ABORTED, RedriveState.EXPIRED):
            self.ended_at = self.ended_at or now

    def view(self) -> Redrive:
        """The redrive as operators see it."""
        calls = list(self.calls.values())
        counts = Counter(call.outcome for call in calls)
        pending = self.pending()
        open_calls = [c for c in calls if c.outcome is RedriveOutcome.RELEASED]
        return Redrive(
            redrive_id=self.redrive_id,
            state=self.state,
            planned_by=self.planned_by,
            selection=dict(self.selection),
            calls=len(calls),
            created_at=self.created_at,
            unpriced=sum(c.worst_case_nano_usd is None for c in pending),
            counts=RedriveCounts(*(counts[outcome] for outcome in RedriveOutcome)),
            unknown=sum(c.has_unknown_bill for c in pending),
            worst_case_nano_usd=sum(c.worst_case_nano_usd or 0 for c in pending),
            open_nano_usd=sum(
                (c.worst_case_nano_usd or 0) + (c.posted_nano_usd or 0) for c in open_calls
            ),
            posted_nano_usd=sum(c.posted_nano_usd or 0 for c in calls if c.outcome in ENDED),
            cause=self.cause,
            by=self.by,
            terms=self.terms,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )
