"""`callgate.sweep`: pass through the call queue, and publish again the calls whose message was lost."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from callgate.adapters.broker.app import SWEEP_TASK
from worker.celery_ext.pool import AsyncTask
from worker.celery_ext.request import TaskIdentity, UntrustedRequest
from worker.runtime import runtime_of

CLAIMS_MAX_S = 30.0
"""How long a sweep waits for the calls that were delivered before it; then it gives up in favour of a later one."""


class Sweep(AsyncTask):
    """
    Publishes calls whose message was lost.

    A sweep passes through the queue behind all messages that were published before `sent_at`. When it arrives, every
    call that was queued before `sent_at` and is still queued has lost its message.
    """

    name = SWEEP_TASK
    ignore_result = True
    Request = UntrustedRequest
    publishes_callbacks = False
    send_events = False

    def check(self, sent_at: str) -> None:
        """Check that it is a time with a time zone."""
        if datetime.fromisoformat(sent_at).tzinfo is None:
            raise ValueError("a time without a time zone")

    def identify(self, args: Any, kwargs: Any) -> TaskIdentity:
        """Return the time it was sent, in our own spelling."""
        try:
            given: list[Any] = [*args, *kwargs.values()]
            sent_at = datetime.fromisoformat(given[0]).isoformat()
        except (TypeError, ValueError, IndexError):
            return TaskIdentity.unknown()
        return TaskIdentity(f"sweep.{sent_at}", (sent_at,))

    async def arun(self, request: Mapping[str, Any], sent_at: str) -> int:
        """Publish the lost calls; return their number."""
        runtime = runtime_of(self.app)
        if not await runtime.llm.wait_for_inflight_claims(CLAIMS_MAX_S):
            return 0
        return await asyncio.to_thread(runtime.recovery.sweep, datetime.fromisoformat(sent_at))
