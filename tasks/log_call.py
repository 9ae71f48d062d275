"""`callgate.log_call`: settle attempts, and tell the submitters of the calls that have ended."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from celery import Celery
from celery._state import connect_on_app_finalize

from callgate.adapters.broker.app import LOG_TASK
from callgate.domain.calls import AttemptRef, CallKey, CallState
from callgate.domain.reports import UnprocessableMessage
from worker.celery_ext.batches import BatchMessage, BatchTask
from worker.celery_ext.body_result import BodyResult
from worker.celery_ext.request import Named, UntrustedRequest
from worker.process import services_of


class CallIsDead(Exception):
    """The call has become a dead letter: its log task did its work, and shows as failed in Flower."""


class LogCall(BatchTask):
    """Settles the attempts that a batch of messages names; while the ledger is away, they stay unacknowledged."""

    name = LOG_TASK
    throws = (CallIsDead,)
    ignore_result = True
    Request = UntrustedRequest
    publishes_callbacks = False

    def named(self, args: Any, kwargs: Any) -> Named:
        """The attempt, as the child of its call."""
        if (ref := _ref(args)) is None:
            return Named.nothing()
        key, attempt_id = ref.key, str(ref.attempt_id)
        return Named(attempt_id, (str(key.call_id), key.generation, attempt_id), key.task_id)

    def run_batch(self, messages: Sequence[BatchMessage]) -> Sequence[BodyResult]:
        """Say what each attempt came to, as Flower shows it; a message that names none is a stray."""
        services = services_of(self.app)
        refs = [_ref(message.args) for message in messages]
        settled = services.ai_call_logger.settle([ref for ref in refs if ref is not None])
        states = {s.ref: s.state for s in settled}
        for message, ref in zip(messages, refs, strict=True):
            if ref is None:
                reason = "a log task that names no attempt"
                raw = repr(message.args).encode()[:1_000]
                services.operations.keep_unprocessable(UnprocessableMessage(LOG_TASK, reason, raw))
        return [_outcome(ref, states) for ref in refs]

    def run_undecodable(self, message: Any, error: Exception) -> None:
        """Keep a message whose arguments cannot be read."""
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        stray = UnprocessableMessage(
            LOG_TASK, f"unreadable arguments: {type(error).__name__}", body[:65_536]
        )
        services_of(self.app).operations.keep_unprocessable(stray)


def _outcome(ref: AttemptRef | None, states: Mapping[AttemptRef, CallState]) -> BodyResult:
    if ref is None:
        return BodyResult("stray")
    if ref not in states:
        return BodyResult("settled before, held by somebody, or left to the due query")
    if states[ref] is CallState.DEAD:
        return BodyResult(error=CallIsDead(f"call {ref.key.task_id} is a dead letter"))
    return BodyResult("to be tried again" if states[ref].is_open else states[ref].value)


def _ref(args: Any) -> AttemptRef | None:
    try:
        call_id, generation, attempt_id = args
        return AttemptRef(CallKey.parse(call_id, generation), UUID(attempt_id))
    except (TypeError, ValueError, AttributeError):
        return None


@connect_on_app_finalize
def register(app: Celery) -> None:
    """Add the task to an app."""
    app.register_task(LogCall())
