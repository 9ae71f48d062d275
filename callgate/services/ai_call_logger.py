"""
Settle attempts: decide what the answer is worth, what it cost, what becomes of its call, and tell the submitters.

The settle task, the due query and a worker without a broker use this service. It may run twice for an attempt, because
the ledger applies a settlement only to an attempt in the expected status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from callgate.domain import safe_codes
from callgate.domain.breaker import Health, health_of
from callgate.domain.calls import (
    AttemptKind,
    AttemptRef,
    AttemptStatus,
    AttemptView,
    Bodies,
    CallState,
    CallView,
)
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import CheckerUnavailable, OutputUnchecked
from callgate.domain.ledger import Locked, Settle, Settled, SettleOutcome, Unstorable
from callgate.domain.metric_ports import NO_METER, Meter
from callgate.domain.ports import CostCalculatorPort, LedgerPort, OutputValidatorPort
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.domain.retry import WORKER_LOST, Dead, Tally, decide
from callgate.event_log import event_log
from callgate.services import call_lines
from callgate.services.call_lines import AttemptFacts
from callgate.services.delivery import DeliveryService
from callgate.services.last_resort import UNSTORABLE_SETTLEMENT, last_resort, unreadable
from callgate.services.output_checks import BATCH_MAX_S, Kept, Unchecked, complaints_max, failure_of
from callgate.services.review import assess, flaw_of
from callgate.services.settlement_counts import count_settled
from callgate.services.tracing import NO_TRACING, SettlementSpans, Tracing

log = event_log(__name__)

LOCKED_PAUSES_S = (0.02, 0.1)
"""Between two tries to settle a locked call. The lock is mostly a submission's that is just joining."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A settlement that is to be written, and what is needed of its attempt then. It keeps no body in memory."""

    settle: Settle
    hold_nano_usd: int
    facts: AttemptFacts

    @classmethod
    def of(cls, settle: Settle, view: CallView, attempt: AttemptView) -> Pending:
        """The settlement of this attempt."""
        return cls(settle, attempt.hold_nano_usd, AttemptFacts.of(view, attempt))


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The result of one attempt."""

    reply: ProviderReply | None
    failure: Failure | None
    """None: it succeeded."""


class AICallLogger:
    """Settles attempts, and tells the submitters of calls that end."""

    def __init__(
        self,
        *,
        ledger: LedgerPort,
        delivery: DeliveryService,
        costs: CostCalculatorPort,
        validator: OutputValidatorPort,
        catalogue: Catalogue,
        jitter: Callable[[], float],
        monotonic: Callable[[], float],
        on_headroom_freed: Callable[[], None],
        sleep: Callable[[float], None],
        on_locked: Callable[[AttemptRef], None],
        meter: Meter = NO_METER,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """
        Compose the service.

        Args:
            monotonic: Seconds from an arbitrary start, for how long a batch checks answers.
            on_headroom_freed: Called when a settlement has made waiting calls due.
            on_locked: Called with an attempt that is not settled because its call is locked. It must be tried again.
        """
        self._meter = meter
        self._tracing = tracing
        self._ledger = ledger
        self._delivery = delivery
        self._costs = costs
        self._validator = validator
        self._catalogue = catalogue
        self._jitter = jitter
        self._monotonic = monotonic
        self._on_headroom_freed = on_headroom_freed
        self._sleep = sleep
        self._on_locked = on_locked

    def settle(self, refs: Sequence[AttemptRef], *, are_expired: bool = False) -> list[Settled]:
        """
        Settle a batch and tell the submitters.

        Attempts without a schema are settled first. Answers are checked for a bounded time, organisations in turn. The
        rest stay answered, and the due query takes them later.

        Args:
            are_expired: The due query took these attempts as expired: they become unknown. Otherwise an attempt that is
                still dispatched is left alone.

        Raises:
            LedgerUnavailable: Settling the same batch again is safe.
        """
        # Attempts of one call are settled oldest first, because the next decision depends on the earlier ones.
        newest_first = sorted(refs, key=lambda ref: ref.attempt_id, reverse=True)
        oldest = {ref.key: ref for ref in newest_first}
        first = [ref for ref in dict.fromkeys(refs) if ref == oldest[ref.key]]
        later = [ref for ref in refs if ref != oldest[ref.key]]
        settled = self._settle_each(first, are_expired)
        return settled + (self.settle(later, are_expired=are_expired) if later else [])

    def _settle_each(self, refs: Sequence[AttemptRef], are_expired: bool) -> list[Settled]:
        """Settle attempts of different calls."""
        spans = self._tracing.settlement(refs)
        settled: list[Settled] = []
        locked: list[Pending] = []
        for settles in self._settlements(refs, are_expired):
            written, held = self._write(settles, spans)
            self._tell_all(written)
            settled += written
            locked += held
        for pause_s in LOCKED_PAUSES_S:
            if locked:
                self._sleep(pause_s)
                late, locked = self._write(locked, spans)
                self._tell_all(late)
                settled += late
        # An expired attempt is left to the due query, which reads it again.
        for pending in () if are_expired else locked:
            self._on_locked(pending.settle.ref)
        return settled

    def _tell_all(self, settled: Sequence[Settled]) -> None:
        """Tell operators, waiting calls and submitters."""
        if any(s.has_freed_waiters for s in settled):
            self._on_headroom_freed()
        for change in {change for s in settled for change in s.breaker_changes}:
            call_lines.say_breaker(change)
        self._delivery.deliver([s.ref.key for s in settled if s.has_links])

    def _write(
        self, settles: list[Pending], spans: SettlementSpans
    ) -> tuple[list[Settled], list[Pending]]:
        """Write settlements. If one is refused, post its hold only. Return those that were locked."""
        done: list[Settled] = []
        locked: list[Pending] = []
        outcome: SettleOutcome
        outcomes = self._ledger.settle([pending.settle for pending in settles])
        for pending, outcome in zip(settles, outcomes, strict=True):
            settle = pending.settle
            for posted_nano_usd in (settle.posted_nano_usd, pending.hold_nano_usd):
                if isinstance(outcome, Unstorable):
                    call_lines.say_settlement_refused(pending.facts, outcome.why)
                    settle = last_resort(settle, UNSTORABLE_SETTLEMENT, posted_nano_usd)
                    (outcome,) = self._ledger.settle([settle])
            if isinstance(outcome, Settled):
                call_lines.say_settled(pending.facts, settle, outcome)
                count_settled(self._meter, pending.facts, settle, outcome)
                spans.settled(pending.facts, settle, outcome)
                done.append(outcome)
            elif isinstance(outcome, Locked):
                locked.append(pending)
        return done, locked

    def _settlements(
        self, refs: Sequence[AttemptRef], are_expired: bool
    ) -> Iterator[list[Pending]]:
        """What to settle at once, then what to settle after a check; each with its hold."""
        plain: list[Pending] = []
        kept = Kept()
        for view in self._ledger.read(refs, Bodies.BOTH):
            if view is None or view.last is None:
                continue
            settlement = self._settlement(view, view.last, are_expired)
            if isinstance(settlement, Unchecked):
                kept.add(settlement)
            elif settlement is not None:
                plain.append(Pending.of(settlement, view, view.last))
        if plain:
            yield plain
        ends_at = self._monotonic() + BATCH_MAX_S
        if kept.unchecked:
            yield self._checked(kept.unchecked, BATCH_MAX_S)
        for ref in kept.over:
            if (left_s := ends_at - self._monotonic()) > 0:
                yield self._checked(self._again(ref), left_s)

    def _checked(self, unchecked: Sequence[Unchecked], within_s: float) -> list[Pending]:
        """What to settle of the answers that could be checked in time."""
        findings = self._validator.check_all([each.answer for each in unchecked], within_s)
        settles = [
            Pending.of(self._check(each, found), each.view, each.attempt)
            for each, found in zip(unchecked, findings, strict=True)
            if not isinstance(found, CheckerUnavailable)
        ]
        if left := len(unchecked) - len(settles):
            log.warning("answer_checks.deferred", count=left)
        return settles

    def _again(self, ref: AttemptRef) -> list[Unchecked]:
        """Read an attempt whose bodies were too large to keep. If it was settled meanwhile, there is nothing to do."""
        (view,) = self._ledger.read([ref], Bodies.BOTH)
        settlement = self._settlement(view, view.last, False) if view and view.last else None
        return [settlement] if isinstance(settlement, Unchecked) else []

    def _check(self, unchecked: Unchecked, found: str | OutputUnchecked | None) -> Settle:
        view, attempt = unchecked.view, unchecked.attempt
        try:
            result = AttemptResult(unchecked.reply, failure_of(found))
            return self._settle_as(view, attempt, result, unchecked.request)
        except Exception as exc:
            return unreadable(view, attempt, exc)

    def _settlement(
        self, view: CallView, attempt: AttemptView, are_expired: bool
    ) -> Settle | Unchecked | None:
        """The settlement of an attempt, if any. An unreadable attempt posts its hold, and its call is dead."""
        if attempt.status is AttemptStatus.DISPATCHED and not are_expired:
            return None
        if attempt.status.is_posted and attempt.status is not AttemptStatus.UNKNOWN:
            return None
        try:
            return self._settle_of(view, attempt)
        except Exception as exc:
            return unreadable(view, attempt, exc)

    def _settle_of(self, view: CallView, attempt: AttemptView) -> Settle | Unchecked:
        # The request is read only if there is a reply to check against it.
        is_needed = view.request is not None and attempt.reply is not None
        request = LLMRequest.from_stored(view.request or b"") if is_needed else None
        result = self._result(view, attempt, request)
        reply = result.reply
        if reply is None or request is None or result.failure is not None:
            return self._settle_as(view, attempt, result, request)
        # An answer that asks for tools comes before the one that has to fit the schema.
        if request.response_schema and not reply.tool_calls:
            policy = self._catalogue.policy(view.call_type)
            return Unchecked(view, attempt, request, reply, complaints_max(view, request, policy))
        return self._settle_as(view, attempt, result, request)

    def _settle_as(
        self,
        view: CallView,
        attempt: AttemptView,
        result: AttemptResult,
        request: LLMRequest | None,
    ) -> Settle:
        assessment = assess(self._costs, view, attempt, result.reply, result.failure, request)
        call_lines.say_bill(assessment, view, attempt)
        settle = Settle(
            ref=AttemptRef(view.key, attempt.attempt_id),
            expected_status=attempt.status,
            status=AttemptStatus.SUCCEEDED,
            posted_nano_usd=assessment.priced.nano_usd,
            next_state=CallState.SUCCEEDED,
            usage=assessment.usage,
            price_source=assessment.priced.price_source,
            service_tier=safe_codes.tier(result.reply.service_tier) if result.reply else None,
            health=Health.ALIVE,
            anomalies=assessment.anomalies,
        )
        if result.failure is None:
            return settle
        return self._failed(settle, result.failure, view, attempt)

    def _failed(
        self, settle: Settle, failure: Failure, view: CallView, attempt: AttemptView
    ) -> Settle:
        health = health_of(failure)
        policy = self._catalogue.policy(view.call_type)
        decision = decide(
            failure,
            _tally(view, attempt, failure),
            policy=policy,
            jitter=self._jitter(),
            key_refused=health is Health.KEY_REFUSED,
            is_limited=health is Health.LIMITED,
        )
        is_unknown = failure.billing is Billing.UNKNOWN
        is_dead = isinstance(decision, Dead)
        return replace(
            settle,
            status=AttemptStatus.UNKNOWN if is_unknown else AttemptStatus.FAILED,
            next_state=CallState.DEAD if is_dead else CallState.WAITING,
            due_in_s=None if isinstance(decision, Dead) else decision.in_s,
            error=failure.to_json(),
            error_fingerprint=failure.fingerprint(view.provider),
            health=health,
            failure_code=failure.code,
            blocked_for_s=min(failure.retry_after_s or 0.0, policy.retry_after_max_s),
        )

    def _result(
        self, view: CallView, attempt: AttemptView, request: LLMRequest | None
    ) -> AttemptResult:
        if attempt.status is AttemptStatus.DISPATCHED:
            return AttemptResult(None, WORKER_LOST)
        reply = ProviderReply.from_json(attempt.reply) if attempt.reply else None
        if attempt.error is not None:
            return AttemptResult(reply, Failure.from_json(attempt.error))
        if reply is None:
            return AttemptResult(None, WORKER_LOST)
        good_endings = self._catalogue.good_endings(view.provider)
        schema = request.response_schema if request else None
        return AttemptResult(reply, flaw_of(reply, good_endings, schema))


def _tally(view: CallView, attempt: AttemptView, failure: Failure) -> Tally:
    """Count the attempts of the call by result, with the one that is being settled."""
    is_probe = attempt.kind is AttemptKind.PROBE
    is_unknown = failure.billing is Billing.UNKNOWN
    is_limited = health_of(failure) is Health.LIMITED
    is_uncounted = (is_probe and failure.billing is Billing.UNBILLED) or is_limited
    return Tally(
        attempts=attempt.attempt - view.uncounted_attempts - is_uncounted,
        worker_losses=view.worker_losses + (failure is WORKER_LOST),
        unknown=view.unknown_attempts + (is_unknown and failure is not WORKER_LOST),
        paid_failures=view.paid_failures + (failure.billing is Billing.BY_USAGE),
        is_probe=is_probe,
    )
