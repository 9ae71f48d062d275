"""
The composition root: from settings to the services of one worker process.

Adapters are the real ones by default. A test replaces any port by its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from celery import Celery

from callgate.adapters.broker.queue import CeleryQueue
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.file_credentials import FileCredentials
from callgate.adapters.postgres.flow import PostgresFlow
from callgate.adapters.postgres.leases import PostgresLeases
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.lock_watch import PostgresLockWatch
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.retention import PostgresRetention
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.version import VERSION, major_version
from callgate.adapters.providers import adapter_class
from callgate.adapters.system_clock import SystemClock
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.catalogue import Catalogue, ProviderEntry
from callgate.domain.flow_ports import FlowPort
from callgate.domain.operator_ports import OperationsPort, RetentionPort
from callgate.domain.ports import (
    CredentialsPort,
    LeasePort,
    LedgerPort,
    LLMProviderPort,
    LockWatchPort,
    QueuePort,
)
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.delivery import DeliveryService
from callgate.services.learned_limits import LearnedLimits
from callgate.services.lease import RENEW_AT_SHARE, LeaseService
from callgate.services.limit_keeper import LimitKeeper
from callgate.services.llm_composition import compose_llm_service
from callgate.services.llm_service import LLMService
from callgate.services.recovery import RecoveryService
from callgate.services.retention import RetentionService
from callgate.services.retrying_ledger import OutagePolicy
from callgate.services.skipped_rows import SkippedRows
from config.settings import WorkerOptions, WorkerSettings, check_relations
from worker.async_ledger import AsyncLedger
from worker.async_token_estimator import AsyncTokenEstimator
from worker.isolation.executor import FORKSERVER_ARGV, QuarantineExecutor
from worker.isolation.schema_checker import SchemaChecker
from worker.lease_renewer import LeaseRenewer
from worker.lock_watch import LockWatch
from worker.loops import SharedLoops
from worker.request_room import RequestRoom
from worker.runtime import Runtime
from worker.wakeable_sleep import WakeableSleep

FOREIGN_CONSUMERS_MAX = 7
"""With up to this many foreign consumers on the queue, a lone call still reaches us after some sweeps."""
MAINTENANCE_TIMEOUT_S = 120.0
"""What summing one month of the log may take; a worker that stops meanwhile waits for it."""


def bootstrap(
    settings: WorkerSettings,
    app: Celery,
    *,
    ledger: LedgerPort | None = None,
    operations: OperationsPort | None = None,
    leases: LeasePort | None = None,
    queue: QueuePort | None = None,
    retention: RetentionPort | None = None,
    lock_watch: LockWatchPort | None = None,
    flow: FlowPort | None = None,
    providers: Mapping[str, LLMProviderPort] | None = None,
    catalogue: Catalogue | None = None,
    quarantine_argv: Sequence[str] | None = FORKSERVER_ARGV,
) -> Runtime:
    """
    Compose one worker process.

    Args:
        quarantine_argv: The command of the fork server for quarantined calls; None in one of its children.

    Raises:
        ConfigurationError: The settings cannot work.
    """
    options = settings.worker
    catalogue = catalogue or load_catalogue(settings.catalogue)
    check_relations(settings, catalogue)
    sessions = _Sessions.of(settings)
    base = _Base(
        options=options,
        catalogue=catalogue,
        ledger=ledger or PostgresLedger(sessions.calls),
        queue=queue or CeleryQueue(app, timeout_s=settings.broker_timeout_s),
    )
    lease = base.lease(leases or PostgresLeases(sessions.lease))
    settlement = base.settlement()
    recovery = base.recovery(leases or PostgresLeases(sessions.calls), settlement.call_logger)
    isolation = base.isolation(recovery, quarantine_argv)
    providers = providers_of(settings, catalogue) if providers is None else providers
    limits = base.limits(flow or PostgresFlow(sessions.calls), lease)
    execution = base.execution(providers, settlement, lease, isolation, limits.learned)

    def close() -> None:
        execution.close()
        settlement.close()
        sessions.close()

    return Runtime(
        llm=execution.llm,
        call_logger=settlement.call_logger,
        recovery=recovery,
        operations=operations or PostgresOperations(sessions.calls),
        providers=providers,
        isolation=isolation,
        _loops=base.loops(
            app, recovery, settlement, retention or PostgresRetention(sessions.maintenance), limits
        ),
        _lease_renewer=LeaseRenewer(
            lease, lease_s=options.process_lease_s, close=sessions.lease.close
        ),
        _lock_watch=LockWatch(lock_watch or PostgresLockWatch(sessions.lock_watch)),
        _check=lambda: sessions.check(base.ledger),
        _close=close,
    )


def providers_of(settings: WorkerSettings, catalogue: Catalogue) -> dict[str, LLMProviderPort]:
    """Return the real adapters of the catalogue's providers."""
    credentials = FileCredentials(
        settings.api_keys(catalogue.providers), settings.worker.credentials_dir
    )
    connections_max = settings.worker.connections_max
    return {
        name: _adapter(name, entry, credentials, connections_max)
        for name, entry in catalogue.providers.items()
    }


