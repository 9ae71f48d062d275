"""Planted defects of claims: who may send, and under what."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from callgate.adapters.memory import claims as memory_claims
from callgate.adapters.memory import posting as memory_posting
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.retry import DEADLINE_BEFORE_SEND
from callgate.services.sending import Sender
from tests.simulation.mutations.registry import Patched, caught_by


@caught_by(
    "an_answer_is_kept",
    "what_is_settled_stays",
    "posted_is_billed",
    "who_waits_says_why",
    pauses_while_asking=0.5,
    slow_statement=0.3,
    repeated=0.3,
    conflict=0,
    seed=42,
)
def settle_what_has_changed_since() -> Patched:
    """`seen` is not compared."""
    return patch.object(memory_posting, "_is_settleable", lambda *_: True)


@caught_by("a_claim_is_of_one_process", repeated=0.5)
def a_redelivery_shares_the_attempt() -> Patched:
    """Any claim of a running call is answered with its attempt."""

    def claimed(tables: MemoryTables, call: Any, claim: Any) -> Any:
        row = tables.attempts.get(call.attempt_id)
        return row if row is not None and row.status is AttemptStatus.DISPATCHED else None

    return patch.object(memory_claims, "_claimed_before", claimed)


@caught_by("a_claim_makes_one_attempt", lands_late=0.3, conflict=0.5)
def a_statement_that_lands_late_claims_again() -> Patched:
    """Nobody asks whether the claim has made an attempt before."""
    return patch.object(memory_claims, "_is_spent", lambda tables, call, claim: False)


@caught_by("only_what_is_held_is_sent", pauses=0.3)
def send_past_the_deadline() -> Patched:
    """The deadline is not checked before sending."""

    async def send(self: Any, request: Any, ref: Any, permit: Any) -> Any:
        provider = self._providers[request.provider]
        return await provider.complete(request, attempt_id=ref.attempt_id, timeout_s=20.0)

    return patch.object(Sender, "send", send)


@caught_by(
    "only_what_is_held_is_sent", pauses=0, pauses_while_asking=0.4, dies_while_asking=0, seed=28
)
def send_under_a_lease_that_ran_out() -> Patched:
    """The deadline alone is thought to be enough, however long it takes until then."""

    async def send(self: Any, request: Any, ref: Any, permit: Any) -> Any:
        await self._clock.sleep(15 * self._clock.jitter())
        left_s = permit.deadline - self._clock.monotonic()
        if left_s <= 0:
            return DEADLINE_BEFORE_SEND
        provider = self._providers[request.provider]
        return await provider.complete(request, attempt_id=ref.attempt_id, timeout_s=left_s)

    return patch.object(Sender, "send", send)


@caught_by("no_lease_ends_early", pauses_while_asking=0.5, slow_reply=0.2, conflict=0, seed=44)
def an_overtaken_attempt_loses_its_lease() -> Patched:
    """A late success makes the call due at once, and the newer attempt with it."""

    def succeed(tables: MemoryTables, call: Any, winner: Any, now: Any) -> None:
        call.attempt_id = winner.attempt_id
        tables.end(call, CallState.SUCCEEDED, None, now)
        if tables.unposted(call.key):
            call.due_at = now

    return patch.object(memory_posting, "_succeed", succeed)
