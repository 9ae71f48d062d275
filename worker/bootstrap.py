"""
The composition root: settings in, a worker's services out. Real adapters by default, every port replaceable.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import structlog
from celery import Celery

from callgate.adapters.broker.app import build_app
from callgate.adapters.broker.consumers import consumers
from callgate.adapters.broker.queue import CeleryQueue
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.postgres.leases import PostgresLeases
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.retention import PostgresRetention
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.version import VERSION, major_version
from callgate.adapters.providers.openai.openai_adapter import OpenAIAdapter
from callgate.adapters.system_clock import SystemClock
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable, Unavailable
from callgate.domain.operator_ports import OperationsPort, RetentionPort
from callgate.domain.ports import LeasePort, LedgerPort, LLMProviderPort, QueuePort
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.delivery import DeliveryService
from callgate.services.lease import RENEW_AT_SHARE, LeaseService
from callgate.services.llm_composition import compose_llm_service
from callgate.services.llm_service import LLMService
from callgate.services.recovery import RecoveryService
from callgate.services.retention import RetentionService
from callgate.services.retrying_ledger import OutagePolicy
from callgate.services.skipped_rows import SkippedRows
from config.celeryconfig import celery_config
from config.settings import WorkerOptions, WorkerSettings, check_relations
from worker.async_ledger import AsyncLedger
from worker.async_token_estimator import AsyncTokenEstimator
from worker.isolation.executor import FORKSERVER_ARGV, QuarantineExecutor
from worker.isolation.schema_checker import SchemaChecker
from worker.lease_renewer import LeaseRenewer
from worker.request_room import RequestRoom
from worker.wakeable_sleep import WakeableSleep

log = structlog.get_logger(__name__)

CONSUMERS_INTERVAL_S = 60.0
"""Between two questions of one worker for who consumes callgate's queues."""
FOREIGN_CONSUMERS_MAX = 7
"""Beside so many consumers that are not ours a lone call still comes to us after some sweeps."""
MAINTENANCE_TIMEOUT_S = 120.0
"""What summing one month of the log may take; a worker that stops meanwhile waits for it."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the tasks of one worker process call."""

    settings: WorkerSettings
    ledger: LedgerPort
    operations: OperationsPort
    queue: QueuePort
    llm: LLMService
    ai_call_logger: AICallLogger
    due: RecoveryService
    delivery: DeliveryService
    retention: RetentionService
    providers: Mapping[str, LLMProviderPort]
    isolation: QuarantineExecutor | None
    _app: Celery
    _keeper: LeaseRenewer
    _due_now: WakeableSleep
    _tokens: AsyncTokenEstimator
    _checker: SchemaChecker
    _threads: tuple[ThreadPoolExecutor, ...]
    _sessions: tuple[PostgresSession, ...]

    @asynccontextmanager
    async def running(self, *, run_shared_loops: bool = True) -> AsyncIterator[None]:
        """
        Live as long as the process's event loop: the lease, the loops, children, the providers' connections.

        Args:
            run_shared_loops: Whether to run the loops that every worker runs for all.
        """
        self._keeper.start()
        loops_of_all = (
            *(self._due_loop, self._delivery_loop),
            *(self._maintenance_loop, self._consumers_loop),
        )
        wanted = loops_of_all if run_shared_loops else ()
        loops = [asyncio.create_task(loop()) for loop in wanted]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
                with suppress(asyncio.CancelledError):
                    await loop
            if self.isolation is not None:
                await self.isolation.aclose()
            for provider in self.providers.values():
                await provider.aclose()
            # Last: the calls in flight have ended or were cut off, nothing sends any more.
            await asyncio.to_thread(self._keeper.stop)

    def check(self) -> None:
        """
        Ask the ledger something, so that a worker without one does not start.

        Raises:
            NotMigrated, LedgerUnavailable, ConfigurationError
        """
        session, _ = self._sessions
        ((number,),) = session.rows(VERSION, {})
        major_version(number)
        self.ledger.take_due(limit=0)

    def close(self) -> None:
        """Close threads and connections."""
        self._tokens.close()
        self._checker.close()
        for threads in self._threads:
            threads.shutdown(wait=False, cancel_futures=True)
        for session in self._sessions:
            session.close()

    async def _due_loop(self) -> None:
        """Run due queries, and send a sweep now and then; jittered, so that workers do not march in step."""
        options = self.settings.worker
        sweep_at = time.monotonic()
        while True:
            try:
                at, taken = await asyncio.to_thread(self.due.run)
                if at is not None and time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + options.sweep_interval_s
                    await asyncio.to_thread(self.queue.publish_sweep, at)
            except BrokerUnavailable as exc:
                log.warning("sweep.publish_failed", reason=str(exc))
                taken = 0
            except Exception:
                # The loop is what keeps calls from being lost: an unforeseen error must not end it.
                log.exception("recovery.loop_failed")
                taken = 0
            if not taken:
                pause_s = options.due_interval_s * random.uniform(0.5, 1.5)  # noqa: S311
                await self._due_now.pause(pause_s)

    async def _delivery_loop(self) -> None:
        """Deliver links that nobody has told at once; jittered, so that workers do not march in step."""
        while True:
            taken = 0
            try:
                taken = await asyncio.to_thread(self.delivery.run)
            except Unavailable as exc:
                log.warning("links.ledger_unavailable", reason=str(exc))
            except Exception:
                # Submitters wait to be told: an unforeseen error must not end the loop.
                log.exception("delivery.loop_failed")
            if not taken:
                pause_s = self.settings.worker.due_interval_s * random.uniform(0.5, 1.5)  # noqa: S311
                await asyncio.sleep(pause_s)

    async def _maintenance_loop(self) -> None:
        """Run retention now and then; jittered, so that workers do not march in step."""
        interval_s = self.settings.worker.maintenance_interval_s
        while True:
            try:
                await asyncio.to_thread(self.retention.run)
            except LedgerUnavailable as exc:
                log.warning("retention.ledger_unavailable", reason=str(exc))
            except Exception:
                # Calls do not depend on it; what was not done is found the next time.
                log.exception("retention.failed")
            await asyncio.sleep(interval_s * random.uniform(0.5, 1.5))  # noqa: S311

    async def _consumers_loop(self) -> None:
        """Name who takes messages that only callgate can use."""
        while True:
            try:
                found = await asyncio.to_thread(consumers, self._app)
                for consumer in found:
                    if not consumer.is_ours:
                        log.warning(
                            "foreign_consumer.found",
                            worker=consumer.name,
                            queues=list(consumer.queues),
                        )
            except Exception as exc:
                log.warning("consumers.query_failed", reason=type(exc).__name__)
            await asyncio.sleep(CONSUMERS_INTERVAL_S * random.uniform(0.5, 1.5))  # noqa: S311


