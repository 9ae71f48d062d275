"""
The background loops of a worker: recovery, delivery of links, retention, provider limits, and the search for foreign
consumers.

Every worker runs them on behalf of all workers. Their pauses are jittered, so that workers do not all run at the same
moment. No error ends a loop: a step that fails is logged, and runs again after the pause.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog
from celery import Celery

from callgate.adapters.broker.consumers import consumers
from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable, Unavailable
from callgate.domain.ports import QueuePort
from callgate.services.delivery import DeliveryService
from callgate.services.limit_keeper import LimitKeeper
from callgate.services.recovery import RecoveryService
from callgate.services.retention import RetentionService
from config.settings import WorkerOptions
from worker.wakeable_sleep import WakeableSleep

log = structlog.get_logger(__name__)

CONSUMERS_INTERVAL_S = 60.0
"""Between two searches for foreign consumers."""


@dataclass(frozen=True, slots=True)
class SharedLoops:
    """The loops, and the services that they call."""

    options: WorkerOptions
    app: Celery
    queue: QueuePort
    recovery: RecoveryService
    delivery: DeliveryService
    retention: RetentionService
    limits: LimitKeeper
    recovery_pause: WakeableSleep
    """The pause of the recovery loop; freed headroom ends it early."""

    def coroutines(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return one coroutine per loop; each runs until it is cancelled."""
        return (
            self._recover(),
            self._deliver(),
            self._retain(),
            self._keep_limits(),
            self._search_foreign_consumers(),
        )

    async def _recover(self) -> None:
        """Take due calls, and publish a sweep from time to time."""
        sweep_at = time.monotonic()
        while True:
            try:
                at, taken = await asyncio.to_thread(self.recovery.run)
                if at is not None and time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + self.options.sweep_interval_s
                    await asyncio.to_thread(self.queue.publish_sweep, at)
            except BrokerUnavailable as exc:
                log.warning("sweep.publish_failed", reason=str(exc))
                taken = 0
            except Exception:
                # This loop keeps calls from being lost: an unforeseen error must not end it.
                log.exception("recovery.loop_failed")
                taken = 0
            if not taken:
                await self.recovery_pause.sleep(_jittered(self.options.due_interval_s))

    async def _deliver(self) -> None:
        """Publish the links that were not published when their call ended."""
        while True:
            taken = 0
            try:
                taken = await asyncio.to_thread(self.delivery.run)
            except Unavailable as exc:
                log.warning("links.ledger_unavailable", reason=str(exc))
            except Exception:
                # Submitters wait for their links: an unforeseen error must not end the loop.
                log.exception("delivery.loop_failed")
            if not taken:
                await asyncio.sleep(_jittered(self.options.due_interval_s))

    async def _retain(self) -> None:
        """Apply the retention periods."""
        while True:
            try:
                await asyncio.to_thread(self.retention.run)
            except LedgerUnavailable as exc:
                log.warning("retention.ledger_unavailable", reason=str(exc))
            except Exception:
                # No call depends on retention. The next run finds what this one left.
                log.exception("retention.failed")
            await asyncio.sleep(_jittered(self.options.maintenance_interval_s))

    async def _keep_limits(self) -> None:
        """Publish the limits that are declared, and those that providers name."""
        while True:
            try:
                await asyncio.to_thread(self.limits.run)
            except LedgerUnavailable as exc:
                log.warning("limits.ledger_unavailable", reason=str(exc))
            except Exception:
                # Without limits calls are refused by providers, and wait: an unforeseen error must not end the loop.
                log.exception("limits.loop_failed")
            await asyncio.sleep(_jittered(self.options.due_interval_s))

    async def _search_foreign_consumers(self) -> None:
        """Log the Celery workers that consume callgate's queues and cannot run its tasks."""
        while True:
            try:
                found = await asyncio.to_thread(consumers, self.app)
            except Exception as exc:
                log.warning("consumers.query_failed", reason=type(exc).__name__)
            else:
                for consumer in found:
                    if not consumer.is_ours:
                        log.warning(
                            "foreign_consumer.found",
                            worker=consumer.name,
                            queues=list(consumer.queues),
                        )
            await asyncio.sleep(_jittered(CONSUMERS_INTERVAL_S))


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
