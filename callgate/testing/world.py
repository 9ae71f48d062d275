"""
A worker and its ledger in memory: the product's own services over the memory adapters, in virtual time.

Nothing here decides anything about a call. It runs what a worker process runs: call tasks, settle tasks, links, and
whatever has become due.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from datetime import datetime

from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.json_schema_validator import JsonSchemaValidator
from callgate.adapters.memory.call_ledger import MemoryCallLedger
from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.memory.provider import MemoryProvider
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain import gates
from callgate.domain.calls import AttemptRef, CallKey, CallState, WaitReason
from callgate.domain.catalogue import Catalogue
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.claims import Claimant
from callgate.services.delivery import DeliveryService
from callgate.services.lease import LeaseService
from callgate.services.llm_composition import compose_llm_service
from callgate.services.llm_service import LLMService
from callgate.services.recovery import RecoveryService
from callgate.services.reservations import ClaimTerms
from callgate.services.retrying_ledger import LedgerAccess, OutagePolicy
from callgate.services.settle_task_publisher import SettleTaskPublisher
from callgate.services.skipped_rows import SkippedRows
from callgate.testing.links import AppliedLinks
from callgate.testing.queue import MemoryQueue
from callgate.testing.script import Script
from callgate.testing.timeline import Timeline

WORKER_ID = "memory"
LEASE_S = 10.0**9
"""Longer than any test lasts, in its own time."""
GRACE_S = 10.0
POLL_S = 1.0
"""How often a worker looks for what may go on before its time: a provider that answers again, or room in a limit."""
ROUNDING_S = 2e-6
"""The ledger's times are whole microseconds."""
IDLE_MAX_S = 10.0**7
"""Longer than any call waits."""
EARLY = (
    WaitReason.PROVIDER,
    WaitReason.RATE_LIMITED,
    WaitReason.PAUSED,
    WaitReason.CONCURRENCY_LIMITED,
)
"""A call that waits for these may go on before it is due."""


class NothingHappens(AssertionError):
    """A test waits for a call that nothing will ever end."""


