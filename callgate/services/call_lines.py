"""
The lines of the log about calls and attempts: one for each call that ends, and one for each other failed attempt.

Each says what happened, to whom, what it cost and what to do. A call that dies has one line, which is also that of its
last attempt. What a provider, a client or a user wrote is in no line: only ids, names and codes of callgate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from callgate.domain.breaker_words import BreakerChange
from callgate.domain.budgets import CALL_TYPE_SCOPE, usd
from callgate.domain.calls import (
    AttemptKind,
    AttemptStatus,
    AttemptView,
    CallKey,
    CallState,
    CallView,
)
from callgate.domain.causes import cause_of
from callgate.domain.ledger import Refused, ReserveOutcome, Settle, Settled
from callgate.domain.provider import Billing, Failure
from callgate.domain.remedies import Concerns, remedy_of
from callgate.event_log import event_log
from callgate.services.review import Assessment

log = event_log(__name__)


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """What a line says of an attempt, known before it is settled. It keeps no body in memory."""

    key: CallKey
    org_id: str
    call_type: str
    provider: str
    model: str
    attempt_id: str
    attempt: int
    kind: AttemptKind
    credential: str
    trace_id: str | None
    latency_ms: int | None
    posted_before_nano_usd: int
    """What the other attempts of the call have cost."""
    posted_nano_usd: int
    """What this one posted before: the whole hold of one that was unknown, else 0."""
    traceparent: str | None = None
    """The span of the submission that made the call."""

    @classmethod
    def of(cls, view: CallView, attempt: AttemptView) -> AttemptFacts:
        """Read them from a view."""
        return cls(
            key=view.key,
            org_id=view.org_id,
            call_type=view.call_type,
            provider=view.provider,
            model=view.model,
            attempt_id=str(attempt.attempt_id),
            attempt=attempt.attempt,
            kind=attempt.kind,
            credential=attempt.credential,
            trace_id=attempt.trace_id,
            latency_ms=attempt.latency_ms,
            posted_before_nano_usd=view.posted_nano_usd - (attempt.posted_nano_usd or 0),
            posted_nano_usd=attempt.posted_nano_usd or 0,
            traceparent=view.traceparent,
        )


def say_settled(facts: AttemptFacts, settle: Settle, settled: Settled) -> None:
    """Write the line of an attempt that was settled now."""
    if not settled.is_applied:
        return
    has_succeeded = settle.status is AttemptStatus.SUCCEEDED
    # Not by the state: two late answers of a call may succeed in one batch, and only one of them ends it.
    if has_succeeded and settled.has_ended:
        _say_succeeded(facts, settle)
    elif has_succeeded:
        _say_late(facts, settle)
    elif settled.has_ended:
        _say_died(facts, settle)
    else:
        _say_failed(facts, settle, settled)


def say_refused(view: CallView, outcome: ReserveOutcome, trace_id: str | None = None) -> None:
    """Write the line of a call that was ended now by a refused claim, if it was."""
    if not isinstance(outcome, Refused) or outcome.state.is_open:
        return
    if outcome.state is CallState.DEAD:
        _say_repair_refused(view, outcome, trace_id)
        return
    log.warning(
        "call.rejected",
        **_of_call(view),
        trace_id=trace_id,
        attempts=view.attempt,
        cost=usd(view.posted_nano_usd),
        reason=outcome.code,
        todo=remedy_of(outcome.code, _concerns(view, outcome)),
    )


def _concerns(view: CallView, outcome: Refused) -> Concerns:
    refusal = outcome.refusal
    return Concerns(
        view.provider,
        view.model,
        needed=usd(refusal.requested_nano_usd) if refusal else "",
        org_id=view.org_id,
        call_type=refusal.scope.partition(CALL_TYPE_SCOPE)[2] if refusal else "",
    )


def _say_repair_refused(view: CallView, outcome: Refused, trace_id: str | None) -> None:
    """The call keeps its last failure; the refusal is why it was not repaired."""
    reason = str(outcome.refusal.reason) if outcome.refusal else outcome.code
    log.warning(
        "repair.refused",
        **_of_call(view),
        trace_id=trace_id,
        attempts=view.attempt,
        cost=usd(view.posted_nano_usd),
        reason=reason,
    )


def say_cancelled(view: CallView) -> None:
    """Write the line of a call that was cancelled now. Why is in the ledger: an operator's words are in no line."""
    log.info(
        "call.cancelled",
        **_of_call(view),
        attempts=view.attempt,
        cost=usd(view.posted_nano_usd),
    )


