"""
What the contract suite says things with: builders for what goes into a ledger, and a `LedgerUnderTest`.

Builders have a default for everything; a test names only what it is about. The same `content` in the same
organisation is the same call. Amounts are nano-USD.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal
from uuid import UUID, uuid4

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.postgres.alerts import PostgresAlerts
from callgate.adapters.postgres.cost_series import PostgresCostSeries
from callgate.adapters.postgres.dead_letters import PostgresEndedCalls
from callgate.adapters.postgres.figures import PostgresFigures
from callgate.adapters.postgres.fingerprints import PostgresFingerprints
from callgate.adapters.postgres.flow import PostgresFlow
from callgate.adapters.postgres.leases import PostgresLeases
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.overview import PostgresOverview
from callgate.adapters.postgres.retention import PostgresRetention
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.sums import PostgresSums
from callgate.adapters.postgres.worker_lines import PostgresWorkers
from callgate.domain.alerts import AlertsPort
from callgate.domain.budgets import ORG_SCOPE, BudgetFigures, Window
from callgate.domain.calls import AttemptRef, AttemptStatus, Bodies, CallKey, CallState, CallView
from callgate.domain.cost_series import CostSeriesPort
from callgate.domain.dead_letters import EndedCallsPort
from callgate.domain.delivery import Delivery, LinkOutcome
from callgate.domain.flow_ports import FlowPort
from callgate.domain.identity import call_id
from callgate.domain.ledger import (
    Due,
    DueKind,
    Locked,
    NewSubmission,
    Reaper,
    RecordAnswer,
    RecordOutcome,
    Reserve,
    ReserveCommand,
    Reserved,
    ReserveOutcome,
    Settle,
    Settled,
    Submitted,
)
from callgate.domain.metric_ports import FiguresPort
from callgate.domain.operator_ports import OperationsPort, RetentionPort, SumsPort
from callgate.domain.overview import OverviewPort
from callgate.domain.ports import FingerprintPort, LeasePort, LedgerPort
from callgate.domain.provider import Billing, Failure
from callgate.domain.reports import By, CallFilter, EndReason
from callgate.domain.requests import Usage
from callgate.domain.retention import BodyAges, Purged
from callgate.domain.retry import WORKER_LOST
from callgate.domain.worker_lines import WorkersPort
from tests.support.ledger_rows import age_rows, holding, holding_in_memory
from tests.support.manual_clock import ManualClock, counted_ids

ORG = "acme"
LIMIT = 1_000
"""What the ledger under test lets `ORG` spend per day."""
DAY_S = 86_400
LEASE_S = 45.0
REAPER = Reaper("host:9:reaper", 0.0)
"""May expire attempts as soon as it has renewed its lease. Tests of reapers have others."""
LINK = '{"task":"pipeline.store","args":[7]}'
REPLY = b'{"texts": ["\\u0000 yes"],  "model":"gpt-4o-mini"}'
USAGE = Usage(
    input_tokens=50,
    cached_input_tokens=10,
    cache_write_tokens=8,
    output_tokens=20,
    reasoning_tokens=5,
    cache_write_1h_tokens=3,
)
RATE_LIMITED = Failure("rate_limited", "slow down", True, Billing.UNBILLED, status=429)
_claims = itertools.count(1)


def a_submission(content: str = "invoice", *, org_id: str = ORG, **changes: Any) -> NewSubmission:
    """A submission of its own id; `content` decides which call it is."""
    input_hash = hashlib.sha256(content.encode()).digest()
    submission = NewSubmission(
        submission_id=uuid4(),
        org_id=org_id,
        call_id=call_id(org_id, input_hash),
        input_hash=input_hash,
        call_type="extraction",
        provider="openai",
        model="gpt-4o-mini",
        input_token_bound=100,
        request=json.dumps({"messages": [content]}).encode(),
    )
    return replace(submission, **changes)


def a_reserve(key: CallKey, hold_nano_usd: int = 100, **changes: Any) -> Reserve:
    """A claim of its own, by a worker that never claimed before."""
    reserve = Reserve(
        key=key,
        hold_nano_usd=hold_nano_usd,
        expires_in_s=LEASE_S,
        worker_id=f"worker-1:{next(_claims)}",
        price_source="overlay 2026-11-01: reserved",
    )
    return replace(reserve, **changes)


def an_answer(ref: AttemptRef, **changes: Any) -> RecordAnswer:
    """A reply that came within 40 ms."""
    return replace(RecordAnswer(ref, REPLY, None, 40, "req-1"), **changes)


def a_success(ref: AttemptRef, posted_nano_usd: int = 60, **changes: Any) -> Settle:
    """An answered attempt that ends its call well."""
    settle = Settle(
        ref, AttemptStatus.ANSWERED, AttemptStatus.SUCCEEDED, posted_nano_usd, CallState.SUCCEEDED,
        usage=USAGE, price_source="overlay 2026-11-01: settled", service_tier="default",
    )  # fmt: skip
    return replace(settle, **changes)


def a_failure(
    ref: AttemptRef,
    next_state: Literal[CallState.WAITING, CallState.DEAD] = CallState.DEAD,
    **changes: Any,
) -> Settle:
    """An answered attempt that brought an unbilled error."""
    settle = Settle(
        ref, AttemptStatus.ANSWERED, AttemptStatus.FAILED, 0, CallState.DEAD,
        error=RATE_LIMITED.to_json(), error_fingerprint=RATE_LIMITED.fingerprint("openai"),
    )  # fmt: skip
    return replace(settle, next_state=next_state, **changes)


def a_loss(ref: AttemptRef, posted_nano_usd: int = 100, **changes: Any) -> Settle:
    """A dispatched attempt that nobody heard of again: its whole hold is posted, the call is tried again at once."""
    settle = Settle(
        ref, AttemptStatus.DISPATCHED, AttemptStatus.UNKNOWN, posted_nano_usd, CallState.WAITING,
        due_in_s=0.0,
        error=WORKER_LOST.to_json(), error_fingerprint=WORKER_LOST.fingerprint("openai"),
    )  # fmt: skip
    return replace(settle, **changes)


@dataclass(frozen=True)
class LedgerUnderTest:
    """A fresh ledger in which `ORG` may spend `LIMIT` per day, and the shortest ways to bring it somewhere."""

    ledger: LedgerPort
    operations: OperationsPort
    leases: LeasePort
    flow: FlowPort
    ledger_figures: FiguresPort
    age: Callable[[float], None]
    """Make everything that is stored look that many seconds older."""
    retention: RetentionPort
    noon_zone_in: Callable[[float], str]
    """A time zone where it is about noon after that many seconds of ageing."""
    holding: Callable[[CallKey], AbstractContextManager[None]]
    """Keep a call locked, as a client does whose submission has joined it in a transaction that stays open."""
    fingerprints: FingerprintPort
    alerts: AlertsPort
    sums: SumsPort
    overview: OverviewPort
    ended: EndedCallsPort
    cost_series: CostSeriesPort
    workers: WorkersPort

    @property
    def noon_zone(self) -> str:
        """A time zone where it is about noon, so that no test meets the end of a day by chance."""
        return self.noon_zone_in(0)

    def submit(self, *batch: NewSubmission) -> list[Submitted]:
        """Submit one batch."""
        return self.ledger.submit(batch)

    def reserve(self, *batch: ReserveCommand) -> list[ReserveOutcome]:
        """Decide one batch of queued calls."""
        return self.ledger.reserve(batch)

    def record(self, *batch: RecordAnswer) -> list[RecordOutcome]:
        """Record one batch."""
        return self.ledger.record(batch)

    def settle(self, *batch: Settle) -> list[Settled]:
        """Settle one batch in which every row can be stored; what is locked is tried again."""
        outcomes = self.ledger.settle(batch)
        give_up_at = time.monotonic() + 10
        while locked := [n for n, o in enumerate(outcomes) if isinstance(o, Locked)]:
            assert time.monotonic() < give_up_at
            for n, outcome in zip(
                locked, self.ledger.settle([batch[n] for n in locked]), strict=True
            ):
                outcomes[n] = outcome
        settled = [outcome for outcome in outcomes if isinstance(outcome, Settled)]
        assert settled == outcomes
        return settled

    def links(
        self, *, limit: int = 100, after: str = "", keys: Sequence[CallKey] | None = None
    ) -> list[Delivery]:
        """Take links to deliver, of organisations in turn or of some calls."""
        return self.ledger.links(limit=limit, after=after, keys=keys)

    def deliver(self, *submission_ids: UUID) -> None:
        """Say that links were published."""
        self.ledger.keep_link_outcomes(
            [LinkOutcome(submission_id) for submission_id in submission_ids]
        )

    def due(self, *, limit: int = 100, expire: bool = True) -> tuple[Due, ...]:
        """Take what is due; with `expire` as a process whose lease is in order."""
        if not expire:
            return self.ledger.take_due(limit=limit).items
        self.leases.renew(REAPER.worker_id, DAY_S)
        return self.ledger.take_due(limit=limit, reaper=REAPER).items

    def due_kinds(self, *, expire: bool = True) -> list[tuple[DueKind, CallKey]]:
        """Take what is due, by kind and call."""
        return [(due.kind, due.key) for due in self.due(expire=expire)]

    def purge(self, age_s: float = 0.0, *, limit: int = 100) -> Purged:
        """Purge whatever ended that long ago."""
        return self.retention.purge(BodyAges(age_s), limit=limit)

    def now(self) -> datetime:
        """The ledger's own time."""
        return self.operations.snapshot().at

    def view(self, key: CallKey | AttemptRef, bodies: Bodies = Bodies.NONE) -> CallView:
        """Read one call that exists."""
        (view,) = self.ledger.read([key], bodies)
        assert view is not None
        return view

    def state(self, key: CallKey) -> CallState:
        """The state of a call that exists."""
        return self.view(key).state

    def set_budget(
        self, limit: int, *, scope: str = ORG_SCOPE, window: Window = Window.DAY, org_id: str = ORG
    ) -> BudgetFigures:
        """Set a budget whose day is about half over."""
        return self.operations.set_budget(org_id, scope, window, limit, self.noon_zone)

    def figures(self, scope: str = ORG_SCOPE, window: Window = Window.DAY) -> tuple[int, int]:
        """What is reserved and spent in the newest period of one of ORG's budgets."""
        (budget,) = [
            b for b in self.operations.budgets(ORG) if b.scope == scope and b.window is window
        ]
        return budget.reserved_nano_usd, budget.spent_nano_usd

    def queued(self, content: str = "invoice", **changes: Any) -> CallKey:
        """Submit something."""
        return self.submit(a_submission(content, **changes))[0].key

    def running(
        self, content: str = "invoice", hold_nano_usd: int = 100, **changes: Any
    ) -> AttemptRef:
        """Submit something (or join it) and claim it."""
        return self.claim(self.queued(content, **changes), hold_nano_usd)

    def claim(self, key: CallKey, hold_nano_usd: int = 100) -> AttemptRef:
        """Claim a queued call."""
        (reserved,) = self.reserve(a_reserve(key, hold_nano_usd))
        assert isinstance(reserved, Reserved)
        return reserved.ref

    def answered(self, content: str = "invoice", **changes: Any) -> AttemptRef:
        """Submit and claim something, and record a reply to it."""
        ref = self.running(content, **changes)
        assert self.record(an_answer(ref)) == [RecordOutcome.RECORDED]
        return ref

    def succeeded(
        self, content: str = "invoice", posted_nano_usd: int = 60, **changes: Any
    ) -> AttemptRef:
        """Bring a call to its good end."""
        ref = self.answered(content, **changes)
        assert self.settle(a_success(ref, posted_nano_usd))[0].is_applied
        return ref

    def dead(self, content: str = "invoice", **changes: Any) -> AttemptRef:
        """Bring a call to its bad end."""
        ref = self.answered(content, **changes)
        assert self.settle(a_failure(ref))[0].is_applied
        return ref

    def waiting(
        self, content: str = "invoice", due_in_s: float = 0.0, **changes: Any
    ) -> AttemptRef:
        """Let the first attempt of a call fail, to be tried again."""
        ref = self.answered(content, **changes)
        assert self.settle(a_failure(ref, CallState.WAITING, due_in_s=due_in_s))[0].is_applied
        return ref

    def lost(self, content: str = "invoice", **changes: Any) -> AttemptRef:
        """Let the worker of a call vanish; the call waits, and is due."""
        ref = self.running(content, **changes)
        assert self.settle(a_loss(ref))[0].is_applied
        return ref

    def requeued(self, key: CallKey) -> CallKey:
        """Take a waiting call that is due back into the queue."""
        assert (DueKind.PUBLISH, key) in self.due_kinds()
        return key

    def rejected(self, content: str = "invoice", **changes: Any) -> CallKey:
        """Cancel a queued call."""
        key = self.queued(content, **changes)
        assert self.operations.end([key], code=EndReason.CANCELLED, message="by a test") == [key]
        return key

    def count_calls(self) -> int:
        """How many generations of calls there are."""
        return len(self.operations.calls(CallFilter(), limit=1_000))


