"""
A worker process: the real services over the models, a clock of its own, and a memory that dies with it.

It does with messages what `tasks/` does, and what `worker/` does around them: it settles in batches until that is
done, runs due queries and sends sweeps.
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
from callgate.services.delivery import DeliveryService
from callgate.services.lease import RENEW_AT_SHARE, LeaseService
from callgate.services.llm_composition import compose_llm_service
from callgate.services.recovery import RecoveryService
from callgate.services.retrying_ledger import OutagePolicy
from callgate.services.skipped_rows import SkippedRows
from tests.simulation.broker import FaultyBroker, Message
from tests.simulation.faults import TASK
from tests.simulation.faulty_ledger import FaultyLeases, FaultyLedger
from tests.simulation.provider import FaultyProvider
from tests.simulation.scheduler import Owner, drive

if TYPE_CHECKING:
    from tests.simulation.world import World

GRACE_S = 8.0
LEASE_S = 10.0
CLAIM_PATIENCE_S = 30.0
DUE_INTERVAL_S = 2.0
SWEEP_INTERVAL_S = 5.0
SWEEP_SLACK_S = 2.0


class Clock:
    """`ClockPort` of one process: it started anywhere and runs a little fast or slow, so it fits no other clock."""

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
    """`CallLedger` over a process's line: single items."""

    def __init__(self, line: FaultyLedger) -> None:
        self._line = line

    async def read(self, key: CallKey) -> CallView | None:
        """Look at one call."""
        return self._line.read([key], Bodies.LIGHT)[0]

    async def read_whole(self, key: CallKey) -> CallView | None:
        """Look at one call, however large."""
        return self._line.read([key], Bodies.REQUEST)[0]

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
        self._to_log: list[Message] = []
        self._is_logging = False
        line, self._queue = FaultyLedger(world, self), FaultyBroker(world, self)
        leases = FaultyLeases(line)
        unclaimed = SkippedRows[CallKey](self.clock, nullcontext())
        unsettled = SkippedRows[AttemptRef](self.clock, nullcontext())
        self.lease = LeaseService(leases=leases, clock=self.clock, worker_id=name, lease_s=LEASE_S)
        self.delivery = DeliveryService(ledger=line, queue=self._queue, clock=self.clock)
        self.ai_call_logger = AICallLogger(
            ledger=line,
            delivery=self.delivery,
            costs=world.costs,
            validator=world.validator,
            catalogue=world.catalogue,
            jitter=self.clock.jitter,
            monotonic=self.clock.monotonic,
            on_headroom_freed=lambda: None,
            sleep=self.clock.block,
            on_locked=unsettled.add,
        )
        self.llm = compose_llm_service(
            ledger=SingleCallLedger(line),
            providers={"sim": FaultyProvider(world, self)},
            costs=world.costs,
            catalogue=world.catalogue,
            ask_gates=self._ask_gates,
            publish_settle_task=self._publish_log,
            settle_here=self._settle_here,
            clock=self.clock,
            now=self.clock.wall,
            outages=OutagePolicy(grace_s=GRACE_S, give_up_after_s=CLAIM_PATIENCE_S),
            worker_id=name,
            lease_epoch=self.lease.epoch,
            default_limit_nano_usd=world.default_limit,
            on_locked=unclaimed.add,
        )
        self.due = RecoveryService(
            ledger=line,
            leases=leases,
            worker_id=name,
            queue=self._queue,
            ai_call_logger=self.ai_call_logger,
            clock=self.clock,
            grace_s=GRACE_S,
            sweep_min_age_s=SWEEP_SLACK_S,
            unclaimed=unclaimed,
            unsettled=unsettled,
        )
        world.scheduler.spawn(self, self._due_loop)
        world.scheduler.spawn(self, self._delivery_loop)
        world.scheduler.spawn(self, self._keep_lease)

    @property
    def has_room(self) -> bool:
        """True if it takes messages: also while it is paused, for its sockets are open."""
        return self.is_alive and self._running < self.world.slots

    def take(self, message: Message) -> None:
        """Begin with a message."""
        spawn = self.world.scheduler.spawn
        if not isinstance(message.body, AttemptRef):
            self._running += 1
            spawn(self, lambda: self._run(message))
            return
        self._to_log.append(message)
        if not self._is_logging:
            self._is_logging = True
            spawn(self, self._log)

    def after_death(self) -> None:
        """Another process starts in its place."""
        self.world.restart(self)

    def _run(self, message: Message) -> None:
        try:
            if isinstance(message.body, CallKey):
                came_to = drive(self.llm.execute(message.body))
                self.world.scheduler.counts[f"call task: {came_to}"] += 1
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

    def _log(self) -> None:
        """Settle whatever has come in since the last batch, again and again until it is settled."""
        while batch := self._to_log:
            self._to_log = []
            refs = [m.body for m in batch if isinstance(m.body, AttemptRef)]
            while not self._settled(refs):
                self.clock.block(self.clock.jitter())
            for message in batch:
                self._end(message)
        self._is_logging = False

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
                # A look that finds nothing is no step: it would only draw faults that others want.
                taken = self.world.ledger.tables.untold and self.delivery.run()
            except Unavailable:
                self.world.scheduler.counts["delivery loop in vain"] += 1
            if not taken:
                self.clock.block(DUE_INTERVAL_S * (0.5 + self.clock.jitter()), idle=True)

    def _keep_lease(self) -> None:
        while True:
            try:
                self.lease.renew()
            except Unavailable:
                self.world.scheduler.counts["renewal in vain"] += 1
            self.clock.block(LEASE_S * RENEW_AT_SHARE, idle=True)

    async def _ask_gates(self, request: LLMRequest, counted: int) -> TokenBound:
        return gates.check(request, self.world.catalogue, self.world.estimator, counted)

    async def _publish_log(self, ref: AttemptRef) -> None:
        self._queue.publish_settle_tasks([ref])

    async def _settle_here(self, ref: AttemptRef) -> None:
        self.ai_call_logger.settle([ref])
