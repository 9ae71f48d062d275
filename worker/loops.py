"""
The background loops of a worker: recovery, delivery of links, retention, provider limits, figures for metrics, alerts,
redrives, and the search for foreign consumers.

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
from callgate.services.figure_reader import FigureReader
from callgate.services.fingerprints import FingerprintKeeper
from callgate.services.limit_keeper import LimitKeeper
from callgate.services.recovery import RecoveryService
from callgate.services.retention import RetentionService
from callgate.services.sums import SumsService
from config.settings import WorkerOptions
from worker.alerts import AlertLoop
from worker.metrics.figure_loop import keep_figures
from worker.redrives import RedriveLoop
from worker.wakeable_sleep import WakeableSleep

log = structlog.get_logger(__name__)

CONSUMERS_INTERVAL_S = 60.0
"""Between two searches for foreign consumers."""
FINGERPRINT_INTERVAL_S = 1.0
"""Between two looks whether the lease is a new one."""
FOLD_INTERVAL_S = 15.0
"""Between two runs that move deltas into the sums. Reports read both, so it only bounds how many deltas there are."""
MORE_SUMS_INTERVAL_S = 0.5
"""The same while days of before an upgrade are summed up."""


@dataclass(frozen=True, slots=True)
class SharedLoops:
    """The loops, and the services that they call."""

    options: WorkerOptions
    app: Celery
    queue: QueuePort
    recovery: RecoveryService
    delivery: DeliveryService
    retention: RetentionService
    sums: SumsService
    limits: LimitKeeper
    figures: FigureReader | None
    """None: nobody asks this process for metrics."""
    fingerprints: FingerprintKeeper
    alerts: AlertLoop
    redrives: RedriveLoop
    recovery_pause: WakeableSleep
    """The pause of the recovery loop; freed headroom ends it early."""

    def coroutines(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return one coroutine per loop; each runs until it is cancelled."""
        coroutines = (
            self._recover(),
            self._deliver_links(),
            self._retain(),
            self._fold_sums(),
            self._keep_limits(),
            self._keep_fingerprint(),
            self.alerts.run(),
            self.redrives.run(),
            self._search_foreign_consumers(),
        )
        if self.figures is None:
            return coroutines
        return (*coroutines, keep_figures(self.figures, self.options.metrics_interval_s))

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

    async def _deliver_links(self) -> None:
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
                # A month can be dropped only when its sums are proven.
                await asyncio.to_thread(self.sums.prove)
                await asyncio.to_thread(self.retention.run)
            except LedgerUnavailable as exc:
                log.warning("retention.ledger_unavailable", reason=str(exc))
            except Exception:
                # No call depends on retention. The next run finds what this one left.
                log.exception("retention.failed")
            await asyncio.sleep(_jittered(self.options.maintenance_interval_s))

    async def _fold_sums(self) -> None:
        """Move what was settled into the sums."""
        while True:
            has_more = False
            try:
                has_more = await asyncio.to_thread(self.sums.fold)
            except LedgerUnavailable as exc:
                log.warning("sums.ledger_unavailable", reason=str(exc))
            except Exception:
                # Deltas count as they are: reports only get slower until a later run folds them.
                log.exception("sums.loop_failed")
            await asyncio.sleep(_jittered(MORE_SUMS_INTERVAL_S if has_more else FOLD_INTERVAL_S))

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

    async def _keep_fingerprint(self) -> None:
        """Publish what this process is made of with each lease, and look who differs."""
        while True:
            try:
                await asyncio.to_thread(self.fingerprints.run)
            except LedgerUnavailable as exc:
                log.warning("fingerprint.ledger_unavailable", reason=str(exc))
            except Exception:
                # No call depends on it. The next run publishes it.
                log.exception("fingerprint.failed")
            await asyncio.sleep(_jittered(FINGERPRINT_INTERVAL_S))

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
