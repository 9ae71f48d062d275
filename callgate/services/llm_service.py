"""Execute one call: read it, claim it, send its one request, keep the answer, have it settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from callgate.domain import metrics
from callgate.domain.calls import LIGHT_MAX_BYTES, AttemptRef, CallKey, CallState, CallView
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import (
    Locked,
    NotClaimed,
    Refused,
    Reject,
    Reserved,
    ReserveOutcome,
    Unstorable,
)
from callgate.domain.metric_ports import NO_METER, Meter
from callgate.domain.ports import ClockPort
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.domain.retry import SUPERSEDED_BEFORE_SEND
from callgate.event_log import event_log
from callgate.services import call_lines
from callgate.services.claims import Claims, SendPermit
from callgate.services.delivery_result import DeliveryResult
from callgate.services.in_flight_claims import InFlightClaims
from callgate.services.large_requests import LargeRequests
from callgate.services.quarantine import Quarantine
from callgate.services.repairs import Repairs
from callgate.services.reservations import Reservations, error_json
from callgate.services.retrying_ledger import RetryingLedger
from callgate.services.sending import AnswerRecorder, Sender
from callgate.services.settle_task_publisher import SettleTaskPublisher
from callgate.services.tracing import NO_TRACING, CallSpan, Tracing

log = event_log(__name__)

CLAIM_REFUSED = error_json("claim_refused", "the ledger cannot store a claim of this call")


class LLMService:
    """Runs calls. One instance per process; `execute` runs a thousand times at once."""

    def __init__(
        self,
        *,
        ledger: RetryingLedger,
        reservations: Reservations,
        claims: Claims,
        sender: Sender,
        recorder: AnswerRecorder,
        settle_tasks: SettleTaskPublisher,
        repairs: Repairs,
        large_requests: LargeRequests,
        quarantine: Quarantine | None,
        clock: ClockPort,
        meter: Meter = NO_METER,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """
        Compose the service; `llm_composition` does that from the ports.

        Args:
            quarantine: None runs quarantined calls here. Only a process that runs one call at a time should do that.
        """
        self._ledger = ledger
        self._reservations = reservations
        self._claims = claims
        self._sender = sender
        self._recorder = recorder
        self._settle_tasks = settle_tasks
        self._repairs = repairs
        self._large_requests = large_requests
        self._quarantine = quarantine
        self._clock = clock
        self._meter = meter
        self._tracing = tracing
        self._in_flight = InFlightClaims(clock)

    async def wait_for_inflight_claims(self, give_up_after_s: float) -> bool:
        """Wait until every delivery that is here has tried to claim its call; see `InFlightClaims.wait`."""
        return await self._in_flight.wait(give_up_after_s)

    async def execute(self, key: CallKey) -> DeliveryResult:
        """Run one call as far as this delivery of its task can."""
        with self._in_flight.arrive() as claimed, self._tracing.call() as span:
            try:
                result = await self._execute(key, claimed, span)
            except LedgerUnavailable as exc:
                log.warning("call.ledger_unavailable", call_id=str(key.call_id), reason=str(exc))
                result = DeliveryResult.LEDGER_UNAVAILABLE
            span.ended(result)
            return result

    async def _execute(
        self, key: CallKey, claimed: Callable[[], None], span: CallSpan
    ) -> DeliveryResult:
        view = await self._ledger.read(key)
        if view is None or view.state is not CallState.QUEUED:
            return DeliveryResult.NOT_CLAIMED
        span.found(view)
        if view.is_quarantined and self._quarantine is not None:
            # It may wait for minutes, and sweeps need not wait for it.
            claimed()
            return await self._quarantine.run(view)
        answer_bytes = self._repairs.answer_bytes(view)
        is_light = view.request_bytes + answer_bytes <= LIGHT_MAX_BYTES
        if not view.is_request_left_behind and (is_light or not answer_bytes):
            return await self._run(view, claimed)
        with self._large_requests.room(view, answer_bytes) as has_room:
            if not has_room:
                await self._ledger.reserve(self._large_requests.defer(view))
                return DeliveryResult.DEFERRED
            # No variable here may keep the request: it would stay in memory until the answer comes.
            return await self._run(await self._ledger.read_whole(key), claimed)

    async def _run(self, view: CallView | None, claimed: Callable[[], None]) -> DeliveryResult:
        """Claim a call and make its request, unless another delivery does."""
        if view is None:
            return DeliveryResult.NOT_CLAIMED
        key, deadline_s = view.key, self._reservations.deadline_s(view.call_type)
        broken = await self._repairs.broken(view)
        prepared = await self._reservations.prepare(view, self._claims.new_id(), broken)
        # The view that is kept for the log has no request: it would stay in memory until the answer comes.
        view = replace(view, request=None)
        del broken
        if isinstance(prepared, Reject):
            outcome = await self._reject(view, prepared)
            claimed()
            call_lines.say_refused(view, outcome)
            return _result_of(outcome)
        outcome, permit = await self._claims.claim(prepared.reserve, deadline_s)
        if isinstance(outcome, Unstorable):
            call_lines.say_claim_refused(view, outcome.why)
            outcome = await self._ledger.reserve(Reject(key, CLAIM_REFUSED))
        claimed()
        call_lines.say_refused(view, outcome, prepared.request.trace_id)
        del view
        if isinstance(outcome, Reserved):
            await self._send(prepared.for_kind(outcome.kind), outcome, permit)
        elif isinstance(outcome, NotClaimed) and outcome.superseded_attempt is not None:
            await self._finish(outcome.superseded_attempt, SUPERSEDED_BEFORE_SEND, 0)
        return _result_of(outcome)

    async def _reject(self, view: CallView, reject: Reject) -> ReserveOutcome:
        outcome = await self._ledger.reserve(reject)
        if isinstance(outcome, Unstorable):
            call_lines.say_claim_refused(view, outcome.why)
            outcome = await self._ledger.reserve(Reject(reject.key, CLAIM_REFUSED))
        return outcome

    async def _send(self, request: LLMRequest, claim: Reserved, permit: SendPermit) -> None:
        started = self._clock.monotonic()
        with self._tracing.request(request, claim) as span:
            answer = await self._sender.send(request, claim.ref, permit)
            span.answered(answer)
        latency_s = self._clock.monotonic() - started
        outcome = "reply" if isinstance(answer, ProviderReply) else "failure"
        names = request.provider, request.model, outcome
        self._meter.observe(metrics.PROVIDER_LATENCY, latency_s, *names)
        await self._finish(claim.ref, answer, round(latency_s * 1000))

    async def _finish(
        self, ref: AttemptRef, answer: ProviderReply | Failure, latency_ms: int
    ) -> None:
        """Record first: a settle task without a recorded answer would find nothing to settle."""
        await self._recorder.record(ref, answer, latency_ms)
        if self._tracing.is_on:
            ref = replace(ref, traceparent=self._tracing.current())
        await self._settle_tasks.publish(ref)


def _result_of(outcome: ReserveOutcome) -> DeliveryResult:
    match outcome:
        case Reserved():
            return DeliveryResult.ANSWERED
        case Refused():
            return DeliveryResult.REFUSED
        case Locked():
            return DeliveryResult.LOCKED
        case _:
            return DeliveryResult.NOT_CLAIMED