def _adapter(
    name: str, entry: ProviderEntry, credentials: CredentialsPort, connections_max: int
) -> LLMProviderPort:
    """
    The adapter of the provider's protocol.

    Raises:
        ConfigurationError: No folder of `callgate/adapters/providers` has that protocol.
    """
    adapter = adapter_class(entry.protocol)
    return adapter(name, entry, credentials, connections_max=connections_max)


def outage_policy_of(options: WorkerOptions, *, is_alone: bool) -> OutagePolicy:
    """
    How long calls wait for the ledger.

    A child process whose ledger connection fails while its worker's works must give up before it is killed as stuck:
    a kill counts as a lost worker against the call.
    """
    if is_alone:
        return OutagePolicy(
            grace_s=options.attempt_grace_s, give_up_after_s=options.attempt_grace_s / 3
        )
    return OutagePolicy(grace_s=options.attempt_grace_s)


@dataclass(frozen=True, slots=True)
class _Sessions:
    """The process's connections to Postgres, by their limits of time."""

    calls: PostgresSession
    """
    As many connections as the executor `ledger` has threads.

    The executor `settle` has as many again: a thread may wait for a connection, at most `ledger_timeout_s`.
    """
    maintenance: PostgresSession
    lease: PostgresSession
    """One connection, with a timeout that leaves time for another try. Its `LeaseRenewer` closes it."""
    lock_watch: PostgresSession
    """Two connections: the next transaction begins before the last one ends. Its `LockWatch` closes it."""

    @classmethod
    def of(cls, settings: WorkerSettings) -> _Sessions:
        options, url = settings.worker, settings.database_url.get_secret_value()
        lease_timeout_s = options.process_lease_s * RENEW_AT_SHARE
        return cls(
            calls=PostgresSession(
                url,
                timeout_s=settings.ledger_timeout_s,
                pool_size=options.ledger_connections_max,
            ),
            maintenance=PostgresSession(url, timeout_s=MAINTENANCE_TIMEOUT_S, pool_size=1),
            lease=PostgresSession(url, timeout_s=lease_timeout_s, pool_size=1),
            lock_watch=PostgresSession(url, timeout_s=settings.ledger_timeout_s, pool_size=2),
        )

    def check(self, ledger: LedgerPort) -> None:
        """See `Runtime.check`."""
        ((number,),) = self.calls.rows(VERSION, {})
        major_version(number)
        ledger.take_due(limit=0)

    def close(self) -> None:
        self.calls.close()
        self.maintenance.close()


