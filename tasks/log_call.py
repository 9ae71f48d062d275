"""`callgate.log_call`: settle attempts, and deliver the links of calls that have ended."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from callgate.adapters.broker.app import LOG_TASK
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.reports import UnprocessableMessage
from callgate.domain.trace_context import HEADER
from worker.celery_ext.batches import BatchMessage, BatchTask
from worker.celery_ext.body_result import BodyResult
from worker.celery_ext.request import TaskIdentity, UntrustedRequest
from worker.runtime import runtime_of


class CallIsDead(Exception):
    """The call has become a dead letter. Its log task succeeded, and shows as failed in Flower."""


class LogCall(BatchTask):
    """Settles the attempts that a batch of messages identifies; without the ledger the messages stay unacknowledged."""

    name = LOG_TASK
    throws = (CallIsDead,)
    ignore_result = True
    Request = UntrustedRequest
    publishes_callbacks = False

    def identify(self, args: Any, kwargs: Any) -> TaskIdentity:
        """Return the attempt, as the child of its call."""
        if (ref := _ref(args)) is None:
            return TaskIdentity.unknown()
        key, attempt_id = ref.key, str(ref.attempt_id)
        return TaskIdentity(attempt_id, (str(key.call_id), key.generation, attempt_id), key.task_id)

    def run_batch(self, messages: Sequence[BatchMessage]) -> Sequence[BodyResult]:
        """Return the result of each attempt (shown in Flower); a message that identifies none is unprocessable."""
        runtime = runtime_of(self.app)
        refs = [_ref(message.args, message.request.get(HEADER)) for message in messages]
        settled = runtime.call_logger.settle([ref for ref in refs if ref is not None])
        states = {s.ref: s.state for s in settled}
        for message, ref in zip(messages, refs, strict=True):
            if ref is None:
                reason = "a log task that identifies no attempt"
                raw = repr(message.args).encode()[:1_000]
                runtime.operations.keep_unprocessable(UnprocessableMessage(LOG_TASK, reason, raw))
        return [_body_result(ref, states) for ref in refs]

    def run_undecodable(self, message: Any, error: Exception) -> None:
        """Store a message whose arguments cannot be read."""
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        unprocessable = UnprocessableMessage(
            LOG_TASK, f"unreadable arguments: {type(error).__name__}", body[:65_536]
        )
        runtime_of(self.app).operations.keep_unprocessable(unprocessable)


def _body_result(ref: AttemptRef | None, states: Mapping[AttemptRef, CallState]) -> BodyResult:
    if ref is None:
        return BodyResult("unprocessable")
    if ref not in states:
        return BodyResult("already settled, locked, or left to recovery")
    if states[ref] is CallState.DEAD:
        return BodyResult(error=CallIsDead(f"call {ref.key.task_id} is a dead letter"))
    return BodyResult("open" if states[ref].is_open else states[ref].value)


def _ref(args: Any, traceparent: str | None = None) -> AttemptRef | None:
    try:
        call_id, generation, attempt_id = args
        return AttemptRef(CallKey.parse(call_id, generation), UUID(attempt_id), traceparent)
    except (TypeError, ValueError, AttributeError):
        return None