def outage_policy_of(options: WorkerOptions, *, is_alone: bool) -> OutagePolicy:
    """
    How long calls wait for the ledger.

    A child that cannot have it, though its worker can, says so before it is taken for stuck and killed, for that counts
    against the call as a loss.
    """
    if is_alone:
        return OutagePolicy(
            grace_s=options.attempt_grace_s, give_up_after_s=options.attempt_grace_s / 3
        )
    return OutagePolicy(grace_s=options.attempt_grace_s)


def bootstrap(
    settings: WorkerSettings,
    app: Celery,
    *,
    ledger: LedgerPort | None = None,
    operations: OperationsPort | None = None,
    leases: LeasePort | None = None,
    queue: QueuePort | None = None,
    retention: RetentionPort | None = None,
    providers: Mapping[str, LLMProviderPort] | None = None,
    catalogue: Catalogue | None = None,
    quarantine_argv: Sequence[str] | None = FORKSERVER_ARGV,
) -> Runtime:
    """
    Compose one worker process.

    Args:
        quarantine_argv: The command of the nursery whose children run suspects; None for such a child itself.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    options = settings.worker
    catalogue = catalogue or load_catalogue(settings.catalogue)
    check_relations(settings, catalogue)
    session = PostgresSession(
        settings.database_url.get_secret_value(),
        timeout_s=settings.ledger_timeout_s,
        pool_size=options.ledger_connections_max,
    )
    maintenance = PostgresSession(
        settings.database_url.get_secret_value(), timeout_s=MAINTENANCE_TIMEOUT_S, pool_size=1
    )
    ledger = ledger or PostgresLedger(session)
    operations = operations or PostgresOperations(session)
    queue = queue or CeleryQueue(app, timeout_s=settings.broker_timeout_s)
    providers = providers_of(settings, catalogue) if providers is None else providers
    costs, clock, due_now = CostCalculator(catalogue), SystemClock(), WakeableSleep()
    unclaimed = SkippedRows[CallKey](clock, threading.Lock())
    unsettled = SkippedRows[AttemptRef](clock, threading.Lock())
    worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    # A connection of its own, with a timeout that leaves room for another try.
    lease_session = PostgresSession(
        settings.database_url.get_secret_value(),
        timeout_s=options.process_lease_s * RENEW_AT_SHARE,
        pool_size=1,
    )
    lease = LeaseService(
        leases=leases or PostgresLeases(lease_session),
        clock=clock,
        worker_id=worker_id,
        lease_s=options.process_lease_s,
    )
    checker = SchemaChecker()
    delivery = DeliveryService(ledger=ledger, queue=queue, clock=clock)
    ai_call_logger = AICallLogger(
        ledger=ledger,
        delivery=delivery,
        costs=costs,
        validator=checker,
        catalogue=catalogue,
        jitter=clock.jitter,
        monotonic=clock.monotonic,
        on_headroom_freed=due_now.give,
        sleep=time.sleep,
        on_locked=unsettled.add,
    )
    threads = ThreadPoolExecutor(options.ledger_connections_max, thread_name_prefix="ledger")
    settling = ThreadPoolExecutor(options.ledger_connections_max, thread_name_prefix="settle")
    lane = AsyncLedger(ledger, queue, threads)
    tokens = AsyncTokenEstimator(catalogue, TokenEstimator(catalogue))

    async def settle_here(ref: AttemptRef) -> None:
        # Not in the ledger's threads: it may wait for a check, and claims and records must not.
        await asyncio.get_running_loop().run_in_executor(settling, ai_call_logger.settle, [ref])

    due = RecoveryService(
        ledger=ledger,
        leases=leases or PostgresLeases(session),
        worker_id=worker_id,
        queue=queue,
        ai_call_logger=ai_call_logger,
        clock=clock,
        grace_s=options.attempt_grace_s,
        sweep_min_age_s=options.sweep_min_age_s,
        unclaimed=unclaimed,
        unsettled=unsettled,
        sweeps_between=lambda: random.randint(0, FOREIGN_CONSUMERS_MAX),  # noqa: S311
    )
    isolation = None
    if quarantine_argv is not None:
        isolation = QuarantineExecutor(
            quarantine_argv,
            children_max=options.quarantine_processes_max,
            healthy_since=lambda: due.healthy_since,
        )
    llm = compose_llm_service(
        ledger=lane,
        providers=providers,
        costs=costs,
        catalogue=catalogue,
        ask_gates=tokens.ask_gates,
        publish_settle_task=lane.publish_settle_task,
        settle_here=settle_here,
        clock=clock,
        now=lambda: datetime.now(UTC),
        outages=outage_policy_of(options, is_alone=quarantine_argv is None),
        worker_id=worker_id,
        lease_epoch=lease.epoch,
        default_limit_nano_usd=options.default_limit_nano_usd,
        run_quarantined=isolation,
        room=RequestRoom(options.request_memory_bytes_max).taken,
        on_locked=unclaimed.add,
    )
    keeper = LeaseRenewer(lease, lease_s=options.process_lease_s, close=lease_session.close)
    return Runtime(
        settings=settings,
        ledger=ledger,
        operations=operations,
        queue=queue,
        llm=llm,
        ai_call_logger=ai_call_logger,
        due=due,
        delivery=delivery,
        retention=RetentionService(
            retention or PostgresRetention(maintenance), catalogue.retention
        ),
        providers=providers,
        isolation=isolation,
        _app=app,
        _keeper=keeper,
        _due_now=due_now,
        _tokens=tokens,
        _checker=checker,
        _threads=(threads, settling),
        _sessions=(session, maintenance),
    )


def worker_app(settings: WorkerSettings) -> Celery:
    """Build the Celery app of a worker process, or of Flower."""
    app = build_app(
        settings.broker_url.get_secret_value(),
        timeout_s=settings.broker_timeout_s,
        prefix=settings.broker_prefix,
    )
    app.conf.update(celery_config(settings.worker))
    return app


def providers_of(settings: WorkerSettings, catalogue: Catalogue) -> dict[str, LLMProviderPort]:
    """The real adapters of the catalogue's providers."""
    credentials = FileCredentials(
        settings.api_keys(catalogue.providers), settings.worker.credentials_dir
    )
    return {
        name: OpenAIAdapter(
            name, entry, credentials, connections_max=settings.worker.connections_max
        )
        for name, entry in catalogue.providers.items()
    }