@dataclass(frozen=True, slots=True)
class _Settlement:
    """What settles attempts and tells submitters."""

    call_logger: AICallLogger
    delivery: DeliveryService
    checker: SchemaChecker
    threads: ThreadPoolExecutor
    """Not the ledger's threads: a settlement may wait for an answer check, and claims and records must not."""

    async def settle_here(self, ref: AttemptRef) -> None:
        """Settle one attempt, off the event loop."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.threads, self.call_logger.settle, [ref])

    def close(self) -> None:
        self.checker.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Execution:
    """What executes calls."""

    llm: LLMService
    tokens: AsyncTokenEstimator
    threads: ThreadPoolExecutor

    def close(self) -> None:
        self.tokens.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Base:
    """What the services of one process share; each method composes one group of them."""

    options: WorkerOptions
    catalogue: Catalogue
    ledger: LedgerPort
    queue: QueuePort
    clock: SystemClock = field(default_factory=SystemClock)
    recovery_pause: WakeableSleep = field(default_factory=WakeableSleep)
    worker_id: str = field(
        default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    )
    unclaimed: SkippedRows[CallKey] = field(
        default_factory=lambda: SkippedRows(SystemClock(), threading.Lock())
    )
    unsettled: SkippedRows[AttemptRef] = field(
        default_factory=lambda: SkippedRows(SystemClock(), threading.Lock())
    )

    def lease(self, leases: LeasePort) -> LeaseService:
        return LeaseService(
            leases=leases,
            clock=self.clock,
            worker_id=self.worker_id,
            lease_s=self.options.process_lease_s,
        )

    def settlement(self) -> _Settlement:
        checker = SchemaChecker()
        delivery = DeliveryService(ledger=self.ledger, queue=self.queue, clock=self.clock)
        call_logger = AICallLogger(
            ledger=self.ledger,
            delivery=delivery,
            costs=CostCalculator(self.catalogue),
            validator=checker,
            catalogue=self.catalogue,
            jitter=self.clock.jitter,
            monotonic=self.clock.monotonic,
            on_headroom_freed=self.recovery_pause.wake,
            sleep=time.sleep,
            on_locked=self.unsettled.add,
        )
        return _Settlement(call_logger, delivery, checker, self._threads("settle"))

    def recovery(self, leases: LeasePort, call_logger: AICallLogger) -> RecoveryService:
        return RecoveryService(
            ledger=self.ledger,
            leases=leases,
            worker_id=self.worker_id,
            queue=self.queue,
            ai_call_logger=call_logger,
            clock=self.clock,
            grace_s=self.options.attempt_grace_s,
            sweep_min_age_s=self.options.sweep_min_age_s,
            unclaimed=self.unclaimed,
            unsettled=self.unsettled,
            sweeps_between=lambda: random.randint(0, FOREIGN_CONSUMERS_MAX),  # noqa: S311
        )

    def loops(
        self,
        app: Celery,
        recovery: RecoveryService,
        settlement: _Settlement,
        retention: RetentionPort,
        limits: LimitKeeper,
    ) -> SharedLoops:
        return SharedLoops(
            options=self.options,
            app=app,
            queue=self.queue,
            recovery=recovery,
            delivery=settlement.delivery,
            retention=RetentionService(retention, self.catalogue.retention),
            limits=limits,
            recovery_pause=self.recovery_pause,
        )

    def limits(self, flow: FlowPort, lease: LeaseService) -> LimitKeeper:
        return LimitKeeper(
            flow=flow,
            learned=LearnedLimits(flow, self.clock, threading.Lock()),
            declaration=self.catalogue.declaration(),
            worker_id=self.worker_id,
            has_lease=lambda: lease.epoch() is not None,
        )

    def isolation(
        self, recovery: RecoveryService, argv: Sequence[str] | None
    ) -> QuarantineExecutor | None:
        if argv is None:
            return None
        return QuarantineExecutor(
            argv,
            children_max=self.options.quarantine_processes_max,
            healthy_since=lambda: recovery.healthy_since,
        )

    def execution(
        self,
        providers: Mapping[str, LLMProviderPort],
        settlement: _Settlement,
        lease: LeaseService,
        isolation: QuarantineExecutor | None,
        learned: LearnedLimits,
    ) -> _Execution:
        threads = self._threads("ledger")
        async_ledger = AsyncLedger(self.ledger, self.queue, threads)
        tokens = AsyncTokenEstimator(self.catalogue, TokenEstimator(self.catalogue))
        llm = compose_llm_service(
            ledger=async_ledger,
            providers=providers,
            costs=CostCalculator(self.catalogue),
            catalogue=self.catalogue,
            ask_gates=tokens.ask_gates,
            learned=learned,
            publish_settle_task=async_ledger.publish_settle_task,
            settle_here=settlement.settle_here,
            clock=self.clock,
            now=lambda: datetime.now(UTC),
            outages=outage_policy_of(self.options, is_alone=isolation is None),
            worker_id=self.worker_id,
            lease_epoch=lease.epoch,
            default_limit_nano_usd=self.options.default_limit_nano_usd,
            run_quarantined=isolation,
            room=RequestRoom(self.options.request_memory_bytes_max).taken,
            on_locked=self.unclaimed.add,
        )
        return _Execution(llm, tokens, threads)

    def _threads(self, name: str) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.options.ledger_connections_max, thread_name_prefix=name)
