"""`callgate.call`: run one call."""

from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery._state import connect_on_app_finalize

from callgate.adapters.broker.app import CALL_TASK
from callgate.domain.calls import CallKey
from worker.celery_ext.pool import AsyncTask
from worker.celery_ext.request import Named, UntrustedRequest
from worker.process import services_of


class Call(AsyncTask):
    """Executes the call that a message names; a message that comes twice claims nothing."""

    name = CALL_TASK
    ignore_result = True
    Request = UntrustedRequest
    publishes_callbacks = False

    def check(self, call_id: object, generation: object) -> None:
        """See that they name a call."""
        CallKey.parse(call_id, generation)

    def named(self, args: Any, kwargs: Any) -> Named:
        """The call, by its own task id."""
        try:
            key = CallKey.parse(
                **dict(zip(("call_id", "generation"), args, strict=False), **kwargs)
            )
        except (TypeError, ValueError):
            return Named.nothing()
        return Named(key.task_id, (str(key.call_id), key.generation))

    async def arun(self, request: Mapping[str, Any], call_id: str, generation: int) -> str:
        """Say what this delivery came to, as Flower shows it."""
        key = CallKey.parse(call_id, generation)
        return (await services_of(self.app).llm.execute(key)).value


@connect_on_app_finalize
def register(app: Celery) -> None:
    """Add the task to an app."""
    app.register_task(Call())
