"""
The rules of classes and deadlines: what the submissions of a call wish for, and what the ledger makes of it.

Nothing here asks `callgate.domain.call_order`. A call has the highest class of its submissions and their latest
deadline. A call that came first and waits comes before another one of its organisation, if its class is not lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from callgate.adapters.memory.rows import CallRow
from callgate.domain.calls import CallKey, CallState, WaitReason
from callgate.domain.ledger import NewSubmission, SubmitOutcome, Submitted
from tests.simulation.submission_options import CLASS_AGE

if TYPE_CHECKING:
    from tests.simulation.world import World

ATTEMPT_AGE = timedelta(minutes=10)
DEADLINE_PASSED = "deadline_passed"


@dataclass(slots=True)
class Wish:
    """The class and the deadline of a call, by its submissions."""

    priority: int
    start_before: datetime | None


class Wishes:
    """Who wants which call how soon, and in which order calls that wait go on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tables = world.ledger.tables
        self._wishes: dict[CallKey, Wish] = {}
        self._seen: set[UUID] = set()
        self._ended: set[CallKey] = set()
        self._asleep: dict[CallKey, tuple[CallRow, object, datetime]] = {}
        """Who slept after the statement before, in which line, and until when."""

    @property
    def _now(self) -> datetime:
        return self._world.scheduler.time()

    # At a submission.

    def submitted(self, new: NewSubmission, answer: Submitted) -> None:
        """A submission creates a call, or raises the one that it joins."""
        if new.submission_id in self._seen:
            return
        self._seen.add(new.submission_id)
        within_s = new.start_within_s
        deadline = None if within_s is None else self._now + timedelta(seconds=within_s)
        if answer.outcome is SubmitOutcome.CREATED:
            self._wishes[answer.key] = Wish(new.priority, deadline)
        elif answer.outcome is SubmitOutcome.JOINED:
            self._raised(self._wishes[answer.key], new.priority, deadline)

    def _raised(self, wish: Wish, priority: int, deadline: datetime | None) -> None:
        counts = self._world.scheduler.counts
        if priority > wish.priority:
            counts["raised to a higher class"] += 1
            wish.priority = priority
        if wish.start_before is not None and (deadline is None or deadline > wish.start_before):
            counts["deadline moved"] += 1
            wish.start_before = deadline

    # At a claim.

    def admitted(self, call: CallRow) -> None:
        """A call is sent now: its deadline has not passed."""
        deadline = self._wishes[call.key].start_before
        is_early = deadline is None or deadline > self._now
        said = f"{self._world.named(call.key)}, deadline {self._world.names.seconds(deadline)}"
        self._world.invariants.check("a_call_is_not_sent_after_its_deadline", is_early, said)

    def has_ended(self, call: CallRow) -> bool:
        """True if a refused call has ended because of its deadline."""
        return call.end_reason == DEADLINE_PASSED

    def refused(self, call: CallRow) -> None:
        """A call is refused for another reason: its deadline has not passed, else it would have ended."""
        deadline = self._wishes[call.key].start_before
        is_early = deadline is None or deadline > self._now
        said = f"{self._world.named(call.key)} is {call.state}: {call.error}"
        self._world.invariants.check("a_call_ends_at_its_deadline", is_early, said)

    def bounded(self, call: CallRow, until: datetime) -> datetime:
        """Until when a call may wait, if its deadline does not come before."""
        return min(until, self._wishes[call.key].start_before or until)

    # Its place in a line.

    def rank(self, call: CallRow, attempts: int | None = None) -> tuple[datetime, CallKey]:
        """Of the calls of an organisation that wait for the same, the one with the least comes first."""
        attempts = call.attempt if attempts is None else attempts
        wish = self._wishes[call.key]
        at = call.created_at - CLASS_AGE * wish.priority + ATTEMPT_AGE * attempts
        return at, call.key

    # After a statement.

    def after(self) -> None:
        """Each row says what its submissions wish; then who slept and goes on goes on in order."""
        check, now = self._world.invariants.check, self._now
        for call in self._tables.calls.values():
            if call.state.is_open:
                self._is_as_wished(call)
            elif call.end_reason == DEADLINE_PASSED and call.key not in self._ended:
                self._ended.add(call.key)
                self._world.scheduler.counts["deadline passed"] += 1
                wish = self._wishes[call.key]
                is_past = wish.start_before is not None and wish.start_before <= now
                name = self._world.named(call.key)
                check("a_deadline_ends_only_what_is_late", is_past, name)
                rows = self._tables.attempts_of[call.key]
                is_under_way = any(not row.status.is_posted for row in rows)
                check("a_deadline_ends_nothing_that_is_under_way", not is_under_way, name)
        self._go_on_in_order(now)
        self._asleep = {
            c.key: (c, _line_of(c), c.due_at)
            for c in self._tables.calls.values()
            if c.state is CallState.WAITING and c.due_at is not None and c.due_at > now
            if _line_of(c) is not None
        }

    def _is_as_wished(self, call: CallRow) -> None:
        check, wish, name = self._world.invariants.check, self._wishes[call.key], self._world.named
        seconds = self._world.names.seconds
        check(
            "a_call_has_the_highest_class_of_its_submissions",
            call.priority == wish.priority,
            lambda: f"{name(call.key)} has class {call.priority}, and {wish.priority} is wished",
        )
        check(
            "a_call_has_the_latest_deadline_of_its_submissions",
            call.start_before == wish.start_before,
            lambda: (
                f"{name(call.key)} is to start by {seconds(call.start_before)}, wished {seconds(wish.start_before)}"
            ),
        )
        if call.state is CallState.WAITING and wish.start_before is not None:
            check(
                "who_waits_is_due_at_its_deadline",
                call.due_at is not None and call.due_at <= max(wish.start_before, self._now),
                lambda: (
                    f"{name(call.key)} sleeps until {seconds(call.due_at)}, deadline {seconds(wish.start_before)}"
                ),
            )

    def _go_on_in_order(self, now: datetime) -> None:
        """Of calls that slept in one line, those that are woken come before those that sleep on."""
        woken: list[tuple[CallRow, object]] = []
        left: list[tuple[CallRow, object]] = []
        for call, line, due_at in self._asleep.values():
            if call.due_at is None or not call.state.is_open or call.key in self._tables.locked:
                continue
            is_asleep = call.state is CallState.WAITING and call.due_at > now
            if is_asleep and line == _line_of(call):
                left.append((call, line))
            elif call.due_at == now < due_at:
                woken.append((call, line))
        for call, line in woken:
            older = [c for c, its_line in left if its_line == line]
            self._comes_first(call, older)

    def _comes_first(self, call: CallRow, others: Sequence[CallRow]) -> None:
        is_paused = self._world.invariants.pauses.covers
        older = [c for c in others if self.rank(c) < self.rank(call) and not is_paused(c)]
        named = self._world.named
        said = f"{named(call.key)} goes on before {', '.join(named(c.key) for c in older)}"
        self._world.invariants.check("who_waits_goes_on_by_class_and_age", not older, said)


def _line_of(call: CallRow) -> object:
    """Which calls wait for the same, and go on by class and age."""
    if call.waits_for is not None:
        return call.waits_for, call.org_id
    return ("backlog", call.org_id) if call.wait_reason is WaitReason.BACKLOG else None
