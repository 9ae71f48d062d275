"""
The composition root: from settings to the services of one worker process.

Adapters are the real ones by default. A test replaces any port by its own.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from celery import Celery

from callgate.adapters.broker.queue import CeleryQueue
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.postgres.figures import PostgresFigures
from callgate.adapters.postgres.fingerprints import PostgresFingerprints
from callgate.adapters.postgres.flow import PostgresFlow
from callgate.adapters.postgres.leases import PostgresLeases
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.lock_watch import PostgresLockWatch
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.retention import PostgresRetention
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.sums import PostgresSums
from callgate.adapters.system_clock import SystemClock
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.catalogue import Catalogue
from callgate.domain.flow_ports import FlowPort
from callgate.domain.metric_ports import FiguresPort
from callgate.domain.operator_ports import OperationsPort, RetentionPort, SumsPort
from callgate.domain.ports import (
    FingerprintPort,
    LeasePort,
    LedgerPort,
    LLMProviderPort,
    LockWatchPort,
    QueuePort,
)
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.claims import Claimant
from callgate.services.delivery import DeliveryService
from callgate.services.fingerprints import FingerprintKeeper
from callgate.services.learned_limits import LearnedLimits
from callgate.services.lease import LeaseService
from callgate.services.limit_keeper import LimitKeeper
from callgate.services.llm_composition import compose_llm_service
from callgate.services.recovery import RecoveryService
from callgate.services.reservations import ClaimTerms
from callgate.services.retention import RetentionService
from callgate.services.retrying_ledger import LedgerAccess
from callgate.services.settle_task_publisher import SettleTaskPublisher
from callgate.services.skipped_rows import SkippedRows
from callgate.services.sums import SumsService
from callgate.services.tracing import Tracing
from config.settings import WorkerOptions, WorkerSettings, check_relations
from worker.alerts import AlertLoop
from worker.async_ledger import AsyncLedger
from worker.async_token_estimator import AsyncTokenEstimator
from worker.fingerprint import fingerprint_of, sections_of
from worker.isolation.executor import FORKSERVER_ARGV, QuarantineExecutor
from worker.isolation.schema_checker import SchemaChecker
from worker.lease_renewer import LeaseRenewer
from worker.lock_watch import LockWatch
from worker.loops import SharedLoops
from worker.metrics.process_metrics import ProcessMetrics
from worker.parts import Execution, Settlement, close_all, outage_policy_of
from worker.provider_adapters import providers_of
from worker.redrives import RedriveLoop
from worker.request_room import RequestRoom
from worker.runtime import Runtime
from worker.sessions import Sessions
from worker.status import Status
from worker.tracing import tracing_of
from worker.wakeable_sleep import WakeableSleep

FOREIGN_CONSUMERS_MAX = 7
"""With up to this many foreign consumers on the queue, a lone call still reaches us after some sweeps."""


def bootstrap(
    settings: WorkerSettings,
    app: Celery,
    *,
    ledger: LedgerPort | None = None,
    operations: OperationsPort | None = None,
    leases: LeasePort | None = None,
    queue: QueuePort | None = None,
    retention: RetentionPort | None = None,
    sums: SumsPort | None = None,
    lock_watch: LockWatchPort | None = None,
    flow: FlowPort | None = None,
    figures: FiguresPort | None = None,
    fingerprints: FingerprintPort | None = None,
    providers: Mapping[str, LLMProviderPort] | None = None,
    catalogue: Catalogue | None = None,
    tracing: Tracing | None = None,
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
    sessions = Sessions.of(settings)
    figures = figures or PostgresFigures(sessions.calls)
    tracing = tracing or tracing_of(settings, catalogue)
    base = _Base(
        options=options,
        catalogue=catalogue,
        metrics=ProcessMetrics.of(figures, options),
        tracing=tracing,
        ledger=ledger or PostgresLedger(sessions.calls),
        queue=queue or CeleryQueue(app, timeout_s=settings.broker_timeout_s, tracing=tracing),
    )
    lease = base.lease(leases or PostgresLeases(sessions.lease), is_alone=quarantine_argv is None)
    settlement = base.settlement()
    recovery = base.recovery(leases or PostgresLeases(sessions.calls), settlement.call_logger)
    isolation = base.isolation(recovery, quarantine_argv)
    providers = providers_of(settings, catalogue) if providers is None else providers
    limits = base.limits(flow or PostgresFlow(sessions.calls), lease)
    execution = base.execution(providers, settlement, lease, isolation, limits.learned)
    upkeep = _upkeep(sessions.maintenance, retention, sums)
    keeper = base.keeper(fingerprints or PostgresFingerprints(sessions.calls), settings, lease)
    renewer = LeaseRenewer(lease, lease_s=options.process_lease_s, close=sessions.lease.close)
    return Runtime(
        llm=execution.llm,
        call_logger=settlement.call_logger,
        recovery=recovery,
        operations=operations or PostgresOperations(sessions.calls),
        providers=providers,
        isolation=isolation,
        _loops=base.loops(
            app, recovery, settlement, upkeep, limits, keeper, base.own_loops(sessions, figures)
        ),
        _lease_renewer=renewer,
        _lock_watch=LockWatch(lock_watch or PostgresLockWatch(sessions.lock_watch)),
        _status=base.status(settings, app, lease, recovery),
        _check=lambda: sessions.check(base.ledger),
        _close=partial(close_all, execution, settlement, sessions, tracing),
    )


def _upkeep(
    session: PostgresSession, retention: RetentionPort | None, sums: SumsPort | None
) -> tuple[RetentionPort, SumsPort]:
    return retention or PostgresRetention(session), sums or PostgresSums(session)


@dataclass(frozen=True, slots=True)
class _Base:
    """What the services of one process share; each method composes one group of them."""

    options: WorkerOptions
    catalogue: Catalogue
    ledger: LedgerPort
    queue: QueuePort
    metrics: ProcessMetrics
    tracing: Tracing
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

    def lease(self, leases: LeasePort, *, is_alone: bool) -> LeaseService:
        return LeaseService(
            leases=leases,
            clock=self.clock,
            worker_id=self.worker_id,
            lease_s=self.options.process_lease_s,
            # A child process runs calls of its worker, and takes none itself.
            slots=0 if is_alone else self.options.concurrency,
        )

    def settlement(self) -> Settlement:
        checker = SchemaChecker()
        delivery = DeliveryService(
            ledger=self.ledger, queue=self.queue, clock=self.clock, meter=self.metrics.meter
        )
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
            meter=self.metrics.meter,
            tracing=self.tracing,
        )
        return Settlement(call_logger, delivery, checker, self._threads("settle"))

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
            meter=self.metrics.meter,
        )

    def loops(
        self,
        app: Celery,
        recovery: RecoveryService,
        settlement: Settlement,
        upkeep: tuple[RetentionPort, SumsPort],
        limits: LimitKeeper,
        fingerprints: FingerprintKeeper,
        own_loops: tuple[AlertLoop, RedriveLoop],
    ) -> SharedLoops:
        (retention, sums), (alerts, redrives) = upkeep, own_loops
        return SharedLoops(
            options=self.options,
            app=app,
            queue=self.queue,
            recovery=recovery,
            delivery=settlement.delivery,
            retention=RetentionService(retention, self.catalogue.retention),
            sums=SumsService(sums),
            limits=limits,
            figures=self.metrics.figures if self.options.status_port else None,
            fingerprints=fingerprints,
            alerts=alerts,
            redrives=redrives,
            recovery_pause=self.recovery_pause,
        )

    def own_loops(self, sessions: Sessions, figures: FiguresPort) -> tuple[AlertLoop, RedriveLoop]:
        alerts = AlertLoop.of(
            self.options,
            self.catalogue.alerts,
            session=sessions.calls,
            figures=figures,
            jitter=self.clock.jitter,
        )
        redrives = RedriveLoop.of(self.ledger, self.queue, self.catalogue, sessions.calls)
        return alerts, redrives

    def status(
        self, settings: WorkerSettings, app: Celery, lease: LeaseService, recovery: RecoveryService
    ) -> Status:
        return Status.of(
            settings,
            app,
            self.catalogue,
            lease_epoch=lease.epoch,
            healthy_since=lambda: recovery.healthy_since,
            figures=self.metrics.figures.newest,
            routes={"/metrics": self.metrics.answer},
        )

    def limits(self, flow: FlowPort, lease: LeaseService) -> LimitKeeper:
        return LimitKeeper(
            flow=flow,
            learned=LearnedLimits(flow, self.clock, threading.Lock()),
            declaration=self.catalogue.declaration(),
            worker_id=self.worker_id,
            has_lease=lambda: lease.epoch() is not None,
        )

    def keeper(
        self, fingerprints: FingerprintPort, settings: WorkerSettings, lease: LeaseService
    ) -> FingerprintKeeper:
        return FingerprintKeeper(
            fingerprints=fingerprints,
            own=fingerprint_of(settings, self.catalogue),
            sections=sections_of(self.catalogue),
            worker_id=self.worker_id,
            lease_epoch=lease.epoch,
            clock=self.clock,
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
        settlement: Settlement,
        lease: LeaseService,
        isolation: QuarantineExecutor | None,
        learned: LearnedLimits,
    ) -> Execution:
        threads = self._threads("ledger")
        async_ledger = AsyncLedger(self.ledger, self.queue, threads)
        tokens = AsyncTokenEstimator(self.catalogue, TokenEstimator(self.catalogue))
        llm = compose_llm_service(
            access=LedgerAccess(
                async_ledger,
                outage_policy_of(self.options, is_alone=isolation is None),
                on_locked=self.unclaimed.add,
            ),
            claimant=Claimant(self.worker_id, lease.epoch),
            terms=ClaimTerms(
                self.catalogue,
                CostCalculator(self.catalogue),
                tokens.ask_gates,
                self.options.default_limit_nano_usd,
            ),
            providers=providers,
            learned=learned,
            settle_tasks=SettleTaskPublisher(
                async_ledger.publish_settle_task, settlement.settle_here
            ),
            clock=self.clock,
            now=lambda: datetime.now(UTC),
            run_quarantined=isolation,
            room=RequestRoom(self.options.request_memory_max_bytes).taken,
            meter=self.metrics.meter,
            tracing=self.tracing,
        )
        return Execution(llm, tokens, threads)

    def _threads(self, name: str) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.options.ledger_connections_max, thread_name_prefix=name)
