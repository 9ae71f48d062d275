"""Planted defects about providers that fail: breakers, who waits for them, how often a call is left open or paid."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any
from unittest.mock import patch
from uuid import UUID

from callgate.adapters.memory import breakers as memory_breakers
from callgate.adapters.memory import claims as memory_claims
from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory.rows import AttemptRow, CallRow
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain import breaker
from callgate.domain.breaker import FAILURES_MAX, RELEASED_MAX, Breaker, Guard, Health, Trial
from callgate.domain.calls import AttemptStatus, CallState, WaitReason
from callgate.domain.ledger import Settle
from callgate.services import ai_call_logger
from tests.simulation.mutations.registry import Patched, caught_by, deciding

# How often a call is made.


@caught_by("no_call_is_given_up_too_soon", dies_while_asking=0.5)
def count_a_lost_worker_as_unknown() -> Patched:
    """A call whose workers die is given up as if its provider had left it open."""
    return deciding(
        lambda failure, t, policy: (
            failure,
            replace(t, unknown=t.unknown + t.worker_losses),
            policy,
        )
    )


@caught_by("unknown_attempts_are_few", server_error=0.3, reset=0.3)
def forget_to_count_what_is_unknown() -> Patched:
    """However many attempts were left open, one more may be."""
    patient = {"unknown_attempts_max": 100}
    return deciding(lambda failure, t, policy: (failure, t, policy.model_copy(update=patient)))


@caught_by("paid_failures_are_few", "repairs_are_few", breaks_the_schema=0.6)
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


@caught_by("three_failures_open_a_breaker", "a_refused_key_opens_a_breaker", provider_outage=1)
def a_breaker_opens_at_the_fourth_failure() -> Patched:
    """More than, instead of at least."""
    failed = Breaker.failed

    def slow(self: Breaker, *rest: Any, **named: Any) -> Breaker:
        after = failed(self, *rest, **named)
        is_third = after.is_open and len(set(after.failed_orgs)) == 1
        return replace(self, failed_orgs=self.failed_orgs[:1]) if is_third else after

    return patch.object(Breaker, "failed", slow)


@caught_by(
    "a_refused_key_opens_a_breaker",
    "probes_come_ever_more_rarely",
    "only_as_many_are_released_as_may_be_tried",
    "old_attempts_change_no_breaker",
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
    hear = Breaker.heard

    def trusting(
        self: Breaker, attempt_id: UUID, made_at: datetime, health: Health, now: datetime
    ) -> Breaker:
        if self.is_open and health is Health.ALIVE:
            made_at = max(made_at, self.changed_at)
            self = replace(self, trials=(*self.trials, Trial(attempt_id, made_at, self.org_id)))
        return hear(self, attempt_id, made_at, health, now)

    return patch.object(Breaker, "heard", trusting)


@caught_by("an_answer_closes_a_breaker", provider_outage=1)
def a_probe_that_is_answered_changes_nothing() -> Patched:
    """The provider is back, and nobody is told."""
    hear = Breaker.heard

    def deaf(
        self: Breaker, attempt_id: UUID, made_at: datetime, health: Health, now: datetime
    ) -> Breaker:
        heard = Health.NEUTRAL if self.is_open and health is Health.ALIVE else health
        return hear(self, attempt_id, made_at, heard, now)

    return patch.object(Breaker, "heard", deaf)


# Who is let through.


@caught_by(
    "an_open_breaker_lets_one_probe_through",
    "only_as_many_are_released_as_may_be_tried",
    provider_outage=1,
)
def probes_come_side_by_side() -> Patched:
    """Nobody asks whether the last one is still on its way."""
    headroom = Breaker.headroom

    def hasty(self: Breaker, org_id: str, now: datetime) -> int:
        return headroom(replace(self, trials=()) if self.is_open else self, org_id, now)

    return patch.object(Breaker, "headroom", hasty)


@caught_by(
    "probes_come_ever_more_rarely",
    "only_as_many_are_released_as_may_be_tried",
    provider_outage=1,
)
def the_wait_for_a_probe_is_not_doubled() -> Patched:
    """A provider that is away for an hour is asked every ten seconds."""
    hear = Breaker.heard

    def eager(
        self: Breaker, attempt_id: UUID, made_at: datetime, health: Health, now: datetime
    ) -> Breaker:
        heard = health if health is Health.ALIVE else Health.NEUTRAL
        return hear(self, attempt_id, made_at, heard, now)

    return patch.object(Breaker, "heard", eager)


@caught_by("a_trial_ends_with_its_attempt", provider_outage=1, dies_while_asking=0.3)
def a_probe_is_not_freed_when_its_attempt_expires() -> Patched:
    """Its worker dies, and no other probe is ever made."""
    note = memory_ledger.note_health

    def noted(tables: MemoryTables, settle: Settle, now: datetime) -> Any:
        return (
            () if settle.expected_status is AttemptStatus.DISPATCHED else note(tables, settle, now)
        )

    return patch.object(memory_ledger, "note_health", noted)


@caught_by("organisations_probe_in_turn", "organisations_are_released_in_turn", provider_outage=1)
def the_same_organisation_probes_each_time() -> Patched:
    """One tenant pays for the outage of all."""
    with_trial = Breaker.with_trial

    def unfair(self: Breaker, trial: Trial) -> Breaker:
        return replace(with_trial(self, trial), turn_org=self.turn_org)

    return patch.object(Breaker, "with_trial", unfair)


@caught_by("an_unproven_breaker_lets_three_through", provider_outage=1)
def a_closed_breaker_lets_all_through() -> Patched:
    """The whole queue is sent into an outage before its first failure is known."""
    headroom = Breaker.headroom

    def trusting(self: Breaker, org_id: str, now: datetime) -> int:
        return headroom(self, org_id, now) if self.is_open else RELEASED_MAX

    return patch.object(Breaker, "headroom", trusting)


# One organisation, and the others.


@caught_by("one_organisation_alone_keeps_no_other_waiting", provider_outage=1, server_error=0.3)
def all_failures_count_in_the_shared_breaker() -> Patched:
    """A tenant whose calls fail stops all others."""
    return patch.object(breaker, "COUNTED_MAX", breaker.FAILURES_MAX)


@caught_by(
    "one_organisation_alone_keeps_no_other_waiting", slow_reply=0.4, provider_outage=1, seed=85
)
def one_organisation_takes_all_trials() -> Patched:
    """Three slow calls of one tenant, again and again, and nobody else is tried."""
    headroom = Breaker.headroom

    def greedy(self: Breaker, org_id: str, now: datetime) -> int:
        young = [t for t in self.trials if now - t.made_at < breaker.TRIAL_LASTS]
        is_full = not self.is_open and not self.is_proven(now) and len(young) >= FAILURES_MAX
        return 0 if is_full and not self.org_id else headroom(self, org_id, now)

    return patch.object(Breaker, "headroom", greedy)


@caught_by("one_organisation_alone_keeps_no_other_waiting", provider_outage=1)
def a_refused_key_opens_the_shared_breaker() -> Patched:
    """One flagged input that a router answers with 403 stops all others."""
    failed = Breaker.failed

    def hasty(self: Breaker, org_id: str, health: Health, *rest: Any, **named: Any) -> Breaker:
        is_key = health is Health.KEY_REFUSED
        counted = replace(self, failed_orgs=("somebody",) * 2) if is_key else self
        return failed(counted, org_id, health, *rest, **named)

    return patch.object(Breaker, "failed", hasty)


@caught_by(
    "an_open_breaker_lets_one_probe_through",
    "probes_come_ever_more_rarely",
    "only_as_many_are_released_as_may_be_tried",
    provider_outage=1,
)
def an_organisations_own_breaker_is_not_asked() -> Patched:
    """A tenant goes on paying for calls of which all fail."""
    headroom = Breaker.headroom

    def deaf(self: Breaker, org_id: str, now: datetime) -> int:
        return RELEASED_MAX if self.org_id else headroom(self, org_id, now)

    return patch.object(Breaker, "headroom", deaf)


@caught_by(
    "only_an_answer_closes_a_breaker",
    "one_organisation_alone_keeps_no_other_waiting",
    "three_failures_open_a_breaker",
    "who_may_be_tried_is_released",
    "who_may_be_tried_is_not_refused",
    one_organisation_fails=1,
    server_error=0.2,
)
def a_probe_of_its_own_counts_against_the_provider() -> Patched:
    """A tenant whose calls are known to fail is the first of two, each time it asks."""
    after = Guard.after

    def counting(
        self: Guard, attempt_id: UUID, made_at: datetime, health: Health, *rest: Any, **named: Any
    ) -> Guard:
        done = after(self, attempt_id, made_at, health, *rest, **named)
        has_failed = health in (Health.FAILED, Health.KEY_REFUSED) and not self.shared.is_open
        if not has_failed or not self.own.is_open:
            return done
        return Guard(done.shared.failed(self.own.org_id, health, *rest), done.own)

    return patch.object(Guard, "after", counting)


@caught_by(
    "organisations_are_released_in_turn", "who_waits_goes_on_by_class_and_age", provider_outage=1
)
def the_oldest_calls_are_released_first() -> Patched:
    """One tenant with a long queue keeps all others behind it."""

    def by_age(tables: MemoryTables, key: Any, now: datetime) -> list[Any]:
        calls = memory_breakers._waiting_for(tables, key)
        asleep = sorted(
            (c for c in calls if c.due_at and c.due_at > now), key=lambda c: c.created_at
        )
        taken = Counter(c.org_id for c in calls if c not in asleep)
        headroom = tables.breakers[*key, ""].headroom("", now) - taken.total()
        oldest = []
        for call in asleep:
            if taken[call.org_id] < memory_breakers._guard(tables, key, call.org_id).headroom(now):
                taken[call.org_id] += 1
                oldest.append(call)
        return oldest[: max(headroom, 0)]

    return patch.object(memory_breakers, "_next_of", by_age)


# Who waits.


@caught_by("who_waits_holds_nothing", provider_outage=1)
def a_breaker_is_asked_once_the_hold_is_made() -> Patched:
    """Calls that wait hold the budget of those that could run."""
    wait = memory_claims._wait_for_provider

    def holding(tables: Any, call: Any, claim: Any, guard: Any, now: Any) -> None:
        budgets = memory_claims._budgets(tables, call, claim, now)
        memory_claims._hold(tables, call, claim, budgets, _unused_id(tables), now)
        wait(tables, call, claim, guard, now)

    return patch.object(memory_claims, "_wait_for_provider", holding)


@caught_by("who_waits_says_why", provider_outage=1)
def a_call_waits_without_a_reason() -> Patched:
    """Operators see that thousands wait, and not for what."""
    wait = CallRow.wait

    def silent(call: Any, reason: WaitReason, *rest: Any) -> None:
        wait(call, reason, *rest)
        if reason is WaitReason.PROVIDER:
            call.wait_reason = None

    return patch.object(CallRow, "wait", silent)


@caught_by("nobody_waits_too_long_for_a_provider", provider_outage=1)
def each_refusal_begins_the_wait_again() -> Patched:
    """A call whose time is over gets as much once more."""
    wait = memory_claims._wait_for_provider

    def patient(tables: Any, call: Any, *rest: Any) -> None:
        call.wait_until = None
        wait(tables, call, *rest)

    return patch.object(memory_claims, "_wait_for_provider", patient)


@caught_by("nobody_is_rejected_before_its_wait_is_over", provider_outage=1)
def a_call_that_meets_an_open_breaker_is_rejected() -> Patched:
    """None of a long queue outlives an outage."""

    def refuse(tables: MemoryTables, call: Any, claim: Any, guard: Any, now: Any) -> None:
        tables.end(call, CallState.REJECTED, None, now)

    return patch.object(memory_claims, "_wait_for_provider", refuse)


@caught_by("only_as_many_are_released_as_may_be_tried", provider_outage=1)
def every_waiting_call_is_released_as_the_probe() -> Patched:
    """One of fifty thousand is let through, and all the others are refused once more."""
    headroom = Breaker.headroom
    return patch.object(
        Breaker,
        "headroom",
        lambda self, org_id, now: RELEASED_MAX if headroom(self, org_id, now) else 0,
    )


@caught_by("who_may_be_tried_is_released", provider_outage=1)
def what_was_released_is_forgotten() -> Patched:
    """A released call no longer waits for its breaker, and is not due either."""
    release = memory_ledger.release_provider_waiters

    def forgetful(tables: MemoryTables, now: datetime) -> bool:
        slept = [(c, c.due_at) for c in tables.calls.values() if c.waits_for and c.due_at]
        has_released = release(tables, now)
        for call, due_at in slept:
            call.due_at = due_at
        return has_released

    return patch.object(memory_ledger, "release_provider_waiters", forgetful)


@caught_by("who_may_be_tried_is_released", provider_outage=1)
def nobody_is_released() -> Patched:
    """Who waits for a provider waits for as long as it may."""
    return patch.object(memory_ledger, "release_provider_waiters", lambda tables, now: False)


def _unused_id(tables: MemoryTables) -> UUID:
    """An id that no attempt has."""
    return UUID(int=len(tables.attempts) + 1)
