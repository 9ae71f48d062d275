"""All services over ports in memory, with a clock that moves only when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.json_schema_validator import JsonSchemaValidator
from callgate.adapters.memory.call_ledger import MemoryCallLedger
from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain import gates
from callgate.domain.budgets import Window
from callgate.domain.call_order import Lane
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.catalogue import CallTypePolicy, Catalogue, ProviderEntry
from callgate.domain.delivery import Delivery, Published
from callgate.domain.errors import BrokerUnavailable, LedgerUnavailable
from callgate.domain.flow_ports import FlowPort
from callgate.domain.ledger import (
    RecordAnswer,
    RecordOutcome,
    ReserveCommand,
    ReserveOutcome,
    Submitted,
)
from callgate.domain.metric_ports import NO_METER, Meter
from callgate.domain.ports import LLMProviderPort, OutputValidatorPort
from callgate.domain.price_entry import PriceEntry
from callgate.domain.provider import Failure, ProviderReply, TokenBound
from callgate.domain.requests import LLMRequest, Message, Usage
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.claims import Claimant
from callgate.services.dead_letters import DeadLetterService
from callgate.services.delivery import DeliveryService
from callgate.services.large_requests import RequestRoom, endless_room
from callgate.services.learned_limits import LearnedLimits
from callgate.services.lease import LeaseService
from callgate.services.llm_composition import compose_llm_service
from callgate.services.llm_service import LLMService
from callgate.services.quarantine import RunQuarantined
from callgate.services.recovery import RecoveryService
from callgate.services.reservations import ClaimTerms
from callgate.services.retrying_ledger import LedgerAccess, OutagePolicy
from callgate.services.settle_task_publisher import SettleTaskPublisher
from callgate.services.skipped_rows import SkippedRows
from callgate.services.submit import SubmitService
from callgate.services.tracing import NO_TRACING, Tracing

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
GRACE_S = 10.0
WORKER_ID = "worker"
LEASE_S = 10.0**6
"""Longer than any test moves the clock, except tests of leases."""
OVERLAY = PriceEntry(
    provider="sim",
    model="sim-1",
    input_usd_per_million=1,
    cached_input_usd_per_million=Decimal("0.1"),
    output_usd_per_million=2,
    source="test",
    as_of=NOON.date(),
)
POLICY = CallTypePolicy(
    max_output_tokens_default=100,
    deadline_s=30,
    attempts_max=3,
    worker_losses_max=2,
    retry_wait_s=1,
)
ENTRY = ProviderEntry(needs_key=False)
REPLY = ProviderReply(
    texts=("yes",),
    finish_reason="stop",
    refusal=None,
    usage=Usage(input_tokens=10, output_tokens=5),
    service_tier=None,
    model="sim-1-2026",
    provider_request_id="req-1",
)
REPLY_COST = 10 * 1_000 + 5 * 2_000
"""What `REPLY` costs at the overlay's price, in nano-USD."""


class ManualClock:
    """`ClockPort` and the ledger's clock in one: sleeping moves both."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.jitter_value = 0.5

    def now(self) -> datetime:
        """The ledger's time."""
        return NOON + timedelta(seconds=self.elapsed_s)

    def monotonic(self) -> float:
        """The process's time."""
        return self.elapsed_s

    def jitter(self) -> float:
        """Always the same."""
        return self.jitter_value

    async def sleep(self, seconds: float) -> None:
        """Move on, and let others run."""
        self.pass_time(seconds)
        await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        """Move on."""
        self.elapsed_s += seconds


@dataclass
class RecordingQueue:
    """`QueuePort` that keeps what was published. While `is_away` it is unavailable."""

    calls: list[CallKey] = field(default_factory=list)
    settle_tasks: list[AttemptRef] = field(default_factory=list)
    links: list[Delivery] = field(default_factory=list)
    sweeps: list[datetime] = field(default_factory=list)
    is_away: bool = False
    refused: dict[str, Published] = field(default_factory=dict)
    """By their text: links that are not published, and what becomes of them."""

    def publish_calls(
        self, keys: Sequence[CallKey], lane: Lane = Lane.CALL, *, traceparent: str | None = None
    ) -> None:
        """Keep call tasks."""
        self._ask()
        self.calls += keys

    def publish_settle_tasks(self, refs: Sequence[AttemptRef]) -> None:
        """Keep settle tasks."""
        self._ask()
        self.settle_tasks += refs

    def publish_sweep(self, sent_at: datetime) -> None:
        """Keep a sweep."""
        self._ask()
        self.sweeps.append(sent_at)

    def publish_links(self, deliveries: Sequence[Delivery]) -> list[Published]:
        """Keep links."""
        self._ask()
        self.links += [d for d in deliveries if d.link not in self.refused]
        return [
            replace(
                self.refused.get(d.link, Published(d.submission_id)), submission_id=d.submission_id
            )
            for d in deliveries
        ]

    def _ask(self) -> None:
        if self.is_away:
            raise BrokerUnavailable("away")


