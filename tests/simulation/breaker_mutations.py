"""Planted defects about providers that fail: breakers, who waits for them, how often a call is left open or paid."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from unittest.mock import patch
from uuid import UUID

from callgate.adapters import memory_breakers, memory_ledger, memory_money
from callgate.adapters.memory_tables import AttemptRow, MemoryTables
from callgate.domain.breaker import RELEASED_MAX, Breaker, Health
from callgate.domain.ledger import AttemptStatus, CallState, Settle, WaitReason
from callgate.services import ai_call_logger
from tests.simulation.mutations import MUTATIONS, Patched, both, caught_by, deciding

__all__ = ["MUTATIONS"]


# How often a call is made.


@caught_by("no_call_is_given_up_too_soon", dies_while_asking=0.5)
def count_a_lost_worker_as_unknown() -> Patched:
    """A call whose workers die is given up as if its provider had left it open."""
    return deciding(
        lambda failure, t, policy: (failure, replace(t, unknown=t.unknown + t.lost), policy)
    )


@caught_by("unknown_attempts_are_few", server_error=0.3, reset=0.3)
def forget_to_count_what_is_unknown() -> Patched:
    """However many attempts were left open, one more may be."""
    patient = {"unknown_attempts_max": 100}
    return deciding(lambda failure, t, policy: (failure, t, policy.model_copy(update=patient)))


@caught_by("paid_failures_are_few", breaks_the_schema=0.6)
def forget_to_count_what_was_paid_in_vain() -> Patched:
    """An answer that breaks the schema is paid for again and again."""
    return patch.object(AttemptRow, "is_paid_failure", property(lambda self: False))


@caught_by("unknown_attempts_are_far_apart", server_error=0.3, reset=0.3)
def repeat_what_is_unknown_at_once() -> Patched:
    """The few attempts that may be left open are used up by an outage of seconds."""
    hasty = {"unknown_wait_s": 0.1}
    return deciding(lambda failure, t, policy: (failure, t, policy.model_copy(update=hasty)))


@caught_by("no_call_is_given_up_too_soon", provider_outage=1)
def a_probe_ends_its_call() -> Patched:
    """Every call that is sent to ask whether a provider is back dies when it is not."""
    return deciding(
        lambda failure, t, policy: (failure, replace(t, attempts=99, is_probe=False), policy)
    )


# When a breaker opens and closes.


@caught_by("three_failures_open_a_breaker", provider_outage=1)
def a_breaker_opens_at_the_fourth_failure() -> Patched:
    """More than, instead of at least."""
    after = Breaker.after

    def slow(self: Breaker, attempt_id: UUID, made_at: datetime, health: Health, *rest: Any) -> Any:
        is_third = health is Health.FAILED and not self.is_open and self.failures == 2
        counted = replace(self, failures=1) if is_third else self
        return after(counted, attempt_id, made_at, health, *rest)

    return patch.object(Breaker, "after", slow)


@caught_by(
    "a_refused_key_opens_a_breaker",
    "probes_come_ever_more_rarely",
    "only_as_many_are_released_as_may_be_tried",
    provider_outage=1,
)
def a_refused_key_is_a_refused_request() -> Patched:
    """Each call of a long queue is sent to meet the same refusal, and dies of it."""
    health_of = ai_call_logger.health_of

    def kind(failure: Any) -> Health:
        health = health_of(failure)
        return Health.NEUTRAL if health is Health.KEY_REFUSED else health

    return patch.object(ai_call_logger, "health_of", kind)


@caught_by("old_attempts_change_no_breaker", provider_outage=1, slow_reply=0.4)
def old_attempts_close_an_open_breaker() -> Patched:
    """What was sent before the outage is answered, and that is taken for its end."""
    after = Breaker.after

    def trusting(
        self: Breaker, attempt_id: UUID, made_at: datetime, health: Health, *rest: Any
    ) -> Any:
        if self.is_open and health is Health.ALIVE:
            made_at = max(made_at, self.changed_at)
            self = replace(self, trials=(*self.trials, (attempt_id, made_at)))
        return after(self, attempt_id, made_at, health, *rest)

    return patch.object(Breaker, "after", trusting)


@caught_by("an_answer_closes_a_breaker", provider_outage=1)
def a_probe_that_is_answered_changes_nothing() -> Patched:
    """The provider is back, and nobody is told."""
    after = Breaker.after

    def deaf(self: Breaker, attempt_id: UUID, made_at: datetime, health: Health, *rest: Any) -> Any:
        heard = Health.NEUTRAL if self.is_open and health is Health.ALIVE else health
        return after(self, attempt_id, made_at, heard, *rest)

    return patch.object(Breaker, "after", deaf)


# Who is let through.


@caught_by(
    "an_open_breaker_lets_one_probe_through",
    "only_as_many_are_released_as_may_be_tried",
    provider_outage=1,
)
def probes_come_side_by_side() -> Patched:
    """Nobody asks whether the last one is still on its way."""
    return patch.object(
        Breaker,
        "_probe_is_due",
        lambda self, now: self.probe_at is not None and self.probe_at <= now,
    )


@caught_by(
    "probes_come_ever_more_rarely",
    "only_as_many_are_released_as_may_be_tried",
    provider_outage=1,
)
def the_wait_for_a_probe_is_not_doubled() -> Patched:
    """A provider that is away for an hour is asked every ten seconds."""
    probed = Breaker._probed
    return patch.object(Breaker, "_probed", lambda self, has_failed, now: probed(self, False, now))


@caught_by("a_trial_ends_with_its_attempt", provider_outage=1, dies_while_asking=0.3)
def a_probe_is_not_freed_when_its_attempt_expires() -> Patched:
    """Its worker dies, and no other probe is ever made."""
    note = memory_ledger.note_health

    def noted(tables: MemoryTables, settle: Settle, now: datetime) -> Any:
        return () if settle.seen is AttemptStatus.DISPATCHED else note(tables, settle, now)

    return patch.object(memory_ledger, "note_health", noted)


@caught_by("organisations_probe_in_turn", provider_outage=1)
def the_same_organisation_probes_each_time() -> Patched:
    """One tenant pays for the outage of all."""
    admission = memory_money.admission_of

    def unfair(tables: MemoryTables, call: Any, breaker: Breaker, now: datetime) -> Any:
        return admission(tables, call, replace(breaker, probed_org=""), now)

    return both(
        patch.object(memory_money, "admission_of", unfair),
        patch.object(memory_breakers, "_in_turn", lambda _: lambda c: (c.attempt, c.created_at)),
    )


@caught_by("an_unproven_breaker_lets_three_through", provider_outage=1)
def a_closed_breaker_lets_everybody_through() -> Patched:
    """The whole queue is sent into an outage before its first failure is known."""
    return patch.object(Breaker, "_trials_left", lambda self, now: RELEASED_MAX)


# Who waits.


@caught_by("who_waits_holds_nothing", provider_outage=1)
def a_breaker_is_asked_once_the_hold_is_made() -> Patched:
    """Calls that wait hold the budget of those that could run."""
    wait = memory_money._wait_for_provider

    def holding(tables: Any, call: Any, wanted: Any, breaker: Any, now: Any) -> None:
        budgets = memory_money._budgets(tables, call, wanted, now)
        memory_money._hold(tables, call, wanted, budgets, _unused_id(tables), now)
        wait(tables, call, wanted, breaker, now)

    return patch.object(memory_money, "_wait_for_provider", holding)


@caught_by("who_waits_says_why", provider_outage=1)
def a_call_waits_without_a_reason() -> Patched:
    """Operators see that thousands wait, and not for what."""
    wait = memory_money._wait

    def silent(call: Any, reason: WaitReason, *rest: Any) -> None:
        wait(call, reason, *rest)
        if reason is WaitReason.PROVIDER:
            call.wait_reason = None

    return patch.object(memory_money, "_wait", silent)


@caught_by("nobody_waits_too_long_for_a_provider", provider_outage=1)
def each_refusal_begins_the_wait_again() -> Patched:
    """A call whose time is over gets as much once more."""
    wait = memory_money._wait_for_provider

    def patient(tables: Any, call: Any, *rest: Any) -> None:
        call.wait_until = None
        wait(tables, call, *rest)

    return patch.object(memory_money, "_wait_for_provider", patient)


@caught_by("nobody_is_rejected_before_its_wait_is_over", provider_outage=1)
def a_call_that_meets_an_open_breaker_is_rejected() -> Patched:
    """None of a long queue outlives an outage."""

    def refuse(tables: MemoryTables, call: Any, wanted: Any, breaker: Any, now: Any) -> None:
        tables.end(call, CallState.REJECTED, None, now)

    return patch.object(memory_money, "_wait_for_provider", refuse)


@caught_by("only_as_many_are_released_as_may_be_tried", provider_outage=1)
def every_waiting_call_is_released_as_the_probe() -> Patched:
    """One of fifty thousand is let through, and all the others are refused once more."""
    room = Breaker.room
    return patch.object(Breaker, "room", lambda self, now: RELEASED_MAX if room(self, now) else 0)


@caught_by("who_may_be_tried_is_released", provider_outage=1)
def what_was_released_is_forgotten() -> Patched:
    """A released call no longer waits for its breaker, and is not due either."""
    release = memory_ledger.release

    def forgetful(tables: MemoryTables, now: datetime) -> bool:
        slept = [(c, c.due_at) for c in tables.calls.values() if c.breaker and c.due_at]
        has_released = release(tables, now)
        for call, due_at in slept:
            call.due_at = due_at
        return has_released

    return patch.object(memory_ledger, "release", forgetful)


@caught_by("who_may_be_tried_is_released", provider_outage=1)
def nobody_is_released() -> Patched:
    """Who waits for a provider waits for as long as it may."""
    return patch.object(memory_ledger, "release", lambda tables, now: False)


def _unused_id(tables: MemoryTables) -> UUID:
    """An id that no attempt has."""
    return UUID(int=len(tables.attempts) + 1)
