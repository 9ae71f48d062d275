"""Planted defects of classes, deadlines and the bound of open calls."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import backlog as memory_backlog
from callgate.adapters.memory import claims as memory_claims
from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.call_order import Priority, rank_of
from callgate.domain.calls import CallState
from callgate.domain.ledger import NewSubmission
from tests.simulation.mutations.registry import Patched, caught_by

IN_ORDER = "who_waits_goes_on_by_class_and_age"
HIGHEST = "a_call_has_the_highest_class_of_its_submissions"
LATEST = "a_call_has_the_latest_deadline_of_its_submissions"

# Classes.


@caught_by(IN_ORDER, "who_waits_for_a_place_comes_in_turn", classes_and_deadlines=1, slots_short=1)
def classes_do_not_count() -> Patched:
    """An interactive call waits behind all bulk ones."""
    by_age = property(lambda self: rank_of(self.created_at, Priority.NORMAL, self.attempt))
    return patch.object(CallRow, "rank_at", by_age)


@caught_by(
    "who_waits_for_a_place_comes_in_turn", IN_ORDER, classes_and_deadlines=1, places_declared=1
)
def bulk_calls_never_grow_old() -> Patched:
    """As long as interactive calls come, they starve."""
    by_class = property(
        lambda self: rank_of(
            self.created_at - 365 * self.priority * DAY, Priority.BULK, self.attempt
        )
    )
    return patch.object(CallRow, "rank_at", by_class)


DAY = timedelta(days=1)


@caught_by(HIGHEST, classes_and_deadlines=1)
def a_join_lowers_the_class() -> Patched:
    """The newest submission decides."""
    raised = memory_backlog.raised

    def newest(call: CallRow, new: NewSubmission, now: datetime) -> Any:
        lane = raised(call, new, now)
        call.priority = new.priority
        return lane

    return patch.object(memory_backlog, "raised", newest)


@caught_by(HIGHEST, LATEST, classes_and_deadlines=1)
def a_join_says_nothing() -> Patched:
    """Who asks for the same call more urgently waits as long as the first one."""
    return patch.object(memory_backlog, "raised", lambda *_: None)


# Deadlines.


@caught_by(LATEST, classes_and_deadlines=1)
def the_earliest_deadline_counts() -> Patched:
    """One impatient submission ends the call of all others."""
    raised = memory_backlog.raised

    def earliest(call: CallRow, new: NewSubmission, now: datetime) -> Any:
        before = call.start_before
        lane = raised(call, new, now)
        call.start_before = before
        return lane

    return patch.object(memory_backlog, "raised", earliest)


@caught_by(
    "a_call_is_not_sent_after_its_deadline", "a_call_ends_at_its_deadline", classes_and_deadlines=1
)
def a_late_call_is_sent() -> Patched:
    """Its deadline is for those that wait, and not looked at when it is claimed."""
    claim = memory_claims._claim

    def blind(tables: MemoryTables, call: CallRow, *rest: Any) -> Any:
        deadline, call.start_before = call.start_before, None
        answer = claim(tables, call, *rest)
        call.start_before = deadline
        if call.state is CallState.WAITING and call.due_at is not None:
            call.wait_until_due(call.due_at)
        return answer

    return patch.object(memory_claims, "_claim", blind)


@caught_by("who_waits_is_due_at_its_deadline", classes_and_deadlines=1)
def a_call_sleeps_through_its_deadline() -> Patched:
    """Its submitter hears of it when its wait is over, an hour later."""

    def sleep(self: CallRow, at: datetime) -> None:
        self.due_at = at

    return patch.object(CallRow, "wait_until_due", sleep)


@caught_by("a_deadline_ends_nothing_that_is_under_way", classes_and_deadlines=1)
def a_deadline_ends_what_was_sent() -> Patched:
    """The due query ends every open call whose deadline has passed."""
    free_paused = memory_ledger.free_paused

    def strict(tables: MemoryTables, limit: int, now: datetime) -> None:
        free_paused(tables, limit, now)
        for call in tables.calls.values():
            is_late = call.start_before is not None and call.start_before <= now
            if is_late and call.state is CallState.RUNNING:
                tables.end(call, CallState.REJECTED, memory_claims.PAST_DEADLINE, now)
                call.due_at = now + timedelta(seconds=5)

    return patch.object(memory_ledger, "free_paused", strict)


@caught_by(
    "unknown_posts_the_hold",
    "posted_is_billed",
    "figures_equal_rows",
    "posted_with_its_status",
    classes_and_deadlines=1,
    conflict=0.3,
)
def a_deadline_forgives_what_was_paid() -> Patched:
    """A call that was never answered in time costs nothing."""
    end = MemoryTables.end

    def forgiving(
        self: MemoryTables, call: CallRow, state: CallState, error: str | None, at: Any
    ) -> bool:
        if error == memory_claims.PAST_DEADLINE:
            for row in self.attempts_of[call.key]:
                row.posted_nano_usd = 0
        return end(self, call, state, error, at)

    return patch.object(MemoryTables, "end", forgiving)


# Open calls.


@caught_by("open_calls_are_bounded", open_calls_bounded=1)
def open_calls_are_not_counted() -> Patched:
    """An organisation may submit until the disk is full."""
    return patch.object(memory_backlog, "full", lambda *_: None)


@caught_by("only_a_full_organisation_is_busy", open_calls_bounded=1)
def calls_that_have_ended_count_as_open() -> Patched:
    """After as many calls as may be open, nothing can be submitted any more."""
    full = memory_backlog.full

    def forever(tables: MemoryTables, org_id: str) -> Any:
        known = full(tables, org_id)
        most = tables.declaration.open_calls_max
        number = sum(c.org_id == org_id for c in tables.calls.values())
        return memory_backlog.OpenCalls(number, most) if number >= most else known

    return patch.object(memory_backlog, "full", forever)
