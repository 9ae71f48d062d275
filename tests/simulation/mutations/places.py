"""Planted defects of places: more calls of an organisation run than may, and those that wait starve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import concurrency as memory_concurrency
from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory import limits as memory_limits
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import CallState
from callgate.domain.concurrency import Places
from tests.simulation.mutations.registry import Patched, caught_by

LOCKED_FOR = timedelta(seconds=5)


@caught_by("no_more_calls_run_than_may", places_declared=1)
def places_are_counted_outside_the_lock() -> Patched:
    """Each claim sees the calls that ran when the last one began."""
    refusal_of = memory_concurrency.refusal_of
    seen: dict[str, tuple[MemoryTables, datetime, str | None]] = {}

    def stale(tables: MemoryTables, call: CallRow) -> str | None:
        now, refusal = call.due_at or call.created_at, refusal_of(tables, call)
        other, at, before = seen.get(call.org_id, (None, now, None))
        seen[call.org_id] = tables, now, refusal
        return before if other is tables and now - at < LOCKED_FOR else refusal

    return patch.object(memory_concurrency, "refusal_of", stale)


@caught_by(
    "a_free_place_refuses_nobody",
    "nobody_waits_for_a_place_that_is_free",
    places_declared=1,
    dies_while_asking=0.4,
)
def a_place_is_leaked_by_a_kill() -> Patched:
    """A call whose worker died runs until somebody looks."""
    running = memory_concurrency._running

    def leaking(tables: MemoryTables, org_id: str) -> Iterator[CallRow]:
        yield from running(tables, org_id)
        for attempt in tables.attempts.values():
            call = tables.calls[attempt.key]
            if attempt.is_lost and call.org_id == org_id and call.state is not CallState.RUNNING:
                yield call

    return patch.object(memory_concurrency, "_running", leaking)


@caught_by("only_as_many_are_woken_as_find_a_place", places_declared=1)
def all_that_wait_come_for_one_place() -> Patched:
    """Each call that ends wakes the whole line."""
    return patch.object(Places, "next_of", lambda self, line, taken: list(range(len(line))))


@caught_by("only_as_many_are_woken_as_find_a_place", places_declared=1)
def those_that_were_woken_are_forgotten() -> Patched:
    """One place is given away each time that somebody looks, until a call runs."""
    next_of = Places.next_of

    def wake(tables: MemoryTables, now: datetime) -> bool:
        line = [c for c in tables.calls.values() if memory_concurrency.is_asleep(c, now)]
        for org_id in sorted({call.org_id for call in line}):
            mine = sorted((c for c in line if c.org_id == org_id), key=lambda c: c.created_at)
            running = [c.call_type for c in memory_concurrency._running(tables, org_id)]
            places = memory_concurrency._places(tables, org_id)
            for n in next_of(places, [c.call_type for c in mine], running):
                mine[n].due_at = now
        return True

    return patch.object(memory_concurrency, "wake", wake)


@caught_by("nobody_waits_for_a_place_that_is_free", places_declared=1)
def a_full_call_type_blocks_the_others() -> Patched:
    """The first of the line finds no place, so nobody behind it is asked."""
    next_of = Places.next_of

    def blocked(self: Places, line: Sequence[str], taken: Iterable[str]) -> list[int]:
        chosen = next_of(self, line, taken)
        return [n for place, n in enumerate(chosen) if place == n]

    return patch.object(Places, "next_of", blocked)


@caught_by("nobody_waits_for_a_place_that_is_free", "every_call_ends", places_declared=1)
def nobody_is_woken_when_a_place_is_free() -> Patched:
    """A call that waits for a place is looked at when it has waited too long."""
    return patch.object(memory_ledger.concurrency, "wake", lambda *_: False)


@caught_by("a_new_call_does_not_take_the_place_of_those_that_wait", places_declared=1)
def new_calls_take_the_places_of_those_that_wait() -> Patched:
    """A place that has become free belongs to the one that asks first."""
    refusal_of = Places.refusal_of

    def hasty(self: Places, call_type: str, running: Any, _: Any) -> str | None:
        return refusal_of(self, call_type, running, {})

    return patch.object(Places, "refusal_of", hasty)


@caught_by("what_has_room_sends_somebody", places_declared=1, provider_limits=1, limits_declared=1)
def two_lines_refuse_each_others_calls() -> Patched:
    """Who was released for a limit is new to the places, as the other way round: neither overtakes, nobody is sent."""
    refusal_of = memory_concurrency.refusal_of

    def new_to_places(tables: MemoryTables, call: CallRow) -> str | None:
        waits_for, call.waits_for = call.waits_for, None
        error = refusal_of(tables, call)
        call.waits_for = waits_for
        return error

    return patch.object(memory_concurrency, "refusal_of", new_to_places)


@caught_by(
    "an_organisation_gets_its_share",
    "no_call_is_overtaken_again_and_again",
    places_declared=1,
    provider_limits=1,
    limits_declared=1,
)
def calls_woken_for_a_place_pass_at_the_limit() -> Patched:
    """An organisation with few places has a line of its own to the provider."""
    ask = memory_limits.ask

    def privileged(tables: MemoryTables, key: Any, call: CallRow, *rest: Any, **named: Any) -> Any:
        waits_for = call.waits_for
        call.waits_for = key if call.is_in_line else waits_for
        answer = ask(tables, key, call, *rest, **named)
        call.waits_for = waits_for
        return answer

    return patch.object(memory_limits, "ask", privileged)


@caught_by("who_waits_for_a_place_comes_in_turn", places_declared=1)
def the_youngest_comes_first() -> Patched:
    """The line is a stack."""
    next_of = Places.next_of

    def last(self: Places, line: Sequence[str], taken: Iterable[str]) -> list[int]:
        chosen = next_of(self, line[::-1], taken)
        return [len(line) - 1 - n for n in chosen]

    return patch.object(Places, "next_of", last)