def open_memory() -> LedgerUnderTest:
    """A memory ledger whose clock moves only when it is aged."""
    clock = ManualClock()
    ledger = MemoryLedger(clock, counted_ids())
    return _with_budget(
        LedgerUnderTest(
            ledger,
            ledger,
            ledger.leases,
            ledger.flow,
            ledger.figures,
            clock.advance,
            ledger,
            lambda s: _noon_zone(clock.at + timedelta(seconds=s)),
            partial(holding_in_memory, ledger),
            ledger.fingerprints,
            ledger.kept_alerts,
            ledger,
            ledger.overview,
            ledger.ended_calls,
            ledger.cost_series,
            ledger.workers,
        )
    )


def open_postgres(session: PostgresSession) -> LedgerUnderTest:
    """A Postgres ledger over empty, migrated tables; it is aged by moving its times into the past."""
    engine = session.engine
    return _with_budget(
        LedgerUnderTest(
            ledger=PostgresLedger(session),
            operations=PostgresOperations(session),
            leases=PostgresLeases(session),
            flow=PostgresFlow(session),
            ledger_figures=PostgresFigures(session),
            age=lambda seconds: age_rows(engine, seconds),
            retention=PostgresRetention(session),
            # Its rows are aged, not its clock.
            noon_zone_in=lambda _: _noon_zone(datetime.now(UTC)),
            holding=partial(holding, session.url),
            fingerprints=PostgresFingerprints(session),
            alerts=PostgresAlerts(session),
            sums=PostgresSums(session),
            overview=PostgresOverview(session),
            ended=PostgresEndedCalls(session),
            cost_series=PostgresCostSeries(session),
            workers=PostgresWorkers(session),
        )
    )


def _with_budget(under_test: LedgerUnderTest) -> LedgerUnderTest:
    under_test.set_budget(LIMIT)
    # Tests about breakers have models of their own.
    under_test.operations.set_breaker(
        "openai", "gpt-4o-mini", "", is_open=False, by=By("tests", "it answers")
    )
    return under_test


def _noon_zone(at: datetime) -> str:
    """POSIX counts zones westward: where it is noon at 5 o'clock UTC is `Etc/GMT-7`."""
    return f"Etc/GMT{at.hour - 12:+d}"
