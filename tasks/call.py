"""`callgate.call`: run one call."""

from collections.abc import Mapping
from typing import Any

from callgate.adapters.broker.app import CALL_TASK
from callgate.domain.calls import CallKey
from worker.celery_ext.pool import AsyncTask
from worker.celery_ext.request import TaskIdentity, UntrustedRequest
from worker.runtime import runtime_of


class Call(AsyncTask):
    """Executes the call that a message identifies. A second message of the same call claims nothing."""

    name = CALL_TASK
    ignore_result = True
    Request = UntrustedRequest
    publishes_callbacks = False

    def check(self, call_id: object, generation: object) -> None:
        """Check that the arguments identify a call."""
        CallKey.parse(call_id, generation)

    def identify(self, args: Any, kwargs: Any) -> TaskIdentity:
        """Return the call, under its own task id."""
        try:
            key = CallKey.parse(
                **dict(zip(("call_id", "generation"), args, strict=False), **kwargs)
            )
        except (TypeError, ValueError):
            return TaskIdentity.unknown()
        return TaskIdentity(key.task_id, (str(key.call_id), key.generation))

    async def arun(self, request: Mapping[str, Any], call_id: str, generation: int) -> str:
        """Return the delivery result (shown in Flower)."""
        key = CallKey.parse(call_id, generation)
        return (await runtime_of(self.app).llm.execute(key)).value
