"""
A process's line to the ledger: every statement is a step, at which it may be slow, lost, or the end of the process.

A statement under way belongs to the database. It takes effect although its answer is lost, although it was given up,
and although its process is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from callgate.domain.budgets import BudgetFigures, Window
from callgate.domain.calls import AttemptRef, Bodies, CallKey, CallView
from callgate.domain.delivery import Delivery, Told
from callgate.domain.errors import LedgerUnavailable
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
from callgate.domain.reports import BreakerLine, By, CallFilter
from callgate.domain.unknown import SettleByHand, SettledByHand, UnknownBill, UnknownFilter
from tests.simulation.faults import OUTAGE, STATEMENT
from tests.simulation.scheduler import Owner

if TYPE_CHECKING:
    from tests.simulation.world import World

TIMEOUT_S = 2.0
FAILS_ALONE = frozenset({"refused", "answer lost", "lands late"})
"""Faults of one statement that are no outage of the ledger."""


class LedgerLine:
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

    def deliver(self, outcomes: Sequence[Told]) -> None:
        """See `LedgerPort`."""
        self.ask("deliver", list(outcomes))

    def calls(self, wanted: CallFilter, *, limit: int) -> list[CallView]:
        """See `OperationsPort`."""
        return cast("list[CallView]", self.ask("calls", wanted, limit=limit))

    def end(self, keys: Sequence[CallKey], *, code: str, message: str) -> list[CallKey]:
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

    def ask(self, name: str, *arguments: Any, **options: Any) -> object:
        """
        Run one statement.

        Raises:
            LedgerUnavailable: No answer came; the statement may have taken effect, or still will.
        """
        scheduler, rng = self.world.scheduler, self.world.rng
        fate = self.world.faults.one_of(STATEMENT)
        if fate in FAILS_ALONE and self.world.is_ledger_away():
            fate = None
        scheduler.counts[fate or "statement"] += 1
        if fate:
            scheduler.tell(self.owner.name, f"{self.world.names.asked(name, arguments)}: {fate}")
        if fate == "dies before statement":
            scheduler.die(self.owner, f"before {name}")
        if fate == "pauses":
            self.owner.paused_until = scheduler.now + rng.uniform(1, 60)
            self.world.troubled(self.owner)
        if fate in FAILS_ALONE and name in ("reserve", "record"):
            self.world.troubled(self.owner, arguments[0])
        if fate in FAILS_ALONE and name == "leases.renew":
            # Cut off alone for long enough, a process is called dead though it lives: promised otherwise to nobody.
            self.world.troubled(self.owner)
        answers: list[object] = []

        def execute() -> object:
            return self.world.execute(self.owner, name, arguments, options)

        def arrange(resume: Callable[[], object]) -> None:
            takes_s = rng.uniform(0.1, TIMEOUT_S) if fate == "slow statement" else 0.01
            if fate == "refused":
                scheduler.after(rng.uniform(0, TIMEOUT_S), resume, self.owner)
            elif fate in ("answer lost", "lands late"):
                late_s = rng.uniform(0, 40) if fate == "lands late" else 0
                scheduler.after(takes_s + late_s, lambda: self.world.is_ledger_away() or execute())
                scheduler.after(TIMEOUT_S, resume, self.owner)
            else:
                scheduler.after(takes_s, lambda: lands(resume))

        def lands(resume: Callable[[], object]) -> None:
            if locked_s := self.world.lock_wait_s(self.owner, name, arguments):
                if locked_s < TIMEOUT_S:
                    scheduler.after(locked_s, lambda: lands(resume))
                else:
                    scheduler.after(TIMEOUT_S, resume, self.owner)
                return
            if self.world.is_ledger_away():
                scheduler.counts["statement in an outage"] += 1
                if rng.random() < 0.3:
                    # A stopped database executes what it had read when it is woken.
                    away_s = self.world.ledger_away_until - scheduler.now
                    scheduler.after(away_s, execute)
                scheduler.after(rng.uniform(0, TIMEOUT_S), resume, self.owner)
                return
            if name in ("reserve", "record") and self.world.faults.one_of(OUTAGE):
                if rng.random() < 0.5:
                    execute()
                scheduler.counts["outage begins"] += 1
                self.world.ledger_goes_away(rng.choice((2, 4, 10, 30, 60)))
                scheduler.after(TIMEOUT_S, resume, self.owner)
                return
            answers.append(execute())
            if fate == "dies after statement":
                scheduler.kill(self.owner, f"after {name}")
            else:
                scheduler.after(rng.uniform(0, 0.01), resume, self.owner)

        scheduler.suspend(arrange)
        if not answers:
            raise LedgerUnavailable("no answer")
        return answers[0]


class LeaseLine:
    """`LeasePort` as one process sees it."""

    def __init__(self, line: LedgerLine) -> None:
        self._line = line

    def renew(self, worker_id: str, lease_s: float) -> datetime:
        """See `LeasePort`."""
        return cast(datetime, self._line.ask("leases.renew", worker_id, lease_s))

    def release(self, worker_id: str) -> None:
        """See `LeasePort`."""
        self._line.ask("leases.release", worker_id)

    def expire(self, reaper: str) -> list[str]:
        """See `LeasePort`."""
        return cast("list[str]", self._line.ask("leases.expire", reaper))
