"""Accept requests: check them, give each its identity, store all in one statement, publish. No money moves here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import structlog

from callgate.domain import gates, identity
from callgate.domain.bounds import IDEMPOTENCY_KEY_CHARS_MAX
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import (
    BrokerUnavailable,
    IdempotencyMismatch,
    InvalidRequest,
    InvalidSchema,
)
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from callgate.domain.ports import (
    CostCalculatorPort,
    LedgerPort,
    QueuePort,
    SchemaValidatorPort,
    TokenEstimatorPort,
)
from callgate.domain.requests import LLMRequest

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Quote:
    """A request that passed every gate, and the most that one attempt can cost."""

    request: LLMRequest
    """With the output bound of its call type, if it had none."""
    input_token_bound: int
    worst_case_nano_usd: int


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

    def submit(
        self,
        requests: Sequence[LLMRequest],
        *,
        idempotency_key: str | None = None,
        link: str | None = None,
        force: bool = False,
    ) -> list[Submitted]:
        """
        Submit requests, in the order given. If a gate refuses one of them, nothing is stored.

        Raises:
            InvalidRequest: A gate refused a request, or the ledger cannot store one; see `accept`.
            IdempotencyMismatch, LedgerUnavailable: See `accept`.
        """
        return self.accept(
            [
                self.prepare(request, idempotency_key=idempotency_key, link=link, force=force)
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
        priced = self._costs.worst_case(request, bound.tokens, self._now())
        return Quote(request, bound.tokens, priced.nano_usd)

    def prepare(
        self,
        request: LLMRequest,
        *,
        idempotency_key: str | None = None,
        link: str | None = None,
        force: bool = False,
        inherit_links: bool = False,
    ) -> NewSubmission:
        """
        Ask every gate, then compute the call's identity. The hold is priced later, when a worker claims the call.

        Raises:
            InvalidRequest: A gate refused the request; nothing was stored.
        """
        _check_idempotency_key(idempotency_key)
        quote = self.quote(request)
        request = quote.request
        stored = request.model_dump_json().encode()
        gates.check_stored_bytes(stored)
        input_hash = identity.input_hash(request)
        return NewSubmission(
            submission_id=uuid4(),
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
        )

    def accept(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """
        Store prepared submissions, in the order given, and publish the calls that were created.

        Raises:
            IdempotencyMismatch, InvalidRequest: One row was refused. The others are stored and published; submitting
                all of them again is safe.
            LedgerUnavailable: The batch is not known to be stored; submitting it again is safe.
        """
        answers = self._ledger.submit(batch)
        self._publish(answers)
        require_stored(batch, answers)
        return answers

    def _publish(self, answers: Sequence[Submitted]) -> None:
        """Publish new calls. Without a broker they are still accepted: a sweep publishes them later."""
        created = [a.key for a in answers if a.outcome is SubmitOutcome.CREATED]
        if not created:
            return
        try:
            self._queue.publish_calls(created)
        except BrokerUnavailable as exc:
            log.warning("submission.publish_failed", count=len(created), reason=str(exc))


def require_stored(batch: Sequence[NewSubmission], answers: Sequence[Submitted]) -> None:
    """
    Raise if the ledger refused a row of a batch.

    Raises:
        IdempotencyMismatch, InvalidRequest
    """
    for submission, answer in zip(batch, answers, strict=True):
        if answer.outcome is SubmitOutcome.IDEMPOTENCY_MISMATCH:
            raise IdempotencyMismatch(
                f"idempotency key {submission.idempotency_key!r} of org {submission.org_id!r} "
                "was used before, for another request"
            )
        if answer.outcome is SubmitOutcome.UNSTORABLE:
            raise InvalidRequest(f"the ledger cannot store call {submission.call_id}")


def _check_idempotency_key(key: str | None) -> None:
    if key is None:
        return
    if not 1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX or not key.isprintable():
        raise InvalidRequest(
            f"an idempotency key has 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable characters"
        )