class World:
    """One worker over one ledger; one thread at a time runs it."""

    def __init__(
        self,
        catalogue: Catalogue,
        script: Script,
        *,
        begins_at: datetime,
        default_limit_nano_usd: int | None,
    ) -> None:
        self.timeline = Timeline(begins_at)
        self.ledger = MemoryLedger(clock=self.timeline.now)
        self.queue = MemoryQueue()
        self.catalogue = catalogue
        self.provider = MemoryProvider(
            sleep=self.timeline.sleep, otherwise=script.refuse_unscripted
        )
        script.answer_for(catalogue, self.provider)
        self.links: AppliedLinks | None = None
        self._default_limit_nano_usd = default_limit_nano_usd
        self._lock = threading.RLock()
        self._idle_s = 0.0
        self._costs, self._estimator = CostCalculator(catalogue), TokenEstimator(catalogue)
        self._unclaimed = SkippedRows[CallKey](self.timeline, nullcontext())
        self._unsettled = SkippedRows[AttemptRef](self.timeline, nullcontext())
        self._lease = LeaseService(
            leases=self.ledger.leases,
            clock=self.timeline,
            worker_id=WORKER_ID,
            lease_s=LEASE_S,
            slots=None,
        )
        self._lease.renew()
        self.ledger.flow.publish(WORKER_ID, catalogue.declaration())
        self._delivery = DeliveryService(ledger=self.ledger, queue=self.queue, clock=self.timeline)
        self._call_logger = self._compose_call_logger()
        self._llm = self._compose_llm_service()
        self._recovery = self._compose_recovery_service()

    def work(self) -> None:
        """Do everything that can be done at this time."""
        with self._lock:
            while self._step():
                pass

    def wait(self, seconds: float) -> None:
        """
        Let time pass until a call ends, at most so many seconds.

        Raises:
            NothingHappens: So much time has passed that nothing can be expected any more.
        """
        with self._lock:
            until_s, ended = self.timeline.monotonic() + seconds, self._ended()
            self.work()
            while self._ended() == ended and self.timeline.monotonic() < until_s:
                self._go_on(until_s)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        with self._lock:
            until_s = self.timeline.monotonic() + seconds
            self.work()
            while self.timeline.monotonic() < until_s:
                self._go_on(until_s)
            self._idle_s = 0.0

    def run(self) -> None:
        """
        Let time pass until every call has ended.

        Raises:
            NothingHappens: As in `wait`.
        """
        with self._lock:
            self.work()
            while any(call.state.is_open for call in self.ledger.tables.calls.values()):
                self._go_on(self.timeline.monotonic() + IDLE_MAX_S)

    def _step(self) -> bool:
        """Do one thing; False if there is nothing to do. What takes no time ends before the next call begins."""
        queue = self.queue
        if queue.settle_tasks:
            self._call_logger.settle([queue.settle_tasks.popleft()])
        elif self.timeline.wake():
            return True
        elif (key := queue.next_call()) is not None:
            self.timeline.start(self._llm.execute(key))
        elif queue.links:
            delivery = queue.links.popleft()
            if self.links is not None:
                self.links.apply(delivery)
        else:
            return bool(self._delivery.run() or self._recovery.run()[1])
        return True

    def _go_on(self, until_s: float) -> None:
        """Move on to the next time at which something may happen, and do it."""
        now_s, next_s = self.timeline.monotonic(), self._next_s()
        if next_s is None:
            self._idle_s += until_s - now_s
            if self._idle_s >= IDLE_MAX_S:
                self._idle_s = 0.0
                raise NothingHappens("nothing will ever end the call that this test waits for")
        else:
            self._idle_s = 0.0
        self.timeline.move_to(until_s if next_s is None else min(next_s, until_s))
        self.work()

    def _next_s(self) -> float | None:
        now_s, now = self.timeline.monotonic(), self.timeline.now()
        waiting = [c for c in self.ledger.tables.calls.values() if c.state is CallState.WAITING]
        times = [
            max(now_s, now_s + (call.due_at - now).total_seconds()) + ROUNDING_S
            for call in waiting
            if call.due_at is not None
        ]
        if any(call.wait_reason in EARLY for call in waiting):
            times.append(now_s + POLL_S)
        if (wakes_s := self.timeline.next_s()) is not None:
            times.append(wakes_s)
        return min(times, default=None)

    def _ended(self) -> int:
        return sum(not call.state.is_open for call in self.ledger.tables.calls.values())

    def _compose_call_logger(self) -> AICallLogger:
        return AICallLogger(
            ledger=self.ledger,
            delivery=self._delivery,
            costs=self._costs,
            validator=JsonSchemaValidator(),
            catalogue=self.catalogue,
            jitter=self.timeline.jitter,
            monotonic=self.timeline.monotonic,
            on_headroom_freed=lambda: None,
            sleep=self.timeline.pass_time,
            on_locked=self._unsettled.add,
        )

    def _compose_llm_service(self) -> LLMService:
        return compose_llm_service(
            access=LedgerAccess(
                MemoryCallLedger(self.ledger),
                OutagePolicy(grace_s=GRACE_S),
                on_locked=self._unclaimed.add,
            ),
            claimant=Claimant(WORKER_ID, self._lease.epoch),
            terms=ClaimTerms(
                self.catalogue, self._costs, self._ask_gates, self._default_limit_nano_usd
            ),
            providers=dict.fromkeys(self.catalogue.providers, self.provider),
            settle_tasks=SettleTaskPublisher(self._publish_settle_task, self._settle_here),
            clock=self.timeline,
            now=self.timeline.now,
        )

    def _compose_recovery_service(self) -> RecoveryService:
        return RecoveryService(
            ledger=self.ledger,
            leases=self.ledger.leases,
            worker_id=WORKER_ID,
            queue=self.queue,
            ai_call_logger=self._call_logger,
            clock=self.timeline,
            grace_s=GRACE_S,
            sweep_min_age_s=2.0,
            unclaimed=self._unclaimed,
            unsettled=self._unsettled,
        )

    async def _ask_gates(self, request: LLMRequest, counted: int) -> TokenBound:
        return gates.check(request, self.catalogue, self._estimator, counted)

    async def _publish_settle_task(self, ref: AttemptRef) -> None:
        self.queue.publish_settle_tasks([ref])

    async def _settle_here(self, ref: AttemptRef) -> None:
        self._call_logger.settle([ref])