def say_bill(assessment: Assessment, view: CallView, attempt: AttemptView) -> None:
    """Write what is odd about a bill, if anything is."""
    cost, hold = assessment.priced.nano_usd, attempt.hold_nano_usd
    fields = {
        "org_id": view.org_id,
        "call_type": view.call_type,
        "call_id": str(view.key.call_id),
        "attempt_id": str(attempt.attempt_id),
        "provider": view.provider,
        "model": view.model,
        "trace_id": attempt.trace_id,
        "cost": usd(cost),
        "price_source": assessment.priced.price_source,
    }
    if assessment.anomalies:
        anomalies = [anomaly.value for anomaly in assessment.anomalies]
        log.warning("bill.questioned", anomalies=anomalies, **fields)
    if cost > hold:
        log.error("cost.exceeded_hold", hold=usd(hold), **fields)


def say_not_classified(view: CallView, attempt: AttemptView, reason: str) -> None:
    """Write that an attempt cannot be read."""
    log.error(
        "attempt.not_classified",
        org_id=view.org_id,
        call_id=str(view.key.call_id),
        attempt_id=str(attempt.attempt_id),
        trace_id=attempt.trace_id,
        cost=usd(attempt.hold_nano_usd),
        reason=reason,
    )


def say_claim_refused(view: CallView, reason: str) -> None:
    """Write that the ledger refused a claim."""
    call_id = str(view.key.call_id)
    log.error("claim.refused", org_id=view.org_id, call_id=call_id, reason=reason)


def say_settlement_refused(facts: AttemptFacts, reason: str) -> None:
    """Write that the ledger refused a settlement."""
    log.error(
        "settlement.refused",
        org_id=facts.org_id,
        call_id=str(facts.key.call_id),
        attempt_id=facts.attempt_id,
        trace_id=facts.trace_id,
        reason=reason,
    )


def say_breaker(change: BreakerChange) -> None:
    """Write that a breaker opened or closed."""
    where = {
        "provider": change.provider,
        "model": change.model,
        "credential": change.credential,
        "org_id": change.org_id,
    }
    if change.is_open:
        log.error("breaker.opened", **where, reason=change.reason)
    else:
        log.warning("breaker.closed", **where)


def _say_succeeded(facts: AttemptFacts, settle: Settle) -> None:
    usage = settle.usage
    log.info(
        "call.succeeded",
        **_of_attempt(facts),
        attempts=facts.attempt,
        kind=facts.kind.value,
        latency_ms=facts.latency_ms,
        input_tokens=usage and usage.input_tokens,
        output_tokens=usage and usage.output_tokens,
        cost=usd(facts.posted_before_nano_usd + settle.posted_nano_usd),
    )


def _say_late(facts: AttemptFacts, settle: Settle) -> None:
    log.info(
        "late_answer.posted",
        **_of_attempt(facts),
        cost=usd(settle.posted_nano_usd),
    )


def _say_died(facts: AttemptFacts, settle: Settle) -> None:
    log.error(
        "call.died",
        **_of_failure(facts, settle),
        cost=usd(facts.posted_before_nano_usd + settle.posted_nano_usd),
    )


def _say_failed(facts: AttemptFacts, settle: Settle, settled: Settled) -> None:
    log.warning(
        "attempt.failed",
        **_of_failure(facts, settle),
        cost=usd(settle.posted_nano_usd),
        call_state=settled.state.value,
        again_in_s=settle.due_in_s,
    )


def _of_call(view: CallView) -> dict[str, Any]:
    return {
        "org_id": view.org_id,
        "call_type": view.call_type,
        "call_id": str(view.key.call_id),
        "generation": view.key.generation,
        "provider": view.provider,
        "model": view.model,
    }


def _of_attempt(facts: AttemptFacts) -> dict[str, Any]:
    return {
        "org_id": facts.org_id,
        "call_type": facts.call_type,
        "call_id": str(facts.key.call_id),
        "generation": facts.key.generation,
        "attempt_id": facts.attempt_id,
        "provider": facts.provider,
        "model": facts.model,
        "trace_id": facts.trace_id,
    }


def _of_failure(facts: AttemptFacts, settle: Settle) -> dict[str, Any]:
    assert settle.error is not None, "an attempt that did not succeed has an error"
    failure = Failure.from_json(settle.error)
    return {
        **_of_attempt(facts),
        "credential": facts.credential,
        "attempts": facts.attempt,
        "kind": facts.kind.value,
        "latency_ms": facts.latency_ms,
        "reason": failure.code,
        "cause": cause_of(failure),
        "status": failure.status,
        "provider_code": failure.provider_code,
        "billing": failure.billing.value,
        "todo": remedy_of(
            failure.code,
            Concerns(facts.provider, facts.model, facts.credential, settle.error_fingerprint or ""),
            is_unknown=failure.billing is Billing.UNKNOWN,
        ),
    }
