"""
A simulated worker process: the real services over faulty ports, with a clock and a memory of its own.

It handles messages as `tasks/` does. Like `worker/`, it settles in batches, runs due queries and sends sweeps.
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from callgate.domain import gates
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.errors import Unavailable
from callgate.domain.ledger import RecordAnswer, RecordOutcome, ReserveCommand, ReserveOutcome
from callgate.domain.provider import TokenBound
from callgate.domain.requests import LLMRequest
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.claims import Claimant
from callgate.services.delivery import DeliveryService
from callgate.services.learned_limits import LearnedLimits
from callgate.services.lease import RENEW_AT_SHARE, LeaseService
from callgate.services.limit_keeper import LimitKeeper
from callgate.services.llm_composition import compose_llm_service
from callgate.services.llm_service import LLMService
from callgate.services.recovery import RecoveryService
from callgate.services.reservations import ClaimTerms
from callgate.services.retrying_ledger import LedgerAccess, OutagePolicy
from callgate.services.settle_task_publisher import SettleTaskPublisher
from callgate.services.skipped_rows import SkippedRows
from tests.simulation.broker import FaultyBroker, Message
from tests.simulation.faults import TASK
from tests.simulation.faulty_ledger import FaultyFlow, FaultyLeases, FaultyLedger
from tests.simulation.provider import FaultyProvider
from tests.simulation.scheduler import Owner, drive

if TYPE_CHECKING:
    from tests.simulation.world import World

GRACE_S = 8.0
LEASE_S = 10.0
GIVE_UP_AFTER_S = 30.0
DUE_INTERVAL_S = 2.0
SWEEP_INTERVAL_S = 5.0
LIMIT_INTERVAL_S = 1.0
SWEEP_MIN_AGE_S = 2.0


class Clock:
    """`ClockPort` of one process, with an offset and a rate of its own, so that it agrees with no other clock."""

    def __init__(self, world: World, owner: Owner) -> None:
        self._world = world
        self._owner = owner
        self._offset_s = world.rng.uniform(0, 1e6)
        self._rate = world.rng.uniform(0.95, 1.05)
        self._wall_skew = timedelta(seconds=world.rng.uniform(-600, 600))

    def monotonic(self) -> float:
        """Its own seconds; they pass while it is paused."""
        return self._offset_s + self._rate * self._world.scheduler.now

    def jitter(self) -> float:
        """A random number in [0, 1)."""
        return self._world.rng.random()

    async def sleep(self, seconds: float) -> None:
        """Wait, by this clock."""
        self.block(seconds)

    def block(self, seconds: float, *, idle: bool = False) -> None:
        """Wait, by this clock, in a greenlet."""
        self._world.scheduler.wait(seconds / self._rate, self._owner, idle=idle)

    def wall(self) -> datetime:
        """What time this machine thinks it is."""
        return self._world.scheduler.time() + self._wall_skew


class SingleCallLedger:
    """`CallLedger` over the faulty ledger of a process."""

    def __init__(self, line: FaultyLedger) -> None:
        self._line = line

    async def read(self, key: CallKey) -> CallView | None:
        """Look at one call."""
        return self._line.read([key], Bodies.LIGHT)[0]

    async def read_whole(self, key: CallKey) -> CallView | None:
        """Look at one call, however large."""
        return self._line.read([key], Bodies.REQUEST)[0]

    async def read_answer(self, ref: AttemptRef) -> CallView | None:
        """Look at the reply of one attempt."""
        return self._line.read([ref], Bodies.REPLY)[0]

    async def reserve(self, command: ReserveCommand) -> ReserveOutcome:
        """Claim it."""
        return self._line.reserve([command])[0]

    async def record(self, record: RecordAnswer) -> RecordOutcome:
        """Keep its answer."""
        return self._line.record([record])[0]


class Process(Owner):
    """One worker process, until it dies."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name)
        self.world = world
        self.clock = Clock(world, self)
        self._running = 0
        self._to_settle: list[Message] = []
        self._is_settling = False
        ledger, self._queue = FaultyLedger(world, self), FaultyBroker(world, self)
        leases = FaultyLeases(ledger)
        unclaimed = SkippedRows[CallKey](self.clock, nullcontext())
        unsettled = SkippedRows[AttemptRef](self.clock, nullcontext())
        self.lease = LeaseService(
            leases=leases, clock=self.clock, worker_id=name, lease_s=LEASE_S, slots=world.slots
        )
        self.delivery = DeliveryService(ledger=ledger, queue=self._queue, clock=self.clock)
        self._learned = LearnedLimits(FaultyFlow(ledger), self.clock, nullcontext())
        self.ai_call_logger = self._compose_ai_call_logger(ledger, unsettled)
        self.llm = self._compose_llm_service(ledger, unclaimed)
        self.due = RecoveryService(
            ledger=ledger,
            leases=leases,
            worker_id=name,
            queue=self._queue,
            ai_call_logger=self.ai_call_logger,
            clock=self.clock,
            grace_s=GRACE_S,
            sweep_min_age_s=SWEEP_MIN_AGE_S,
            unclaimed=unclaimed,
            unsettled=unsettled,
        )
        world.scheduler.spawn(self, self._due_loop)
        world.scheduler.spawn(self, self._delivery_loop)
        world.scheduler.spawn(self, self._renew_lease)
        if world.limits:
            keeper = self._compose_limit_keeper(FaultyFlow(ledger))
            world.scheduler.spawn(self, lambda: self._limit_loop(keeper))

    def _compose_ai_call_logger(
        self, ledger: FaultyLedger, unsettled: SkippedRows[AttemptRef]
    ) -> AICallLogger:
        return AICallLogger(
            ledger=ledger,
            delivery=self.delivery,
            costs=self.world.costs,
            validator=self.world.validator,
            catalogue=self.world.catalogue,
            jitter=self.clock.jitter,
            monotonic=self.clock.monotonic,
            on_headroom_freed=lambda: None,
            sleep=self.clock.block,
            on_locked=unsettled.add,
        )

    def _compose_limit_keeper(self, flow: FaultyFlow) -> LimitKeeper:
        return LimitKeeper(
            flow=flow,
            learned=self._learned,
            declaration=self.world.declaration(),
            worker_id=self.name,
            has_lease=lambda: self.lease.epoch() is not None,
        )

    def _compose_llm_service(
        self, ledger: FaultyLedger, unclaimed: SkippedRows[CallKey]
    ) -> LLMService:
        return compose_llm_service(
            access=LedgerAccess(
                SingleCallLedger(ledger),
                OutagePolicy(grace_s=GRACE_S, give_up_after_s=GIVE_UP_AFTER_S),
                on_locked=unclaimed.add,
            ),
            claimant=Claimant(self.name, self.lease.epoch),
            terms=ClaimTerms(
                self.world.catalogue, self.world.costs, self._ask_gates, self.world.default_limit
            ),
            providers={"sim": FaultyProvider(self.world, self)},
            settle_tasks=SettleTaskPublisher(self._publish_settle_task, self._settle_here),
            clock=self.clock,
            now=self.clock.wall,
            learned=self._learned,
        )

    @property
    def has_room(self) -> bool:
        """True if it takes messages; it also does while it is paused, because its sockets are open."""
        return self.is_alive and self._running < self.world.slots

    def take(self, message: Message) -> None:
        """Begin with a message."""
        spawn = self.world.scheduler.spawn
        if not isinstance(message.body, AttemptRef):
            self._running += 1
            spawn(self, lambda: self._run(message))
            return
        self._to_settle.append(message)
        if not self._is_settling:
            self._is_settling = True
            spawn(self, self._settle)

    def after_death(self) -> None:
        """Another process starts in its place."""
        self.world.restart(self)

    def _run(self, message: Message) -> None:
        try:
            if isinstance(message.body, CallKey):
                result = drive(self.llm.execute(message.body))
                self.world.scheduler.counts[f"call task: {result}"] += 1
            elif isinstance(message.body, datetime) and drive(
                self.llm.wait_for_inflight_claims(30.0)
            ):
                lost = self.due.sweep(message.body)
                self.world.scheduler.counts["lost message found"] += lost
        except Unavailable:
            self.world.scheduler.counts["sweep in vain"] += 1
        self._end(message)
        self._running -= 1
        self.world.broker.pump()

    def _settle(self) -> None:
        """Settle what has come in since the last batch; repeat each batch until it is settled."""
        while batch := self._to_settle:
            self._to_settle = []
            refs = [m.body for m in batch if isinstance(m.body, AttemptRef)]
            while not self._settled(refs):
                self.clock.block(self.clock.jitter())
            for message in batch:
                self._end(message)
        self._is_settling = False

    def _settled(self, refs: list[AttemptRef]) -> bool:
        try:
            self.ai_call_logger.settle(refs)
        except Unavailable:
            return False
        return True

    def _end(self, message: Message) -> None:
        if self.world.faults.one_of(TASK):
            self.world.scheduler.counts["dies after its task"] += 1
            self.world.scheduler.die(self, f"after {self.world.named(message.body)}")

    def _due_loop(self) -> None:
        sweep_at = self.clock.monotonic()
        while True:
            taken = 0
            try:
                at, taken = self.due.run()
                if at is not None and self.clock.monotonic() >= sweep_at:
                    sweep_at = self.clock.monotonic() + SWEEP_INTERVAL_S
                    self._queue.publish_sweep(at)
            except Unavailable:
                self.world.scheduler.counts["due loop in vain"] += 1
            if not taken:
                self.clock.block(DUE_INTERVAL_S * (0.5 + self.clock.jitter()), idle=True)

    def _delivery_loop(self) -> None:
        while True:
            taken = 0
            try:
                # A query that finds nothing is no step, so that it draws no faults.
                taken = self.delivery.run() if self.world.ledger.tables.undelivered else 0
            except Unavailable:
                self.world.scheduler.counts["delivery loop in vain"] += 1
            if not taken:
                self.clock.block(DUE_INTERVAL_S * (0.5 + self.clock.jitter()), idle=True)

    def _limit_loop(self, keeper: LimitKeeper) -> None:
        while True:
            try:
                keeper.run()
            except Unavailable:
                self.world.scheduler.counts["limit loop in vain"] += 1
            self.clock.block(LIMIT_INTERVAL_S, idle=True)

    def _renew_lease(self) -> None:
        while True:
            try:
                self.lease.renew()
            except Unavailable:
                self.world.scheduler.counts["renewal in vain"] += 1
            self.clock.block(LEASE_S * RENEW_AT_SHARE, idle=True)

    async def _ask_gates(self, request: LLMRequest, counted: int) -> TokenBound:
        return gates.check(request, self.world.catalogue, self.world.estimator, counted)

    async def _publish_settle_task(self, ref: AttemptRef) -> None:
        self._queue.publish_settle_tasks([ref])

    async def _settle_here(self, ref: AttemptRef) -> None:
        self.ai_call_logger.settle([ref])
