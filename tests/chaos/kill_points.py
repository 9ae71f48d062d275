"""
Named points at which a worker kills itself with SIGKILL, in thin wrappers around the real adapters.

The product has no such code: `compose` wraps the adapters of an otherwise ordinary worker.
"""

from __future__ import annotations

import os
import signal
import threading
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
from callgate.domain.ledger import (
    RecordAnswer,
    ReserveCommand,
    Reserved,
    ReserveOutcome,
    Settle,
    Settled,
)
from config.settings import WorkerSettings
from tests.support.waiting import holds_within
from worker.bootstrap import bootstrap
from worker.celery_ext.redis_transport import Transport
from worker.provider_adapters import providers_of
from worker.runtime import Runtime

LOCK_WAIT_MAX_S = 0.4
"""How long to wait until a settlement waits for its lock; less than the lock timeout of the ledger."""


class Point(StrEnum):
    """The points, in the order in which a call passes them."""

    AFTER_POP = "after_pop"
    """The broker has handed over the messages, and nothing is written yet."""
    AFTER_RESERVE = "after_reserve"
    AFTER_RESPONSE = "after_response"
    AFTER_RECORD = "after_record"
    AFTER_LOG_PUBLISH = "after_log_publish"
    INSIDE_SETTLE = "inside_settle"
    """Postgres executes the statement; it commits although its client is dead."""
    BETWEEN_SETTLE_AND_DELIVERY = "between_settle_and_delivery"
    BETWEEN_DELIVERY_AND_MARK = "between_delivery_and_mark"
    """The links are published, but not marked as delivered: they will be published again."""


class KillPoint:
    """Kills this process at one point, at its n-th pass."""

    def __init__(self, point: Point, passes: int) -> None:
        self._point = point
        self._passes_left = passes
        self._lock = threading.Lock()

    def at(self, point: Point) -> None:
        """Count a pass at a point; kill the process if it is the fatal one."""
        if self.is_fatal_pass(point):
            os.kill(os.getpid(), signal.SIGKILL)

    def is_fatal_pass(self, point: Point) -> bool:
        """Count a pass, and tell whether it is the fatal one."""
        with self._lock:
            self._passes_left -= point is self._point
            return point is self._point and self._passes_left <= 0


class KillableLedger:
    """A `LedgerPort` with the points around its writes."""

    def __init__(
        self, ledger: PostgresLedger, session: PostgresSession, kill_point: KillPoint
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._kill_point = kill_point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def reserve(self, batch: Sequence[ReserveCommand]) -> list[ReserveOutcome]:
        outcomes = self._ledger.reserve(batch)
        if any(isinstance(outcome, Reserved) for outcome in outcomes):
            self._kill_point.at(Point.AFTER_RESERVE)
        return outcomes

    def record(self, batch: Sequence[RecordAnswer]) -> list[Any]:
        outcomes = self._ledger.record(batch)
        self._kill_point.at(Point.AFTER_RECORD)
        return outcomes

    def settle(self, batch: Sequence[Settle]) -> list[Any]:
        if batch and self._kill_point.is_fatal_pass(Point.INSIDE_SETTLE):
            self._die_inside_settle(batch)
        outcomes = self._ledger.settle(batch)
        if any(isinstance(o, Settled) and o.has_links for o in outcomes):
            self._kill_point.at(Point.BETWEEN_SETTLE_AND_DELIVERY)
        return outcomes

    def _die_inside_settle(self, batch: Sequence[Settle]) -> None:
        """Hold a lock that the statement needs, so that it is still running when the process is killed."""
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
            holds_within(LOCK_WAIT_MAX_S, lambda: connection.execute(waits).scalar(), poll_s=0.002)
            os.kill(os.getpid(), signal.SIGKILL)


class KillableQueue:
    """A `QueuePort` with the points after publishing."""

    def __init__(self, queue: CeleryQueue, kill_point: KillPoint) -> None:
        self._queue = queue
        self._kill_point = kill_point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        self._queue.publish_settle_tasks(refs)
        self._kill_point.at(Point.AFTER_LOG_PUBLISH)

    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        done = self._queue.publish_links(deliveries)
        self._kill_point.at(Point.BETWEEN_DELIVERY_AND_MARK)
        return done


class KillableProvider:
    """An `LLMProviderPort` with the point after its answer."""

    def __init__(self, provider: Any, kill_point: KillPoint) -> None:
        self._provider = provider
        self._kill_point = kill_point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def complete(self, *args: Any, **options: Any) -> Any:
        answer = await self._provider.complete(*args, **options)
        self._kill_point.at(Point.AFTER_RESPONSE)
        return answer


class KillableTransport(Transport):
    """The transport of the worker. kombu creates it from a path, so the kill point is a class attribute."""

    kill_point: KillPoint | None = None

    def _deliver(self, message: Any, queue: str) -> None:
        # Not for a sweep, which uses the same queue: a lost sweep does not matter.
        if self.kill_point is not None and message["headers"]["task"] == CALL_TASK:
            self.kill_point.at(Point.AFTER_POP)
        super()._deliver(message, queue)


def compose(settings: WorkerSettings, app: Celery, kill_point: KillPoint) -> Runtime:
    """Compose a worker like `bootstrap`, with wrapped adapters."""
    KillableTransport.kill_point = kill_point
    app.conf.broker_transport = "tests.chaos.kill_points:KillableTransport"
    session = PostgresSession(
        settings.database_url.get_secret_value(),
        timeout_s=settings.ledger_timeout_s,
        pool_size=settings.worker.ledger_connections_max,
    )
    providers = providers_of(settings, load_catalogue(settings.catalogue))
    return bootstrap(
        settings,
        app,
        ledger=KillableLedger(PostgresLedger(session), session, kill_point),
        queue=KillableQueue(CeleryQueue(app, timeout_s=settings.broker_timeout_s), kill_point),
        providers={
            name: KillableProvider(provider, kill_point) for name, provider in providers.items()
        },
    )
