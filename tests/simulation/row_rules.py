"""What must be true of every row that a statement has touched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.domain.budgets import BudgetFigures
from callgate.domain.calls import AttemptStatus, CallKey, CallState
from tests.simulation.by_hand import ByHand

if TYPE_CHECKING:
    from callgate.domain.ledger import Reserve
    from tests.simulation.world import World

LATE_MAX_S = 45.0
"""More than a statement that was given up takes to land."""
WAIT_MAX = timedelta(days=32)
"""The longest wait is for the end of a month."""
S = CallState


def end_of_refused(call: CallRow, claim: Reserve) -> CallState:
    """How a call ends that may wait no longer: without its repair it keeps its last failure, and is dead."""
    return S.DEAD if claim.repair_after == call.attempt else S.REJECTED


STEPS = {
    None: {S.QUEUED, S.WAITING},
    S.QUEUED: {S.RUNNING, S.WAITING, S.SUCCEEDED, S.REJECTED, S.DEAD},
    S.RUNNING: {S.SUCCEEDED, S.WAITING, S.DEAD},
    S.WAITING: {S.QUEUED, S.SUCCEEDED, S.REJECTED},
    S.DEAD: {S.REJECTED},
    S.SUCCEEDED: set(),
    S.REJECTED: set(),
}
"""Where a call may go from each state (`callgate.domain.calls`)."""

A = AttemptStatus
ATTEMPT_STEPS = {
    None: {A.DISPATCHED},
    A.DISPATCHED: {A.ANSWERED, A.UNKNOWN},
    A.ANSWERED: {A.SUCCEEDED, A.FAILED, A.UNKNOWN},
    A.UNKNOWN: {A.SUCCEEDED, A.FAILED},
    A.SUCCEEDED: set(),
    A.FAILED: set(),
}


class RowRules:
    """Checks rows, and remembers what they were before."""

    def __init__(self, world: World, check: Callable[[str, object, object], None]) -> None:
        self._world = world
        self._check = check
        self._tables = world.ledger.tables
        self.by_hand = ByHand(world)
        self.states: dict[CallKey, list[CallState]] = defaultdict(list)
        """Every state each call was seen in, oldest first."""
        self.expires_at: dict[UUID, float] = {}
        """By attempt: before that moment nobody may call it lost."""
        self.rows_in: defaultdict[int, list[AttemptRow]] = defaultdict(list)
        """By budget: the attempts whose holds were made in it."""
        self._statuses: dict[UUID, AttemptStatus] = {}

    def call(self, call: CallRow) -> None:
        """Check a call beside its attempts and its links."""
        self._moved(call)
        rows = self._tables.attempts_of[call.key]
        unposted = [a for a in rows if not a.status.is_posted]
        self._has_one_attempt_at_a_time(call, rows, unposted)
        self._is_due(call, unposted)
        self._waits_rightly(call, unposted)
        worker_losses_max = self._world.catalogue.policy(call.call_type).worker_losses_max
        losses = sum(a.is_lost for a in rows)
        self._check(
            "poison_is_put_aside",
            losses <= worker_losses_max,
            f"{self._world.named(call.key)}: {losses} lost of {worker_losses_max}",
        )

    def _moved(self, call: CallRow) -> None:
        seen = self.states[call.key]
        before = seen[-1] if seen else None
        if call.state is not before:
            moved = f"{self._world.named(call.key)}: {before} -> {call.state}"
            self._check("an_end_is_an_end", call.state in STEPS[before], moved)
            seen.append(call.state)
            self._world.scheduler.counts[f"call {call.state}"] += 1

    def _has_one_attempt_at_a_time(
        self, call: CallRow, rows: Sequence[AttemptRow], unposted: Sequence[AttemptRow]
    ) -> None:
        name = self._world.named(call.key)
        self._check(
            "one_row_per_attempt",
            [a.attempt for a in rows] == list(range(1, call.attempt + 1)),
            f"{name} counts {call.attempt}, its rows are {[a.attempt for a in rows]}",
        )
        if call.state is S.RUNNING:
            self._check(
                "no_attempt_beside_another",
                [a.attempt_id for a in unposted] == [call.attempt_id],
                f"{name} runs, its open attempts are {[a.attempt for a in unposted]}",
            )
        if any(a.status is A.SUCCEEDED for a in rows):
            is_over = f"{name} is {call.state}"
            self._check("the_first_success_ends_it", not call.state.is_open, is_over)

    def _is_due(self, call: CallRow, unposted: Sequence[AttemptRow]) -> None:
        """An open call has a `due_at`, and an ended one while an attempt is unposted; so do links to deliver."""
        name, named = self._world.named(call.key), self._world.named
        due_at = self._world.names.seconds(call.due_at)
        left = [named(a.attempt_id) for a in unposted]
        self._check(
            "whatever_is_left_is_due",
            (call.due_at is not None) == (call.state.is_open or bool(left)),
            f"{name} is {call.state}, due at {due_at}, left: {', '.join(left) or 'nothing'}",
        )
        untold = [] if call.state.is_open else self._tables.deliveries(call)
        self._check(
            "whatever_is_left_is_due",
            (call.key in self._tables.undelivered) == bool(untold),
            f"{name} is {call.state}, to be told: {', '.join(map(named, untold))}",
        )
        is_soon = call.due_at is None or call.due_at <= self._world.scheduler.time() + WAIT_MAX
        self._check("whatever_is_left_is_due", is_soon, f"{name} waits until {due_at}")

    def _waits_rightly(self, call: CallRow, unposted: Sequence[AttemptRow]) -> None:
        name, is_waiting = self._world.named(call.key), call.state is S.WAITING
        why = f"{name} is {call.state}, reason to wait {call.wait_reason}"
        self._check("who_waits_says_why", is_waiting == (call.wait_reason is not None), why)
        self._check("who_waits_holds_nothing", not (is_waiting and unposted), name)

    def attempt(self, row: AttemptRow) -> None:
        """Check an attempt, and what was posted for it."""
        name = f"attempt {row.attempt}, {self._world.named(row.attempt_id)}"
        before = self._statuses.get(row.attempt_id)
        if row.status is not before:
            moved = f"{name}: {before} -> {row.status}"
            self._check("what_is_settled_stays", row.status in ATTEMPT_STEPS[before], moved)
            self._statuses[row.attempt_id] = row.status
            self._world.scheduler.counts[f"attempt {row.status}"] += 1
            if before is A.UNKNOWN:
                self._world.scheduler.counts[f"unknown became {row.status}"] += 1
            if row.is_lost:
                expires_at = self.expires_at[row.attempt_id]
                has_expired = self._world.scheduler.now >= expires_at
                self._check(
                    "no_lease_ends_early", has_expired, f"{name}, held until {expires_at:.3f} s"
                )
        is_posted = row.posted_nano_usd is not None
        self._check("posted_with_its_status", is_posted == row.status.is_posted, name)
        if row.status is A.UNKNOWN:
            is_whole = row.posted_nano_usd == self.by_hand.amount(row)
            posted = f"{name} posts {row.posted_nano_usd} of {row.hold_nano_usd} nano-USD"
            self._check("unknown_posts_the_hold", is_whole, posted)
        self.by_hand.saw(row)
        if row.is_lost:
            self._lost(row, name)

    def _lost(self, row: AttemptRow, name: str) -> None:
        """An attempt is called lost only if its process was in trouble, never because the ledger was away."""
        process = row.worker_id.partition("/")[0]
        is_alive = any(p.name == process for p in self._world.processes)
        troubles = [self._world.troubles.get((process, key), -1.0) for key in (row.key, None)]
        started_at = (row.started_at - self._world.scheduler.starts_at).total_seconds()
        # A claim that was late to land was in trouble before it began.
        was_in_trouble = max(troubles) >= started_at - LATE_MAX_S
        self._check("an_outage_makes_nothing_unknown", not is_alive or was_in_trouble, name)

    def budget(self, budget: BudgetFigures) -> None:
        """Compare the figures of a budget with the rows that were held in it."""
        rows = self.rows_in[budget.budget_id]
        held = sum(a.hold_nano_usd for a in rows if not a.status.is_posted)
        spent = sum(a.posted_nano_usd or 0 for a in rows)
        is_even = (held, spent) == (budget.reserved_nano_usd, budget.spent_nano_usd)
        newest = ", ".join(self._world.named(a.attempt_id) for a in rows[-3:])
        said = f"{self._world.named(budget)}; by rows spent {spent}, held {held}; newest: {newest}"
        self._check("figures_equal_rows", is_even, said)
