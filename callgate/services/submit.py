"""Accept requests: gates first, then identity, then one statement of the ledger. No money moves here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import uuid4

from callgate.domain import gates, identity
from callgate.domain.bounds import IDEMPOTENCY_KEY_CHARS_MAX
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import IdempotencyMismatch, InvalidRequest, InvalidSchema
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from callgate.domain.ports import (
    CostCalculatorPort,
    LedgerPort,
    SchemaValidatorPort,
    TokenEstimatorPort,
)
from callgate.domain.requests import LLMRequest


class SubmitService:
    """Turns requests into submissions and stores them."""

    def __init__(
        self,
        *,
        ledger: LedgerPort,
        estimator: TokenEstimatorPort,
        costs: CostCalculatorPort,
        validator: SchemaValidatorPort,
        catalogue: Catalogue,
        now: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._estimator = estimator
        self._costs = costs
        self._validator = validator
        self._catalogue = catalogue
        self._now = now

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
        Ask every gate, then compute the call's identity.

        Raises:
            InvalidRequest: A gate said no; nothing was stored.
        """
        _check_idempotency_key(idempotency_key)
        request = gates.with_output_bound(request, self._catalogue)
        bound = gates.check(request, self._catalogue, self._estimator)
        if request.response_schema and (
            why := self._validator.check_schema(request.response_schema)
        ):
            raise InvalidSchema(f"the response schema cannot be used: {why}")
        # Only that a price exists matters here; the hold is priced when it is made.
        self._costs.worst_case(request, bound.tokens, self._now())
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
            input_token_bound=bound.tokens,
            request=stored,
            idempotency_key=idempotency_key,
            link=link,
            force=force,
            inherit_links=inherit_links,
        )

    def store(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """
        Store submissions, in the order given; publish what was created, then `check` the answers.

        Raises:
            LedgerUnavailable: Not known to be accepted; storing the same batch again is safe.
        """
        return self._ledger.submit(batch)

    def check(self, batch: Sequence[NewSubmission], answers: Sequence[Submitted]) -> None:
        """
        Say which submission the ledger refused.

        Raises:
            IdempotencyMismatch, InvalidRequest: One row was refused; the others are stored, and submitting all of them
                again is safe.
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
