"""Accept requests: check them, give each its identity, store all in one statement, publish. No money moves here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from callgate.domain import gates, identity
from callgate.domain.bounds import IDEMPOTENCY_KEY_CHARS_MAX
from callgate.domain.call_order import Lane, Priority
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import BrokerUnavailable, InvalidRequest, InvalidSchema
from callgate.domain.ledger import NewSubmission, Submitted
from callgate.domain.open_calls import OnBusy
from callgate.domain.ports import (
    CostCalculatorPort,
    LedgerPort,
    QueuePort,
    SchemaValidatorPort,
    TokenEstimatorPort,
)
from callgate.domain.provider import TokenBound
from callgate.domain.repairs import repair_tokens, repairs_possible
from callgate.domain.requests import LLMRequest
from callgate.event_log import event_log
from callgate.services.acceptance import BUSY_TIMEOUT_S, Acceptance
from callgate.services.schema_notices import SchemaNotices

log = event_log(__name__)


@dataclass(frozen=True, slots=True)
class SubmissionOptions:
    """When a call is to be sent. It is no part of the call's identity."""

    priority: Priority = Priority.NORMAL
    start_before: datetime | None = None
    """The call is rejected if it was not sent before; None: it may be sent at any time."""

    def start_within_s(self, now: datetime) -> float | None:
        """
        The seconds that are left, so that the ledger's clock is not compared with this one.

        Raises:
            InvalidRequest: `start_before` has no time zone, or has passed.
        """
        if self.start_before is None:
            return None
        if self.start_before.tzinfo is None:
            raise InvalidRequest("start_before needs a time zone")
        if (left_s := (self.start_before - now).total_seconds()) <= 0:
            raise InvalidRequest("start_before has passed already")
        return left_s


ANY_TIME = SubmissionOptions()


@dataclass(frozen=True, slots=True)
class Quote:
    """A request that passed every gate, and the most that one attempt can cost."""

    request: LLMRequest
    """With the output bound of its call type, if it had none."""
    input_token_bound: int
    worst_case_nano_usd: int
    repair_nano_usd: int
    """The most that a repair of its answer can cost; 0 if there is none."""


