"""Planted defects of pauses: what is paused is sent or forgotten, and frozen organisations submit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import breakers as memory_breakers
from callgate.adapters.memory import claims as memory_claims
from callgate.adapters.memory import concurrency as memory_concurrency
from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory import pauses as memory_pauses
from callgate.adapters.memory.rows import CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import WaitReason
from callgate.domain.ledger import NewSubmission
from callgate.domain.pauses import Pause, PauseKey
from callgate.domain.reports import By
from tests.simulation.mutations.registry import Patched, both, caught_by


@caught_by("nothing_new_is_sent_while_paused", "a_pause_is_asked_first", calls_paused=1)
def a_pause_is_a_note() -> Patched:
    """Operators see it, and workers do not."""
    return patch.object(memory_claims, "pause_of", lambda *_: None)


@caught_by("nothing_new_is_sent_while_paused", calls_paused=1)
def what_was_queued_before_a_pause_is_sent() -> Patched:
    """Workers hear of a pause with the message of a call."""
    pause_of = memory_pauses.pause_of

    def late(tables: MemoryTables, call: CallRow) -> Pause | None:
        pause = pause_of(tables, call)
        is_older = pause is not None and call.due_at is not None and call.due_at <= pause.at
        return None if is_older else pause

    return patch.object(memory_claims, "pause_of", late)


@caught_by("a_pause_is_asked_first", calls_paused=1)
def a_pause_is_decided_after_the_budget() -> Patched:
    """A paused call whose budget is used up is rejected."""
    pause_of = memory_pauses.pause_of

    def after_it(tables: MemoryTables, call: CallRow) -> Pause | None:
        budgets = tables.current_budgets(call.org_id, ("org",), call.due_at or call.created_at)
        is_full = not budgets or any(b.left_nano_usd <= 0 for b in budgets)
        return None if is_full else pause_of(tables, call)

    return patch.object(memory_claims, "pause_of", after_it)


@caught_by("who_waits_holds_nothing", calls_paused=1)
def a_paused_call_keeps_what_it_asked_for() -> Patched:
    """It is in line for money that others could use."""
    wait_to_its_end = memory_claims._wait_to_its_end

    def greedy(tables: MemoryTables, call: CallRow, claim: Any, wait: Any, now: datetime) -> bool:
        does_wait = wait_to_its_end(tables, call, claim, wait, now)
        if does_wait and wait[0] is WaitReason.PAUSED:
            call.requested_hold_nano_usd = claim.hold_nano_usd
        return does_wait

    return patch.object(memory_claims, "_wait_to_its_end", greedy)


@caught_by("nobody_waits_too_long_for_an_operator", calls_paused=1)
def a_pause_has_no_end() -> Patched:
    """Each pause gives a call all of its time again."""
    wait_to_its_end = memory_claims._wait_to_its_end

    def patient(tables: MemoryTables, call: CallRow, claim: Any, wait: Any, now: datetime) -> bool:
        if wait[0] is WaitReason.PAUSED:
            call.wait_until = now + timedelta(days=1)
        return wait_to_its_end(tables, call, claim, wait, now)

    return patch.object(memory_claims, "_wait_to_its_end", patient)


@caught_by("who_is_resumed_moves_on", calls_paused=1)
def nobody_goes_on_after_a_pause() -> Patched:
    """A paused call is looked at when it has waited too long."""
    return both(
        patch.object(memory_pauses, "free_paused", lambda *_: None),
        patch.object(memory_ledger, "free_paused", lambda *_: None),
    )


@caught_by("nothing_new_is_sent_while_paused", "who_is_paused_is_left_alone", calls_paused=1)
def the_first_resume_ends_all_pauses() -> Patched:
    """What another operator has paused goes on too."""
    resume = memory_pauses.resume

    def resumed(tables: MemoryTables, key: PauseKey, by: By, now: datetime) -> bool:
        for other in [key for key in tables.pauses if not key.is_freeze]:
            resume(tables, other, by, now)
        return resume(tables, key, by, now)

    return patch.object(memory_pauses, "resume", resumed)


@caught_by("who_is_paused_is_left_alone", calls_paused=1, provider_outage=0.8)
def paused_calls_are_released_for_their_provider() -> Patched:
    """They take the turns of those that may be tried."""
    return patch.object(memory_breakers, "is_paused", lambda *_: False)


@caught_by("who_is_paused_is_left_alone", calls_paused=1, places_declared=1, slots_short=1)
def paused_calls_are_woken_for_a_place() -> Patched:
    """A place is offered to them again and again."""
    return patch.object(memory_concurrency, "is_paused", lambda *_: False)


@caught_by("a_frozen_organisation_submits_nothing_new", calls_paused=1)
def a_frozen_organisation_submits() -> Patched:
    """Its new calls wait with the others."""
    return patch.object(memory_ledger, "refuse_frozen", lambda *_: None)


@caught_by("only_frozen_organisations_are_refused", calls_paused=1)
def a_paused_organisation_may_not_submit() -> Patched:
    """A pause is taken for a freeze."""
    refuse_frozen = memory_pauses.refuse_frozen

    def strict(tables: MemoryTables, batch: Sequence[NewSubmission]) -> None:
        known = tables.pauses
        tables.pauses = dict(known)
        for key, pause in known.items():
            if key.org_id and not key.call_type:
                frozen = replace(key, is_freeze=True)
                tables.pauses[frozen] = replace(pause, key=frozen)
        try:
            refuse_frozen(tables, batch)
        finally:
            tables.pauses = known

    return patch.object(memory_ledger, "refuse_frozen", strict)
