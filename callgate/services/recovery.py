"""
Move every due call on, so that each call ends.

Every worker runs this; none is special. It takes retries and budget waits whose time has come, attempts whose worker
was lost, answers that were not settled, calls that were locked when this process wanted to claim them, and, after
a sweep, calls whose message was lost. If one of these fails, the others go on. Links are delivered by
`callgate.services.delivery`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from callgate.domain import metrics
from callgate.domain.call_order import Lane
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable, RowRefused
from callgate.domain.ledger import Due, DueBatch, DueKind, Locked, Reaper, Requeue
from callgate.domain.metric_ports import NO_METER, Meter
from callgate.domain.ports import ClockPort, LeasePort, LedgerPort, QueuePort
from callgate.event_log import event_log
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.skipped_rows import SkippedRows

T = TypeVar("T")
log = event_log(__name__)

DUE_BATCH_MAX = 200
SWEEP_BATCHES_MAX = 50
"""A sweep republishes ten thousand calls at most; the next sweep comes seconds later."""

LOCKED = json.dumps({"code": "locked", "message": "it was locked when a worker wanted to claim it"})


class RecoveryService:
    """Takes due calls and lost messages; one instance per process."""

    def __init__(
        self,
        *,
        ledger: LedgerPort,
        leases: LeasePort,
        worker_id: str,
        queue: QueuePort,
        ai_call_logger: AICallLogger,
        clock: ClockPort,
        grace_s: float,
        sweep_min_age_s: float,
        unclaimed: SkippedRows[CallKey],
        unsettled: SkippedRows[AttemptRef],
        sweeps_between: Callable[[], int] = lambda: 0,
        meter: Meter = NO_METER,
    ) -> None:
        """
        Compose the service.

        Args:
            worker_id: The process under whose lease others' leases and attempts are expired.
            grace_s: For how long the ledger must have answered this process, and its lease must have been stable,
                before it expires attempts of others. During an outage no worker could record, so nothing is lost then.
            sweep_min_age_s: How much older than a sweep a queued call must be to count as lost.
            unclaimed: Calls that were locked when this process wanted to run them.
            unsettled: Answered attempts whose calls were locked.
            sweeps_between: How many empty sweeps to publish before the lost calls. A broker serves its consumers in
                turn. Beside a foreign consumer, and without a number that varies, each sweep would reach us and the one
                message behind it the foreign consumer.
        """
        self._meter = meter
        self._ledger = ledger
        self._leases = leases
        self._reaper = Reaper(worker_id, grace_s)
        self._queue = queue
        self._ai_call_logger = ai_call_logger
        self._clock = clock
        self._sweep_min_age = timedelta(seconds=sweep_min_age_s)
        self._sweeps_between = sweeps_between
        self._unclaimed = unclaimed
        self._unsettled = unsettled
        self._healthy_since: float | None = None
        self._failing: set[str] = set()

    @property
    def healthy_since(self) -> float | None:
        """Since when the ledger has answered this process, by the process's clock; None while it does not."""
        return self._healthy_since

    def run(self) -> tuple[datetime | None, int]:
        """
        Move on up to `DUE_BATCH_MAX` calls.

        Returns:
            The ledger's time, or None if it is unavailable, and how many calls were taken.
        """
        now = self._clock.monotonic()
        if self._healthy_since is None:
            self._healthy_since = now
        # The ledger checks the lease too: it may execute this statement long after it was sent.
        reaper = (
            self._reaper if now - self._healthy_since >= self._reaper.lease_stable_for_s else None
        )
        if reaper:
            self._attempt("expire", partial(self._expire, reaper))
        batch = self._attempt("due", partial(self._due, reaper))
        if batch is None:
            self._healthy_since = None
            return None, 0
        self._attempt("retry_locked", self._retry_locked)
        return batch.at, len(batch.items)

    def _attempt(self, name: str, step: Callable[[], T]) -> T | None:
        """Run one step; log once that it fails, and once that it works again."""
        try:
            done = step()
        except (LedgerUnavailable, RowRefused) as exc:
            if name not in self._failing:
                log.warning("recovery.step_failed", step=name, reason=str(exc))
            self._failing.add(name)
            return None
        if name in self._failing:
            self._failing.remove(name)
            log.info("recovery.step_recovered", step=name)
        return done

    def _expire(self, reaper: Reaper) -> None:
        if gone := self._leases.expire(reaper.worker_id):
            self._meter.count(metrics.RECOVERIES, "lost_worker", amount=len(gone))
            log.warning("workers.lost", worker_ids=gone)

    def _due(self, reaper: Reaper | None) -> DueBatch:
        batch = self._ledger.take_due(limit=DUE_BATCH_MAX, reaper=reaper)
        self._move(batch.items)
        return batch

    def _retry_locked(self) -> None:
        """Try again what was locked. A call that is free now is due at once."""
        if refs := self._unsettled.take(DUE_BATCH_MAX):
            self._ai_call_logger.settle(refs)
        if keys := self._unclaimed.take(DUE_BATCH_MAX):
            outcomes = self._ledger.reserve([Requeue(key, LOCKED) for key in keys])
            for key, outcome in zip(keys, outcomes, strict=True):
                if isinstance(outcome, Locked):
                    self._unclaimed.add(key)

    def sweep(self, sent_at: datetime) -> int:
        """
        Publish again what was queued before a sweep, which has now come through the queue behind it.

        Returns:
            How many messages had been lost.
        """
        # `sent_at` comes out of a message. A time in the future would make every sweep publish the whole queue.
        now = self._ledger.take_due(limit=0).at
        queued_before = min(sent_at, now) - self._sweep_min_age
        found = 0
        for _ in range(SWEEP_BATCHES_MAX):
            batch = self._ledger.take_lost_messages(
                limit=DUE_BATCH_MAX, queued_before=queued_before
            )
            if lost := [item for item in batch.items if item.kind is DueKind.PUBLISH]:
                for _ in range(0 if found else self._sweeps_between()):
                    self._queue.publish_sweep(now)
                for lane in (Lane.EXPRESS, Lane.CALL):
                    if keys := [item.key for item in lost if item.lane is lane]:
                        self._queue.publish_calls(keys, lane)
            found += len(lost)
            if len(lost) < DUE_BATCH_MAX:
                break
        if found:
            self._meter.count(metrics.RECOVERIES, "lost_message", amount=found)
            log.info("lost_messages.republished", count=found)
        return found

    def _move(self, items: Sequence[Due]) -> None:
        for lane in (Lane.EXPRESS, Lane.CALL):
            self._publish(
                [i.key for i in items if i.kind is DueKind.PUBLISH and i.lane is lane], lane
            )
        if answered := _refs(items, DueKind.SETTLE):
            self._meter.count(metrics.RECOVERIES, "unsettled_answer", amount=len(answered))
            self._ai_call_logger.settle(answered)
        if expired := _refs(items, DueKind.EXPIRED):
            self._meter.count(metrics.RECOVERIES, "expired_attempt", amount=len(expired))
            log.warning("attempts.expired", count=len(expired))
            self._ai_call_logger.settle(expired, are_expired=True)

    def _publish(self, keys: list[CallKey], lane: Lane) -> None:
        try:
            if keys:
                self._queue.publish_calls(keys, lane)
        except BrokerUnavailable as exc:
            # They are queued in the ledger; a sweep finds them when the broker is back.
            log.warning("publication.deferred", count=len(keys), reason=str(exc))


def _keys(items: Sequence[Due], kind: DueKind) -> list[CallKey]:
    return [item.key for item in items if item.kind is kind]


def _refs(items: Sequence[Due], kind: DueKind) -> list[AttemptRef]:
    return [
        AttemptRef(item.key, item.attempt_id)
        for item in items
        if item.kind is kind and item.attempt_id is not None
    ]