class SubmitService:
    """Turns requests into calls."""

    def __init__(
        self,
        *,
        ledger: LedgerPort,
        queue: QueuePort,
        estimator: TokenEstimatorPort,
        costs: CostCalculatorPort,
        validator: SchemaValidatorPort,
        catalogue: Catalogue,
        now: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._estimator = estimator
        self._costs = costs
        self._validator = validator
        self._catalogue = catalogue
        self._now = now
        self._notices = SchemaNotices(catalogue)

    def submit(
        self,
        requests: Sequence[LLMRequest],
        *,
        idempotency_key: str | None = None,
        link: str | None = None,
        force: bool = False,
        options: SubmissionOptions = ANY_TIME,
    ) -> list[Submitted]:
        """
        Submit requests, in the order given. If a gate refuses one of them, nothing is stored.

        Raises:
            InvalidRequest: A gate refused a request, its deadline has passed, or the ledger cannot store it.
            IdempotencyMismatch, OrganisationBusy, OrganisationFrozen, LedgerUnavailable: See `accept`.
        """
        return self.accept(
            [
                self.prepare(
                    request,
                    idempotency_key=idempotency_key,
                    link=link,
                    force=force,
                    options=options,
                )
                for request in requests
            ]
        )

    def quote(self, request: LLMRequest) -> Quote:
        """
        Ask every gate, and price the call as its hold would be priced now.

        Raises:
            InvalidRequest: A gate refused the request.
        """
        request = gates.with_output_bound(request, self._catalogue)
        bound = gates.check(request, self._catalogue, self._estimator)
        if request.response_schema and (
            why := self._validator.check_schema(request.response_schema)
        ):
            raise InvalidSchema(f"the response schema cannot be used: {why}")
        self._notices.log_once(request)
        priced = self._costs.worst_case(request, bound.tokens, self._now())
        return Quote(request, bound.tokens, priced.nano_usd, self._repair_nano_usd(request, bound))

    def _repair_nano_usd(self, request: LLMRequest, bound: TokenBound) -> int:
        policy = self._catalogue.policy(request.call_type)
        if not repairs_possible(request, policy):
            return 0
        tokens = repair_tokens(request, bound.tokens, policy)
        return self._costs.worst_case(request, tokens, self._now()).nano_usd

    def prepare(
        self,
        request: LLMRequest,
        *,
        idempotency_key: str | None = None,
        link: str | None = None,
        force: bool = False,
        inherit_links: bool = False,
        options: SubmissionOptions = ANY_TIME,
        traceparent: str | None = None,
    ) -> NewSubmission:
        """
        Ask every gate, then compute the call's identity. The hold is priced later, when a worker claims the call.

        Args:
            traceparent: The span of the submission.

        Raises:
            InvalidRequest: A gate refused the request; nothing was stored.
        """
        _check_idempotency_key(idempotency_key)
        return self.prepare_quoted(
            self.quote(request),
            idempotency_key=idempotency_key,
            link=link,
            force=force,
            inherit_links=inherit_links,
            options=options,
            traceparent=traceparent,
        )

    def prepare_quoted(
        self,
        quote: Quote,
        *,
        submission_id: UUID | None = None,
        idempotency_key: str | None = None,
        link: str | None = None,
        force: bool = False,
        inherit_links: bool = False,
        options: SubmissionOptions = ANY_TIME,
        traceparent: str | None = None,
    ) -> NewSubmission:
        """
        Compute the identity of a request that has passed the gates.

        Args:
            submission_id: None: a new one.

        Raises:
            InvalidRequest: It is too large to be stored.
        """
        request = quote.request
        stored = request.model_dump_json().encode()
        gates.check_stored_bytes(stored)
        input_hash = identity.input_hash(request)
        return NewSubmission(
            submission_id=submission_id or uuid4(),
            org_id=request.org_id,
            call_id=identity.call_id(request.org_id, input_hash),
            input_hash=input_hash,
            call_type=request.call_type,
            provider=request.provider,
            model=request.model,
            input_token_bound=quote.input_token_bound,
            request=stored,
            idempotency_key=idempotency_key,
            link=link,
            force=force,
            inherit_links=inherit_links,
            priority=options.priority,
            start_within_s=options.start_within_s(self._now()),
            traceparent=traceparent,
        )

    def accept(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """
        Store prepared submissions, in the order given, and publish the calls that were created.

        Raises:
            IdempotencyMismatch, InvalidRequest: One row was refused. The others are stored and published; submitting
                all of them again is safe.
            OrganisationBusy: There was no room for a row. The same holds for the others.
            OrganisationFrozen: Nothing was stored, unless the batch needs several statements.
            LedgerUnavailable: The batch is not known to be stored; submitting it again is safe.
        """
        acceptance = self.acceptance(batch)
        acceptance.step(0.0, 0.0)
        return acceptance.answers

    def acceptance(
        self,
        batch: Sequence[NewSubmission],
        on_busy: OnBusy = OnBusy.RAISE,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Acceptance:
        """Prepared submissions, to be stored step by step while their organisations have too many open calls."""
        return Acceptance(self.store, batch, on_busy, busy_timeout_s)

    def store(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """
        Store prepared submissions as far as the ledger takes them, and publish the calls that were created.

        Raises:
            OrganisationFrozen: As in `accept`.
            LedgerUnavailable: The batch is not known to be stored; submitting it again is safe.
        """
        answers = self._ledger.submit(batch)
        # All of one batch have one span.
        self.publish(answers, next((new.traceparent for new in batch), None))
        return answers

    def publish(self, answers: Sequence[Submitted], traceparent: str | None = None) -> None:
        """Publish queued calls. Without a broker they are still accepted: a sweep publishes them later."""
        for lane in (Lane.EXPRESS, Lane.CALL):
            keys = [a.key for a in answers if a.lane is lane]
            if not keys:
                continue
            try:
                self._queue.publish_calls(keys, lane, traceparent=traceparent)
            except BrokerUnavailable as exc:
                log.warning("submission.publish_failed", count=len(keys), reason=str(exc))


def call_id_of(request: LLMRequest, catalogue: Catalogue) -> UUID:
    """The id that the call of a request has, or would have."""
    bounded = gates.with_output_bound(request, catalogue)
    return identity.call_id(request.org_id, identity.input_hash(bounded))


def _check_idempotency_key(key: str | None) -> None:
    if key is None:
        return
    if not 1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX or not key.isprintable():
        raise InvalidRequest(
            f"an idempotency key has 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable characters"
        )
