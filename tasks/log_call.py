"""`callgate.log_call`: settle one attempt, and tell the submitters of a call that has ended."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from celery import Celery
from celery._state import connect_on_app_finalize

from callgate.adapters.celery_broker import LOG_TASK
from callgate.domain.ledger import AttemptRef, CallKey
from worker.asyncio_pool import AsyncTask
from worker.process import services_of


class LogCall(AsyncTask):
    """Settles the attempt that a message names, together with whatever else waits to be settled."""

    name = LOG_TASK
    ignore_result = True

    async def arun(
        self, request: Mapping[str, Any], call_id: str, generation: int, attempt_id: str
    ) -> str:
        """Say what the attempt came to, as Flower shows it."""
        ref = AttemptRef(CallKey(UUID(call_id), generation), UUID(attempt_id))
        return await services_of(self.app).log(ref)


@connect_on_app_finalize
def register(app: Celery) -> None:
    """Add the task to an app."""
    app.register_task(LogCall())
