"""`callgate.log_call`: settle attempts, and tell the submitters of the calls that have ended."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery import Celery
from celery._state import connect_on_app_finalize

from callgate.adapters.celery_broker import LOG_TASK
from callgate.domain.ledger import AttemptRef, CallKey, StrayMessage
from worker.batching import BatchMessage, BatchTask
from worker.outcome import Outcome
from worker.process import services_of
from worker.wake_up import WakeUp


class LogCall(BatchTask):
    """Settles the attempts that a batch of messages names; while the ledger is away, they stay unacknowledged."""

    name = LOG_TASK
    ignore_result = True
    Request = WakeUp

    def run_batch(self, messages: Sequence[BatchMessage]) -> Sequence[Outcome]:
        """Say what each attempt came to, as Flower shows it; a message that names none is a stray."""
        services = services_of(self.app)
        refs = [_ref(message) for message in messages]
        settled = services.logger.settle([ref for ref in refs if ref is not None])
        states = {s.ref: s.state.value for s in settled}
        for message, ref in zip(messages, refs, strict=True):
            if ref is None:
                reason = "a log task that names no attempt"
                raw = repr(message.args).encode()[:1_000]
                services.operations.keep_stray(StrayMessage(LOG_TASK, reason, raw))
        return [Outcome(states.get(ref, "settled before") if ref else "stray") for ref in refs]

    def run_undecodable(self, message: Any, error: Exception) -> None:
        """Keep a message whose arguments cannot be read."""
        body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
        stray = StrayMessage(
            LOG_TASK, f"unreadable arguments: {type(error).__name__}", body[:65_536]
        )
        services_of(self.app).operations.keep_stray(stray)


def _ref(message: BatchMessage) -> AttemptRef | None:
    try:
        call_id, generation, attempt_id = message.args
        return AttemptRef(CallKey.parse(call_id, generation), UUID(attempt_id))
    except (TypeError, ValueError, AttributeError):
        return None


@connect_on_app_finalize
def register(app: Celery) -> None:
    """Add the task to an app."""
    app.register_task(LogCall())
