"""
Named points at which a worker kills itself with SIGKILL, in thin wrappers around the real ports.

Nothing of this is in the product: `compose` puts the wrappers around the adapters of an otherwise ordinary worker.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from celery import Celery
from sqlalchemy import text

from callgate.adapters.broker.app import CALL_TASK
from callgate.adapters.broker.queue import CeleryQueue
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import AttemptRef
from callgate.domain.delivery import Delivery, Published
from callgate.domain.ledger import RecordAnswer, Reserve, Reserved, Settle, Settled
from config.settings import WorkerSettings
from worker.bootstrap import Runtime, bootstrap, providers_of
from worker.celery_ext.redis_transport import Transport

LOCK_SEEN_S_MAX = 0.4
"""How long to wait for a settlement to stand in its lock; below the ledger's lock timeout."""


class Point(StrEnum):
    """Where a worker can be doomed to die, in the order in which a call passes."""

    AFTER_POP = "after_pop"
    """The broker has forgotten the messages, nobody else knows of them, and none is claimed."""
    AFTER_RESERVE = "after_reserve"
    AFTER_RESPONSE = "after_response"
    AFTER_RECORD = "after_record"
    AFTER_LOG_PUBLISH = "after_log_publish"
    INSIDE_SETTLE = "inside_settle"
    """Postgres is in the middle of the statement; it will commit with nobody to tell."""
    BETWEEN_SETTLE_AND_DELIVERY = "between_settle_and_delivery"
    BETWEEN_DELIVERY_AND_MARK = "between_delivery_and_mark"
    """The links are published, but not marked: they will be published again."""


class KillPoint:
    """Kills this process at one point, the n-th time it gets there."""

    def __init__(self, point: Point, passes: int) -> None:
        self._point = point
        self._passes_left = passes
        self._lock = threading.Lock()

    def at(self, point: Point) -> None:
        """Say that the process is at a point; does not return the n-th time."""
        if self.is_near(point):
            os.kill(os.getpid(), signal.SIGKILL)

    def is_near(self, point: Point) -> bool:
        """Count a pass, and say whether it is the fatal one."""
        with self._lock:
            self._passes_left -= point is self._point
            return point is self._point and self._passes_left <= 0


class DoomedLedger:
    """`LedgerPort` with the points around its writes."""

    def __init__(self, ledger: PostgresLedger, session: PostgresSession, doom: KillPoint) -> None:
        self._ledger = ledger
        self._session = session
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def reserve(self, batch: Sequence[Reserve]) -> list[Any]:
        outcomes = self._ledger.reserve(batch)
        if any(isinstance(outcome, Reserved) for outcome in outcomes):
            self._doom.at(Point.AFTER_RESERVE)
        return outcomes

    def record(self, batch: Sequence[RecordAnswer]) -> list[Any]:
        outcomes = self._ledger.record(batch)
        self._doom.at(Point.AFTER_RECORD)
        return outcomes

    def settle(self, batch: Sequence[Settle]) -> list[Any]:
        if batch and self._doom.is_near(Point.INSIDE_SETTLE):
            self._die_inside(batch)
        outcomes = self._ledger.settle(batch)
        if any(isinstance(o, Settled) and o.has_links for o in outcomes):
            self._doom.at(Point.BETWEEN_SETTLE_AND_DELIVERY)
        return outcomes

    def _die_inside(self, batch: Sequence[Settle]) -> None:
        """Hold a lock that the statement needs, so that death surely finds it running."""
        key = batch[0].ref.key
        lock = text("SELECT 1 FROM llm_call WHERE call_id = :id AND generation = :n FOR UPDATE")
        waits = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND query LIKE '%callgate_settle%'"
        )
        with self._session.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            connection.execute(lock, {"id": key.call_id, "n": key.generation})
            threading.Thread(target=self._ledger.settle, args=(batch,), daemon=True).start()
            give_up_at = time.monotonic() + LOCK_SEEN_S_MAX
            while not connection.execute(waits).scalar() and time.monotonic() < give_up_at:
                time.sleep(0.002)
            os.kill(os.getpid(), signal.SIGKILL)


class DoomedQueue:
    """`QueuePort` with the points behind its publishing."""

    def __init__(self, queue: CeleryQueue, doom: KillPoint) -> None:
        self._queue = queue
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        self._queue.publish_settle_tasks(refs)
        self._doom.at(Point.AFTER_LOG_PUBLISH)

    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        done = self._queue.publish_links(deliveries)
        self._doom.at(Point.BETWEEN_DELIVERY_AND_MARK)
        return done


class DoomedProvider:
    """`LLMProviderPort` with the point behind its answer."""

    def __init__(self, provider: Any, doom: KillPoint) -> None:
        self._provider = provider
        self._doom = doom

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def complete(self, *args: Any, **options: Any) -> Any:
        answer = await self._provider.complete(*args, **options)
        self._doom.at(Point.AFTER_RESPONSE)
        return answer


class KillableTransport(Transport):
    """The worker's transport; kombu names it by its path, so the doom is the class's."""

    doom: KillPoint | None = None

    def _deliver(self, message: Any, queue: str) -> None:
        # Not of a sweep, which comes through the same queue: nothing is lost with it.
        if self.doom is not None and message["headers"]["task"] == CALL_TASK:
            self.doom.at(Point.AFTER_POP)
        super()._deliver(message, queue)


def compose(settings: WorkerSettings, app: Celery, doom: KillPoint) -> Runtime:
    """Compose a worker as `bootstrap` does, with the wrappers around its ports."""
    KillableTransport.doom = doom
    app.conf.broker_transport = "tests.chaos.kill_points:DoomedTransport"
    session = PostgresSession(
        settings.database_url.get_secret_value(),
        timeout_s=settings.ledger_timeout_s,
        pool_size=settings.worker.ledger_connections_max,
    )
    providers = providers_of(settings, load_catalogue(settings.catalogue))
    return bootstrap(
        settings,
        app,
        ledger=DoomedLedger(PostgresLedger(session), session, doom),
        queue=DoomedQueue(CeleryQueue(app, timeout_s=settings.broker_timeout_s), doom),
        providers={name: DoomedProvider(provider, doom) for name, provider in providers.items()},
    )
