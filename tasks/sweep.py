"""`callgate.sweep`: cross the call queue, and publish again what should have come out of it before."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from callgate.adapters.broker.app import SWEEP_TASK
from worker.celery_ext.pool import AsyncTask
from worker.celery_ext.request import TaskIdentity, UntrustedRequest
from worker.runtime import runtime_of

CLAIMS_MAX_S = 30.0
"""How long a sweep waits for the calls that came out of the queue before it; after that a later sweep will do."""


class Sweep(AsyncTask):
    """
    Publishes calls whose message was lost.

    A sweep was sent behind every message that was published before `sent_at`: whatever is still queued from before
    then has lost its message, however long the queue is.
    """

    name = SWEEP_TASK
    ignore_result = True
    Request = UntrustedRequest
    publishes_callbacks = False
    send_events = False

    def check(self, sent_at: str) -> None:
        """See that it is a moment that can be compared with the ledger's."""
        if datetime.fromisoformat(sent_at).tzinfo is None:
            raise ValueError("a time without a time zone")

    def identify(self, args: Any, kwargs: Any) -> TaskIdentity:
        """The moment it was sent, in our spelling."""
        try:
            said: list[Any] = [*args, *kwargs.values()]
            sent_at = datetime.fromisoformat(said[0]).isoformat()
        except (TypeError, ValueError, IndexError):
            return TaskIdentity.unknown()
        return TaskIdentity(f"sweep.{sent_at}", (sent_at,))

    async def arun(self, request: Mapping[str, Any], sent_at: str) -> int:
        """Count the lost messages."""
        runtime = runtime_of(self.app)
        if not await runtime.llm.wait_for_inflight_claims(CLAIMS_MAX_S):
            return 0
        return await asyncio.to_thread(runtime.recovery.sweep, datetime.fromisoformat(sent_at))