class ScriptedProvider:
    """Answers with what is scripted, one after the other; then with `REPLY`."""

    def __init__(self, clock: ManualClock) -> None:
        self.script: list[ProviderReply | Failure] = []
        self.requests: list[tuple[LLMRequest, UUID, float]] = []
        self.latency_s = 0.0
        self._clock = clock

    async def complete(
        self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float
    ) -> ProviderReply | Failure:
        """Take `latency_s` and answer."""
        self.requests.append((request, attempt_id, timeout_s))
        await self._clock.sleep(self.latency_s)
        return self.script.pop(0) if self.script else REPLY

    def credential(self, org_id: str) -> str:
        """Always the provider's key."""
        return ""

    async def aclose(self) -> None:
        """Nothing to close."""


class InterruptedCallLedger(MemoryCallLedger):
    """`outages` says how often each step fails before it works."""

    def __init__(self, ledger: MemoryLedger) -> None:
        super().__init__(ledger)
        self.outages: dict[str, int] = {}

    async def read(self, key: CallKey) -> CallView | None:
        """Look at one call."""
        self._ask("read")
        return await super().read(key)

    async def read_whole(self, key: CallKey) -> CallView | None:
        """Look at one call, however large."""
        self._ask("read_whole")
        return await super().read_whole(key)

    async def read_answer(self, ref: AttemptRef) -> CallView | None:
        """Look at one attempt's reply."""
        self._ask("read_answer")
        return await super().read_answer(ref)

    async def reserve(self, command: ReserveCommand) -> ReserveOutcome:
        """Claim, reject or defer it."""
        self._ask("reserve")
        return await super().reserve(command)

    async def record(self, record: RecordAnswer) -> RecordOutcome:
        """Keep its answer."""
        self._ask("record")
        return await super().record(record)

    def _ask(self, step: str) -> None:
        if self.outages.get(step, 0) > 0:
            self.outages[step] -= 1
            raise LedgerUnavailable("away")


