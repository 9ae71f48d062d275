"""Make the one provider request of an attempt, and keep its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from callgate.domain import safe_codes
from callgate.domain.calls import AttemptRef
from callgate.domain.ledger import RecordAnswer, RecordOutcome
from callgate.domain.ports import ClockPort, LLMProviderPort
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.domain.retry import DEADLINE_BEFORE_SEND, LEASE_BEFORE_SEND
from callgate.event_log import event_log
from callgate.services.claims import SendPermit
from callgate.services.learned_limits import LearnedLimits
from callgate.services.retrying_ledger import RetryingLedger

log = event_log(__name__)

UNSTORABLE_REPLY = Failure(
    "reply_not_stored", "the ledger could not store the reply", False, Billing.BY_USAGE
)


class Sender:
    """
    Sends requests under permits.

    Args:
        learned: Where the limits go that responses name. None: they are forgotten.
    """

    def __init__(
        self,
        providers: Mapping[str, LLMProviderPort],
        *,
        lease_epoch: Callable[[], object | None],
        clock: ClockPort,
        learned: LearnedLimits | None = None,
    ) -> None:
        self._providers = providers
        self._lease_epoch = lease_epoch
        self._clock = clock
        self._learned = learned

    async def send(
        self, request: LLMRequest, ref: AttemptRef, permit: SendPermit
    ) -> ProviderReply | Failure:
        """Send the request, unless its deadline has passed or the process's lease has changed since the claim."""
        left_s = permit.deadline - self._clock.monotonic()
        if left_s <= 0:
            return DEADLINE_BEFORE_SEND
        if self._lease_epoch() != permit.lease_epoch:
            return LEASE_BEFORE_SEND
        provider = self._providers[request.provider]
        # Asked before the request is sent: nothing but the answer may come between it and the ledger.
        credential = "" if self._learned is None else provider.credential(request.org_id)
        answer = await provider.complete(request, attempt_id=ref.attempt_id, timeout_s=left_s)
        if self._learned is not None:
            self._learned.note(request.provider, request.model, credential, answer.limits)
        return answer


class AnswerRecorder:
    """Makes answers safe in the ledger before anything else happens to them."""

    def __init__(self, ledger: RetryingLedger) -> None:
        self._ledger = ledger

    async def record(
        self, ref: AttemptRef, answer: ProviderReply | Failure, latency_ms: int
    ) -> None:
        """Keep an answer; of a reply that the ledger cannot store, keep its usage."""
        outcome = await self._ledger.record(record_of(ref, answer, latency_ms))
        if outcome is RecordOutcome.UNSTORABLE and isinstance(answer, ProviderReply):
            call_id = str(ref.key.call_id)
            log.error("reply.refused", call_id=call_id, attempt_id=str(ref.attempt_id))
            usage = answer.without_text().to_json()
            await self._ledger.record(
                RecordAnswer(ref, usage, UNSTORABLE_REPLY.to_json(), latency_ms)
            )


def record_of(ref: AttemptRef, answer: ProviderReply | Failure, latency_ms: int) -> RecordAnswer:
    """The command that keeps an answer."""
    if isinstance(answer, Failure):
        return RecordAnswer(ref, None, answer.to_json(), latency_ms)
    error = answer.failure.to_json() if answer.failure else None
    request_id = safe_codes.request_id(answer.provider_request_id)
    return RecordAnswer(ref, answer.to_json(), error, latency_ms, request_id)
