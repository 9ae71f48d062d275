"""
The ledger as one process reaches it: each statement is a step at which a fault may happen.

A statement that was sent belongs to the database. It may take effect after its answer was lost, after its process gave
up, and after its process died.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.delivery import Delivery, LinkOutcome
from callgate.domain.errors import LedgerUnavailable, OrganisationFrozen
from callgate.domain.ledger import (
    DueBatch,
    NewSubmission,
    Reaper,
    RecordAnswer,
    RecordOutcome,
    ReserveCommand,
    ReserveOutcome,
    Settle,
    SettleOutcome,
    Submitted,
)
from callgate.domain.limits import Declaration, Learned
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import BreakerLine, By, CallFilter, EndReason
from callgate.domain.unknown import SettleByHand, SettledByHand, UnknownBill, UnknownFilter
from tests.simulation.faults import OUTAGE, STATEMENT
from tests.simulation.scheduler import Owner

if TYPE_CHECKING:
    from tests.simulation.world import World

TIMEOUT_S = 2.0
FAILS_ALONE = frozenset({"refused", "answer lost", "lands late"})
"""Faults of one statement that are no outage of the ledger."""


class Statement:
    """One statement under way: it may be slow, meet a lock or an outage, lose its answer, or outlive its process."""

    def __init__(
        self,
        world: World,
        owner: Owner,
        name: str,
        arguments: Sequence[Any],
        options: Mapping[str, Any],
    ) -> None:
        self._world = world
        self._owner = owner
        self._name = name
        self._arguments = arguments
        self._options = options
        self._fault: str | None = None
        self._answers: list[object] = []

    def run(self) -> object:
        """
        Execute it.

        Raises:
            LedgerUnavailable: No answer came; the statement may have taken effect, or still will.
        """
        self._draw_fault()
        self._world.scheduler.suspend(self._send)
        if not self._answers:
            raise LedgerUnavailable("no answer")
        return self._answers[0]

    def _draw_fault(self) -> None:
        world, scheduler, name = self._world, self._world.scheduler, self._name
        fault = world.faults.one_of(STATEMENT)
        if fault in FAILS_ALONE and world.is_ledger_away():
            fault = None
        self._fault = fault
        scheduler.counts[fault or "statement"] += 1
        if fault:
            scheduler.tell(self._owner.name, f"{world.names.asked(name, self._arguments)}: {fault}")
        if fault == "dies before statement":
            scheduler.die(self._owner, f"before {name}")
        if fault == "pauses":
            self._owner.paused_until = scheduler.now + world.rng.uniform(1, 60)
            world.troubled(self._owner)
        if fault in FAILS_ALONE and name in ("reserve", "record"):
            world.troubled(self._owner, self._arguments[0])
        if fault in FAILS_ALONE and name == "leases.renew":
            # A process that cannot reach the ledger for long is declared dead though it lives. That is allowed.
            world.troubled(self._owner)

    def _send(self, resume: Callable[[], object]) -> None:
        """Plan when the statement arrives, and when its process goes on."""
        scheduler, rng = self._world.scheduler, self._world.rng
        takes_s = rng.uniform(0.1, TIMEOUT_S) if self._fault == "slow statement" else 0.01
        if self._fault == "refused":
            scheduler.after(rng.uniform(0, TIMEOUT_S), resume, self._owner)
        elif self._fault in ("answer lost", "lands late"):
            late_s = rng.uniform(0, 40) if self._fault == "lands late" else 0
            scheduler.after(
                takes_s + late_s, lambda: self._world.is_ledger_away() or self._execute()
            )
            scheduler.after(TIMEOUT_S, resume, self._owner)
        else:
            scheduler.after(takes_s, lambda: self._arrive(resume))

    def _arrive(self, resume: Callable[[], object]) -> None:
        world, scheduler = self._world, self._world.scheduler
        if locked_s := world.lock_wait_s(self._owner, self._name, self._arguments):
            if locked_s < TIMEOUT_S:
                scheduler.after(locked_s, lambda: self._arrive(resume))
            else:
                scheduler.after(TIMEOUT_S, resume, self._owner)
        elif world.is_ledger_away():
            self._meet_outage(resume)
        elif self._name in ("reserve", "record") and world.faults.one_of(OUTAGE):
            self._begin_outage(resume)
        else:
            self._answers.append(self._execute())
            if self._fault == "dies after statement":
                scheduler.kill(self._owner, f"after {self._name}")
            else:
                scheduler.after(world.rng.uniform(0, 0.01), resume, self._owner)

    def _meet_outage(self, resume: Callable[[], object]) -> None:
        world, scheduler = self._world, self._world.scheduler
        scheduler.counts["statement in an outage"] += 1
        if world.rng.random() < 0.3:
            # A database that was stopped executes what it had read once it is resumed.
            scheduler.after(world.ledger_away_until - scheduler.now, self._execute)
        scheduler.after(world.rng.uniform(0, TIMEOUT_S), resume, self._owner)

    def _begin_outage(self, resume: Callable[[], object]) -> None:
        world, scheduler = self._world, self._world.scheduler
        if world.rng.random() < 0.5:
            self._execute()
        scheduler.counts["outage begins"] += 1
        world.ledger_goes_away(world.rng.choice((2, 4, 10, 30, 60)))
        scheduler.after(TIMEOUT_S, resume, self._owner)

    def _execute(self) -> object:
        return self._world.execute(self._owner, self._name, self._arguments, self._options)


class FaultyLedger:
    """`LedgerPort`, and what operators ask, as one process sees them."""

    def __init__(self, world: World, owner: Owner) -> None:
        self.world = world
        self.owner = owner

    def submit(self, batch: Sequence[NewSubmission]) -> list[Submitted]:
        """See `LedgerPort`."""
        return cast("list[Submitted]", self.ask("submit", list(batch)))

    def read(
        self, keys: Sequence[CallKey | AttemptRef], bodies: Bodies = Bodies.NONE
    ) -> list[CallView | None]:
        """See `LedgerPort`."""
        return cast("list[CallView | None]", self.ask("read", list(keys), bodies))

    def reserve(self, batch: Sequence[ReserveCommand]) -> list[ReserveOutcome]:
        """See `LedgerPort`."""
        return cast("list[ReserveOutcome]", self.ask("reserve", list(batch)))

    def record(self, batch: Sequence[RecordAnswer]) -> list[RecordOutcome]:
        """See `LedgerPort`."""
        return cast("list[RecordOutcome]", self.ask("record", list(batch)))

    def settle(self, batch: Sequence[Settle]) -> list[SettleOutcome]:
        """See `LedgerPort`."""
        return cast("list[SettleOutcome]", self.ask("settle", list(batch)))

    def take_due(self, *, limit: int, reaper: Reaper | None = None) -> DueBatch:
        """See `LedgerPort`."""
        return cast(DueBatch, self.ask("take_due", limit=limit, reaper=reaper))

    def take_lost_messages(self, *, limit: int, queued_before: datetime) -> DueBatch:
        """See `LedgerPort`."""
        options = {"limit": limit, "queued_before": queued_before}
        return cast(DueBatch, self.ask("take_lost_messages", **options))

    def links(
        self, *, limit: int, after: str = "", keys: Sequence[CallKey] | None = None
    ) -> list[Delivery]:
        """See `LedgerPort`."""
        options = {"limit": limit, "after": after, "keys": keys}
        return cast("list[Delivery]", self.ask("links", **options))

    def keep_link_outcomes(self, outcomes: Sequence[LinkOutcome]) -> None:
        """See `LedgerPort`."""
        self.ask("keep_link_outcomes", list(outcomes))

    def calls(self, call_filter: CallFilter, *, limit: int) -> list[CallView]:
        """See `OperationsPort`."""
        return cast("list[CallView]", self.ask("calls", call_filter, limit=limit))

    def end(self, keys: Sequence[CallKey], *, code: EndReason, message: str) -> list[CallKey]:
        """See `OperationsPort`."""
        return cast("list[CallKey]", self.ask("end", list(keys), code=code, message=message))

    def set_budget(self, org_id: str, scope: str, window: Window, limit: int) -> BudgetFigures:
        """See `OperationsPort`."""
        return cast(BudgetFigures, self.ask("set_budget", org_id, scope, window, limit))

    def set_breaker(
        self, provider: str, model: str, credential: str, org_id: str = "", *, is_open: bool, by: By
    ) -> BreakerLine:
        """See `OperationsPort`."""
        options = {"is_open": is_open, "by": by}
        key = provider, model, credential, org_id
        return cast(BreakerLine, self.ask("set_breaker", *key, **options))

    def unknown_bills(self, which: UnknownFilter, *, limit: int) -> list[UnknownBill]:
        """See `OperationsPort`."""
        return cast("list[UnknownBill]", self.ask("unknown_bills", which, limit=limit))

    def settle_by_hand(self, batch: Sequence[SettleByHand], *, by: By) -> list[SettledByHand]:
        """See `OperationsPort`."""
        return cast("list[SettledByHand]", self.ask("settle_by_hand", list(batch), by=by))

    def pause(self, key: PauseKey, *, by: By) -> Pause:
        """See `OperationsPort`."""
        return cast(Pause, self.ask("pause", key, by=by))

    def resume(self, key: PauseKey, *, by: By) -> bool:
        """See `OperationsPort`."""
        return cast(bool, self.ask("resume", key, by=by))

    def ask(self, name: str, *arguments: Any, **options: Any) -> object:
        """
        Run one statement.

        Raises:
            LedgerUnavailable: No answer came; the statement may have taken effect, or still will.
            OrganisationFrozen: The ledger refused a submission.
        """
        answer = Statement(self.world, self.owner, name, arguments, options).run()
        if isinstance(answer, OrganisationFrozen):
            raise answer
        return answer


class FaultyFlow:
    """`FlowPort` as one process sees it."""

    def __init__(self, line: FaultyLedger) -> None:
        self._line = line

    def publish(self, worker_id: str, declaration: Declaration) -> None:
        """See `FlowPort`."""
        self._line.ask("flow.publish", worker_id, declaration)

    def learn(self, batch: Sequence[Learned]) -> None:
        """See `FlowPort`."""
        self._line.ask("flow.learn", list(batch))


class FaultyLeases:
    """`LeasePort` as one process sees it."""

    def __init__(self, line: FaultyLedger) -> None:
        self._line = line

    def renew(self, worker_id: str, lease_s: float, slots: int | None = None) -> datetime:
        """See `LeasePort`."""
        return cast(datetime, self._line.ask("leases.renew", worker_id, lease_s, slots))

    def release(self, worker_id: str) -> None:
        """See `LeasePort`."""
        self._line.ask("leases.release", worker_id)

    def expire(self, reaper: str) -> list[str]:
        """See `LeasePort`."""
        return cast("list[str]", self._line.ask("leases.expire", reaper))