class ServiceWorld:
    """All services over memory, for one organisation with a budget."""

    def __init__(
        self,
        *,
        limit_nano_usd: int = 10**9,
        policy: CallTypePolicy = POLICY,
        entry: ProviderEntry = ENTRY,
        lease_s: float = LEASE_S,
        run_quarantined: RunQuarantined | None = None,
        room: RequestRoom = endless_room,
        checker: OutputValidatorPort | None = None,
        flow: FlowPort | None = None,
        meter: Meter = NO_METER,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.meter = meter
        self.tracing = tracing
        self.clock = ManualClock()
        self.ledger = MemoryLedger(clock=self.clock.now)
        self.queue = RecordingQueue()
        self.provider = ScriptedProvider(self.clock)
        self.providers: dict[str, LLMProviderPort] = {"sim": self.provider}
        self.call_ledger = InterruptedCallLedger(self.ledger)
        self.unclaimed = SkippedRows[CallKey](self.clock, nullcontext())
        self.unsettled = SkippedRows[AttemptRef](self.clock, nullcontext())
        self.headroom_freed_at_s: list[float] = []
        """When the due query was asked to run at once."""
        self.lease = LeaseService(
            leases=self.ledger.leases,
            clock=self.clock,
            worker_id=WORKER_ID,
            lease_s=lease_s,
            slots=1_000,
        )
        self.lease.renew()
        self.catalogue = Catalogue(providers={"sim": entry}, default=policy, prices=(OVERLAY,))
        self.costs, self.validator = CostCalculator(self.catalogue), JsonSchemaValidator()
        self.estimator = TokenEstimator(self.catalogue)
        self.submits = self._compose_submit_service()
        self.delivery = DeliveryService(
            ledger=self.ledger, queue=self.queue, clock=self.clock, meter=meter
        )
        self.ai_call_logger = self._compose_ai_call_logger(checker or self.validator)
        self.learned = None if flow is None else LearnedLimits(flow, self.clock, nullcontext())
        self.llm = self._compose_llm_service(run_quarantined, room)
        self.due = self._compose_recovery_service()
        self.dead_letters = DeadLetterService(self.ledger, self.ledger, self.submits)
        self.ledger.set_budget("acme", "org", Window.DAY, limit_nano_usd)

    def _compose_submit_service(self) -> SubmitService:
        return SubmitService(
            ledger=self.ledger,
            queue=self.queue,
            estimator=self.estimator,
            costs=self.costs,
            validator=self.validator,
            catalogue=self.catalogue,
            now=self.clock.now,
        )

    def _compose_ai_call_logger(self, checker: OutputValidatorPort) -> AICallLogger:
        return AICallLogger(
            ledger=self.ledger,
            delivery=self.delivery,
            costs=self.costs,
            validator=checker,
            catalogue=self.catalogue,
            jitter=self.clock.jitter,
            monotonic=self.clock.monotonic,
            on_headroom_freed=lambda: self.headroom_freed_at_s.append(self.clock.elapsed_s),
            sleep=self.clock.pass_time,
            on_locked=self.unsettled.add,
            meter=self.meter,
            tracing=self.tracing,
        )

    def _compose_llm_service(
        self, run_quarantined: RunQuarantined | None, room: RequestRoom
    ) -> LLMService:
        return compose_llm_service(
            access=LedgerAccess(
                self.call_ledger, OutagePolicy(grace_s=GRACE_S), on_locked=self.unclaimed.add
            ),
            claimant=Claimant(WORKER_ID, self.lease.epoch),
            terms=ClaimTerms(self.catalogue, self.costs, self._ask_gates),
            providers=self.providers,
            settle_tasks=SettleTaskPublisher(self._publish_settle_task, self._settle_here),
            clock=self.clock,
            now=self.clock.now,
            run_quarantined=run_quarantined,
            room=room,
            learned=self.learned,
            meter=self.meter,
            tracing=self.tracing,
        )

    def _compose_recovery_service(self) -> RecoveryService:
        return RecoveryService(
            ledger=self.ledger,
            leases=self.ledger.leases,
            worker_id=WORKER_ID,
            queue=self.queue,
            ai_call_logger=self.ai_call_logger,
            clock=self.clock,
            grace_s=GRACE_S,
            sweep_min_age_s=2.0,
            unclaimed=self.unclaimed,
            unsettled=self.unsettled,
            meter=self.meter,
        )

    def submit(self, text: str = "hello", *, link: str | None = None, **fields: Any) -> Submitted:
        """Submit one request of acme."""
        request = a_request(text, **fields)
        (answer,) = self.ledger.submit([self.submits.prepare(request, link=link)])
        return answer

    def submit_traced(self, *requests: LLMRequest, link: str | None = None) -> list[Submitted]:
        """Submit in a span, as `callgate.submitter` does."""
        with self.tracing.submission(requests) as span:
            batch = [
                self.submits.prepare(request, link=link, traceparent=span.traceparent)
                for request in requests
            ]
            answers = self.submits.accept(batch)
            span.answered(answers)
        return answers

    async def run(self, key: CallKey) -> CallView:
        """Execute a call's task, then its settle task if there is one."""
        await self.llm.execute(key)
        refs, self.queue.settle_tasks = self.queue.settle_tasks, []
        self.ai_call_logger.settle(refs)
        return self.view(key)

    def view(self, key: CallKey) -> CallView:
        """The call as the ledger has it."""
        (view,) = self.ledger.read([key], Bodies.BOTH)
        assert view is not None
        return view

    async def _ask_gates(self, request: LLMRequest, counted: int) -> TokenBound:
        return gates.check(request, self.catalogue, self.estimator, counted)

    async def _publish_settle_task(self, ref: AttemptRef) -> None:
        self.queue.publish_settle_tasks([ref])

    async def _settle_here(self, ref: AttemptRef) -> None:
        self.ai_call_logger.settle([ref])


def a_request(text: str = "hello", **fields: Any) -> LLMRequest:
    """A request of acme to the simulated provider."""
    return LLMRequest(
        **{
            "org_id": "acme",
            "call_type": "test",
            "provider": "sim",
            "model": "sim-1",
            "messages": [Message(role="user", content=text)],
            **fields,
        }
    )
