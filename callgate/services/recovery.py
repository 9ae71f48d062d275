"""
Move on whatever is due: the one liveness rule.

Every worker runs this, none is special: retries and budget waits whose time has come, attempts whose worker vanished
(its lease or their deadline ran out), answers nobody settled, what was locked when this process wanted it, and (behind
a sweep) calls whose message was lost. Each of these may fail without stopping the others. Links are delivered by
themselves; see `callgate.services.delivery`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog

from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable, RowRefused
from callgate.domain.ledger import Due, DueBatch, DueKind, Locked, Reaper, Requeue
from callgate.domain.ports import ClockPort, LeasePort, LedgerPort, QueuePort
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.skipped_rows import SkippedRows

T = TypeVar("T")
log = structlog.get_logger(__name__)

DUE_BATCH_MAX = 200
SWEEP_BATCHES_MAX = 50
"""Ten thousand calls: after a wipe each sweep brings so many back, and the next one, seconds later, the next."""

LOCKED = json.dumps({"code": "locked", "message": "somebody held it when it was to be claimed"})


class RecoveryService:
    """Runs due queries; one instance per process."""

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
    ) -> None:
        """
        Compose the service.

        Args:
            worker_id: Under whose lease this process judges the leases and attempts of others.
            grace_s: How long this process's own database access must have been healthy, and its lease steady, before it
                calls anybody else's attempt lost: during an outage nobody could record, so nothing may become unknown.
            sweep_min_age_s: How much older than a sweep a queued call must be to count as lost.
            unclaimed: Calls that this process found locked when it was to run them.
            unsettled: Answered attempts whose calls it found locked.
            sweeps_between: How many sweeps, which find nothing, to send ahead of what was lost. Brokers serve consumers
                in turn: beside one that is not ours, and without a number that varies, each sweep would come to us and
                the one message that follows it to the other.
        """
        self._ledger = ledger
        self._leases = leases
        self._reaper = Reaper(worker_id, grace_s)
        self._queue = queue
        self._ai_call_logger = ai_call_logger
        self._clock = clock
        self._sweep_slack = timedelta(seconds=sweep_min_age_s)
        self._sweeps_between = sweeps_between
        self._unclaimed = unclaimed
        self._unsettled = unsettled
        self._healthy_since: float | None = None
        self._failing: set[str] = set()

    @property
    def healthy_since(self) -> float | None:
        """Since when the ledger has answered this process, by its clock; None while it does not."""
        return self._healthy_since

    def run(self) -> tuple[datetime | None, int]:
        """
        Move on up to `DUE_BATCH_MAX` calls.

        Returns:
            The ledger's time, or None if it is away, and how many calls were taken.
        """
        now = self._clock.monotonic()
        if self._healthy_since is None:
            self._healthy_since = now
        # The ledger asks for the lease as well: it may execute this long after it was sent.
        reaper = (
            self._reaper if now - self._healthy_since >= self._reaper.lease_stable_for_s else None
        )
        if reaper:
            self._did("expire", partial(self._expire, reaper))
        batch = self._did("due", partial(self._due, reaper))
        if batch is None:
            self._healthy_since = None
            return None, 0
        self._did("come_back", self._come_back)
        return batch.at, len(batch.items)

    def _did(self, name: str, step: Callable[[], T]) -> T | None:
        """Run one step; say once that it fails, and once that it goes on."""
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
            log.warning("workers.lost", worker_ids=gone)

    def _due(self, reaper: Reaper | None) -> DueBatch:
        batch = self._ledger.take_due(limit=DUE_BATCH_MAX, reaper=reaper)
        self._move(batch.items)
        return batch

    def _come_back(self) -> None:
        """Try again what was locked. A call that is free is due at once, and free of suspicion: it was looked into."""
        if refs := self._unsettled.take(DUE_BATCH_MAX):
            self._ai_call_logger.settle(refs)
        if keys := self._unclaimed.take(DUE_BATCH_MAX):
            outcomes = self._ledger.reserve([Requeue(key, LOCKED) for key in keys])
            for key, outcome in zip(keys, outcomes, strict=True):
                if isinstance(outcome, Locked):
                    self._unclaimed.add(key)

    def sweep(self, sent_at: datetime) -> int:
        """
        Publish again what was queued before a sweep that has just come through the queue behind it.

        Returns:
            How many messages had been lost.
        """
        # `sent_at` comes out of a message. One from the future would have every sweep publish the whole queue again.
        now = self._ledger.take_due(limit=0).at
        queued_before = min(sent_at, now) - self._sweep_slack
        found = 0
        for _ in range(SWEEP_BATCHES_MAX):
            batch = self._ledger.take_lost_messages(
                limit=DUE_BATCH_MAX, queued_before=queued_before
            )
            if lost := _keys(batch.items, DueKind.PUBLISH):
                for _ in range(0 if found else self._sweeps_between()):
                    self._queue.publish_sweep(now)
                self._queue.publish_calls(lost)
            found += len(lost)
            if len(lost) < DUE_BATCH_MAX:
                break
        if found:
            log.info("lost_messages.republished", count=found)
        return found

    def _move(self, items: Sequence[Due]) -> None:
        self._publish(_keys(items, DueKind.PUBLISH))
        if answered := _refs(items, DueKind.SETTLE):
            self._ai_call_logger.settle(answered)
        if expired := _refs(items, DueKind.EXPIRED):
            log.warning("attempts.expired", count=len(expired))
            self._ai_call_logger.settle(expired, are_expired=True)

    def _publish(self, keys: list[CallKey]) -> None:
        try:
            if keys:
                self._queue.publish_calls(keys)
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
