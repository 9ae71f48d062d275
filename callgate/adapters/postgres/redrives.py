"""Redrives in Postgres: `RedrivesPort`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.call_order import Lane, Priority
from callgate.domain.calls import CallKey, CallState
from callgate.domain.errors import (
    CallNotFound,
    RedriveNotFound,
    RowRefused,
    TooManyRedrives,
)
from callgate.domain.ledger import SubmitOutcome, Submitted
from callgate.domain.redrive_rules import refusal_to_start, selection_json, state_differs
from callgate.domain.redrives import (
    BUSY_AGAIN_S,
    CATCH_UP_S,
    EXPIRES_AFTER,
    IN_PROGRESS,
    LEFT_ALONE,
    LOCKED_AGAIN_S,
    LOOKED_MAX,
    NOT_ENDED,
    OPEN_CALLS_MAX,
    OPEN_REDRIVES_MAX,
    PLAN_EXPIRES_AFTER,
    STEP_CALLS_MAX,
    UNSTORABLE,
    WATCH_S,
    NewRedrive,
    PauseCause,
    PricedCall,
    Redrive,
    RedriveCall,
    RedriveCounts,
    RedriveOrg,
    RedriveOutcome,
    RedriveState,
    RedriveStep,
    RedriveTerms,
    StartRedrive,
)
from callgate.domain.reports import By

PLAN = """SELECT callgate_plan_redrive_v1(
    %(id)s::uuid, %(state)s, %(org_id)s, %(call_type)s, %(provider)s, %(model)s, %(end_reason)s, %(error_fingerprint)s,
    %(call_ids)s::uuid[], %(since)s, %(until)s, %(selection)s::jsonb, %(calls_max)s, %(open_max)s, %(looked_max)s,
    %(left_alone)s::text[], %(operator)s, %(reason)s) AS outcome"""
START = """SELECT callgate_start_redrive_v1(
    %(id)s::uuid, %(expected)s, %(unknown_bills)s, %(rate_per_min)s, %(cap_nano_usd)s, %(stop_share)s, %(stop_min)s,
    %(operator)s, %(reason)s) AS was_started"""
CHANGE = """SELECT callgate_change_redrive_v1(
    %(id)s::uuid, %(change)s, %(rate_per_min)s, %(cap_nano_usd)s, %(stop_share)s, %(stop_min)s,
    %(operator)s, %(reason)s) AS was_changed"""
ONE = "SELECT * FROM redrive WHERE id = %(id)s::uuid"
LIST = "SELECT * FROM redrive ORDER BY created_at DESC, id LIMIT %(limit)s"
CALLS = """SELECT * FROM redrive_call
 WHERE redrive_id = %(id)s::uuid AND number > %(after)s AND (%(outcome)s IS NULL OR outcome = %(outcome)s)
 ORDER BY number LIMIT %(limit)s"""
ORGS = """SELECT org_id, count(*) AS calls, count(*) FILTER (WHERE outcome = 'pending') AS pending,
       coalesce(sum(worst_case_nano_usd) FILTER (WHERE outcome = 'pending'), 0)::bigint AS worst_case_nano_usd,
       count(*) FILTER (WHERE outcome = 'pending' AND has_unknown_bill) AS unknown,
       coalesce(sum(posted_nano_usd), 0)::bigint AS posted_nano_usd
  FROM redrive_call WHERE redrive_id = %(id)s::uuid GROUP BY org_id ORDER BY 4 DESC, 1"""
TAKE = """SELECT * FROM callgate_take_redrive_v1(
    %(lease_s)s, %(step_max)s, %(open_max)s, %(catch_up_s)s, %(watch_s)s, %(plan_expires_s)s, %(expires_s)s)"""
PRICE = """SELECT callgate_price_redrive_v1(
    %(id)s::uuid, %(lease_id)s::uuid, %(numbers)s::int[], %(worst_cases)s::bigint[], %(inputs)s::int[],
    %(outputs)s::int[], %(refusals)s::text[])"""
RELEASE = """SELECT * FROM callgate_release_redrive_v1(
    %(id)s::uuid, %(lease_id)s::uuid, %(numbers)s::int[], %(worst_cases)s::bigint[], %(inputs)s::int[],
    %(outputs)s::int[], %(refusals)s::text[], %(submission_ids)s::uuid[], %(org_ids)s::text[], %(call_ids)s::uuid[],
    %(input_hashes)s::bytea[], %(call_types)s::text[], %(providers)s::text[], %(models)s::text[],
    %(input_token_bounds)s::int[], %(requests)s::bytea[], %(priorities)s::smallint[], %(step_max)s, %(open_max)s,
    %(catch_up_s)s, %(locked_again_s)s, %(busy_again_s)s)"""
FORGET = "SELECT callgate_forget_redrives_v1(%(age_s)s, %(limit)s) AS redrives"


class PostgresRedrives:
    """`RedrivesPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def plan(self, new: NewRedrive) -> Redrive:
        """Freeze the calls of a selection; see `RedrivesPort.plan`."""
        (row,) = self._session.answers(PLAN, _plan_parameters(new))
        if row.outcome == "nothing":
            raise CallNotFound("no such call is dead or refused, without a newer generation")
        if row.outcome == "too_many":
            raise TooManyRedrives(f"{OPEN_REDRIVES_MAX} redrives have not ended: abort some")
        return self._known(new.redrive_id)

    def start(self, start: StartRedrive) -> Redrive:
        """Let workers release the calls; see `RedrivesPort.start`."""
        (row,) = self._session.answers(
            START,
            {
                "id": start.redrive_id,
                "expected": start.expected_calls,
                "unknown_bills": start.unknown_bills.value,
                **asdict(start.terms),
                **asdict(start.by),
            },
        )
        redrive = self._known(start.redrive_id)
        if not row.was_started:
            raise refusal_to_start(redrive, start) or state_differs(redrive, RedriveState.PLANNED)
        return redrive

    def pause(self, redrive_id: UUID, by: By) -> Redrive:
        """Release nothing more; see `RedrivesPort.pause`."""
        return self._change(redrive_id, "pause", RedriveTerms(), by, (RedriveState.RUNNING,))

    def resume(self, redrive_id: UUID, terms: RedriveTerms, by: By) -> Redrive:
        """Go on; see `RedrivesPort.resume`."""
        return self._change(redrive_id, "resume", terms, by, (RedriveState.PAUSED,))

    def abort(self, redrive_id: UUID, by: By) -> Redrive:
        """Leave what is not released; see `RedrivesPort.abort`."""
        return self._change(redrive_id, "abort", RedriveTerms(), by, NOT_ENDED)

    def _change(
        self,
        redrive_id: UUID,
        change: str,
        terms: RedriveTerms,
        by: By,
        states: Sequence[RedriveState],
    ) -> Redrive:
        (row,) = self._session.answers(
            CHANGE, {"id": redrive_id, "change": change, **asdict(terms), **asdict(by)}
        )
        redrive = self._known(redrive_id)
        if not row.was_changed:
            raise state_differs(redrive, *states)
        return redrive

    def get(self, redrive_id: UUID) -> Redrive | None:
        """One redrive; see `RedrivesPort.get`."""
        rows = self._session.answers(ONE, {"id": redrive_id})
        return _redrive(rows[0]) if rows else None

    def _known(self, redrive_id: UUID) -> Redrive:
        if (redrive := self.get(redrive_id)) is None:
            raise RedriveNotFound(f"there is no redrive {redrive_id}")
        return redrive

    def newest(self, *, limit: int) -> Sequence[Redrive]:
        """Redrives, newest first; see `RedrivesPort.newest`."""
        return [_redrive(row) for row in self._session.answers(LIST, {"limit": limit})]

    def calls_of(
        self,
        redrive_id: UUID,
        outcome: RedriveOutcome | None = None,
        *,
        after: int = 0,
        limit: int,
    ) -> Sequence[RedriveCall]:
        """Calls of a redrive; see `RedrivesPort.calls_of`."""
        which = {"id": redrive_id, "outcome": outcome and outcome.value, "after": after}
        return [_call(row) for row in self._session.answers(CALLS, {**which, "limit": limit})]

    def orgs_of(self, redrive_id: UUID) -> Sequence[RedriveOrg]:
        """Calls by organisation; see `RedrivesPort.orgs_of`."""
        rows = self._session.answers(ORGS, {"id": redrive_id})
        return [RedriveOrg(**row._asdict()) for row in rows]

    def take(self, *, lease_s: float) -> RedriveStep | None:
        """Take a redrive; see `RedrivesPort.take`."""
        rows = self._session.answers(
            TAKE,
            {
                "lease_s": lease_s,
                "step_max": STEP_CALLS_MAX,
                "open_max": OPEN_CALLS_MAX,
                "catch_up_s": CATCH_UP_S,
                "watch_s": WATCH_S,
                "plan_expires_s": PLAN_EXPIRES_AFTER.total_seconds(),
                "expires_s": EXPIRES_AFTER.total_seconds(),
            },
        )
        if not rows:
            return None
        (row,) = rows
        keys = map(CallKey, row.call_ids, row.generations)
        calls = tuple(zip(row.numbers, keys, strict=True))
        return RedriveStep(row.redrive_id, row.lease_id, RedriveState(row.state), calls)

    def price(self, step: RedriveStep, prices: Sequence[PricedCall]) -> None:
        """Keep prices; see `RedrivesPort.price`."""
        self._session.answers(PRICE, _priced_parameters(step, prices))

    def release(self, step: RedriveStep, calls: Sequence[PricedCall]) -> Sequence[Submitted]:
        """
        Release calls; see `RedrivesPort.release`.

        If Postgres refuses one of them, the batch is halved until that one is alone; it becomes refused.
        """
        if not calls:
            return []
        try:
            rows = self._session.answers(RELEASE, _release_parameters(step, calls))
        except RowRefused:
            if len(calls) == 1 and calls[0].submission is None:
                # Nothing of the call is stored with its refusal, so the call is not to blame.
                raise
            if len(calls) == 1:
                alone = replace(calls[0], refusal=UNSTORABLE, submission=None)
                return self.release(step, [alone])
            half = len(calls) // 2
            return [*self.release(step, calls[:half]), *self.release(step, calls[half:])]
        by_number = {call.number: call for call in calls}
        return [_submitted(by_number[row.number], row) for row in rows]

    def forget(self, *, age_s: float, limit: int) -> int:
        """Delete old redrives; see `RedrivesPort.forget`."""
        (row,) = self._session.answers(FORGET, {"age_s": age_s, "limit": limit})
        return int(row.redrives)


def _plan_parameters(new: NewRedrive) -> Mapping[str, Any]:
    which = new.selection
    assert which.state is not None
    return {
        "id": new.redrive_id,
        "state": which.state.value,
        "org_id": which.org_id,
        "call_type": which.call_type,
        "provider": which.provider,
        "model": which.model,
        "end_reason": which.end_reason,
        "error_fingerprint": which.error_fingerprint,
        "call_ids": list(which.call_ids) or None,
        "since": which.since,
        "until": which.until,
        "selection": json.dumps(selection_json(which)),
        **asdict(new.by),
        "calls_max": new.calls_max,
        "open_max": OPEN_REDRIVES_MAX,
        "looked_max": LOOKED_MAX,
        "left_alone": list(LEFT_ALONE),
    }


def _priced_parameters(step: RedriveStep, calls: Sequence[PricedCall]) -> dict[str, Any]:
    return {
        "id": step.redrive_id,
        "lease_id": step.lease_id,
        "numbers": [c.number for c in calls],
        "worst_cases": [c.worst_case_nano_usd for c in calls],
        "inputs": [c.input_token_bound for c in calls],
        "outputs": [c.output_token_bound for c in calls],
        "refusals": [c.refusal for c in calls],
    }


def _release_parameters(step: RedriveStep, calls: Sequence[PricedCall]) -> Mapping[str, Any]:
    news = [c.submission for c in calls]
    return {
        **_priced_parameters(step, calls),
        "submission_ids": [s and s.submission_id for s in news],
        "org_ids": [s and s.org_id for s in news],
        "call_ids": [s and s.call_id for s in news],
        "input_hashes": [s and s.input_hash for s in news],
        "call_types": [s and s.call_type for s in news],
        "providers": [s and s.provider for s in news],
        "models": [s and s.model for s in news],
        "input_token_bounds": [s and s.input_token_bound for s in news],
        "requests": [s and s.request for s in news],
        "priorities": [(s.priority if s else Priority.NORMAL).value for s in news],
        "step_max": STEP_CALLS_MAX,
        "open_max": OPEN_CALLS_MAX,
        "catch_up_s": CATCH_UP_S,
        "locked_again_s": LOCKED_AGAIN_S,
        "busy_again_s": BUSY_AGAIN_S,
    }


def _submitted(call: PricedCall, row: Any) -> Submitted:
    new = call.submission
    assert new is not None
    lane = Lane(row.lane) if row.lane else None
    key = CallKey(new.call_id, row.generation)
    return Submitted(new.submission_id, SubmitOutcome.CREATED, key, CallState(row.state), lane)


def _redrive(row: Any) -> Redrive:
    counts = RedriveCounts(
        row.pending, row.released, row.succeeded, row.failed, row.rejected, row.refused,
        row.skipped, row.left_alone,
    )  # fmt: skip
    state = RedriveState(row.state)
    return Redrive(
        redrive_id=row.id,
        state=state,
        planned_by=row.planned_by,
        selection=dict(row.selection),
        calls=row.calls,
        created_at=row.created_at,
        unpriced=row.unpriced,
        counts=counts,
        unknown=row.unknown,
        worst_case_nano_usd=row.worst_case_nano_usd,
        open_nano_usd=row.open_nano_usd,
        posted_nano_usd=row.posted_nano_usd,
        cause=PauseCause(row.cause) if row.cause and state in IN_PROGRESS else None,
        by=By(row.operator, row.reason) if row.operator else None,
        terms=RedriveTerms(row.rate_per_min, row.cap_nano_usd, row.stop_share, row.stop_min),
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def _call(row: Any) -> RedriveCall:
    return RedriveCall(
        number=row.number,
        key=CallKey(row.call_id, row.generation),
        org_id=row.org_id,
        call_type=row.call_type,
        provider=row.provider,
        model=row.model,
        outcome=RedriveOutcome(row.outcome),
        code=row.code,
        has_unknown_bill=row.has_unknown_bill,
        worst_case_nano_usd=row.worst_case_nano_usd,
        input_token_bound=row.input_token_bound,
        output_token_bound=row.output_token_bound,
        new_generation=row.new_generation,
        posted_nano_usd=row.posted_nano_usd,
    )
