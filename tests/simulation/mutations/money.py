"""Planted defects of money: holds, budgets, bills, and who is released when headroom is freed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.memory import claims as memory_claims
from callgate.adapters.memory import headroom as memory_headroom
from callgate.adapters.memory import ledger as memory_ledger
from callgate.adapters.memory import posting as memory_posting
from callgate.adapters.memory import tables as memory_tables
from callgate.adapters.memory.tables import MemoryTables
from callgate.domain.budgets import BudgetFigures
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.provider import Billing, Priced
from callgate.services import ai_call_logger
from callgate.services.review import Assessment
from tests.simulation.mutations.registry import Patched, both, caught_by


@caught_by("the_worst_case_is_held", "held_in_every_scope")
def clamp_a_hold_to_what_is_left() -> Patched:
    """A call that does not fit is let in with less."""
    hold = memory_claims._hold

    def clamped(tables: Any, call: Any, claim: Any, budgets: Any, *rest: Any) -> Any:
        left = min((b.left_nano_usd for b in budgets), default=0)
        clamped = replace(claim, hold_nano_usd=max(0, min(left, claim.hold_nano_usd)))
        return hold(tables, call, clamped, budgets, *rest)

    return both(
        patch.object(memory_claims, "_hold", clamped),
        patch.object(memory_claims, "_refusal", lambda *_: None),
    )


@caught_by("the_worst_case_is_held")
def hold_the_likely_case() -> Patched:
    """An answer is rarely as long as it may be, and so an eighth is enough."""
    worst_case = CostCalculator.worst_case

    def likely(self: CostCalculator, *asked: Any) -> Priced:
        priced = worst_case(self, *asked)
        return replace(priced, nano_usd=priced.nano_usd // 8)

    return patch.object(CostCalculator, "worst_case", likely)


@caught_by("the_worst_case_is_held", conflict=0.3)
def retry_without_a_new_hold() -> Patched:
    """The first attempt's hold is thought to cover them all."""
    hold = memory_claims._hold

    def once(tables: Any, call: Any, claim: Any, *rest: Any) -> Any:
        again = replace(claim, hold_nano_usd=0)
        return hold(tables, call, again if call.attempt else claim, *rest)

    return patch.object(memory_claims, "_hold", once)


@caught_by("spent_and_held_within_limit")
def admit_without_what_is_held() -> Patched:
    """Only what is spent counts."""
    admit = memory_claims.admit
    return patch.object(
        memory_claims,
        "admit",
        lambda budgets, *rest: admit([replace(b, reserved_nano_usd=0) for b in budgets], *rest),
    )


@caught_by("refused_only_what_does_not_fit")
def refuse_an_exact_fit() -> Patched:
    """Less than, instead of at most."""
    left = property(lambda b: b.limit_nano_usd - b.spent_nano_usd - b.reserved_nano_usd - 1)
    return patch.object(BudgetFigures, "left_nano_usd", left)


@caught_by("who_can_wait_waits")
def reject_what_could_wait() -> Patched:
    """A call that is held up by others only is rejected."""

    def refuse(
        tables: MemoryTables, call: Any, claim: Any, budgets: Any, why: Any, now: Any
    ) -> Any:
        tables.end(call, CallState.REJECTED, why.to_json(), now)

    return patch.object(memory_claims, "_refuse", refuse)


@caught_by("held_in_every_scope")
def hold_in_one_scope_only() -> Patched:
    """The first budget is thought to be the only one."""
    budgets = memory_claims._budgets
    return patch.object(memory_claims, "_budgets", lambda *asked: budgets(*asked)[:1])


@caught_by("held_in_every_scope", "refused_only_what_does_not_fit")
def know_no_scope_but_the_organisation() -> Patched:
    """The limits of call types are forgotten."""
    return patch.object(memory_claims, "scopes_of", lambda call_type: ("org",))


@caught_by("a_period_is_a_day_or_a_month")
def begin_a_period_every_six_hours() -> Patched:
    """Each has the limit of a whole day."""
    period_of: Any = memory_tables.period_of

    def short(at: Any, *rest: Any) -> Any:
        starts_at, _ = period_of(at, *rest)
        length = timedelta(hours=6)
        starts_at += (at - starts_at) // length * length
        return starts_at, starts_at + length

    return patch.object(memory_tables, "period_of", short)


@caught_by("figures_equal_rows")
def claim_without_holding() -> Patched:
    """The claim is made, the figures stay."""
    change = MemoryTables.change_budget

    def keep(self: MemoryTables, budget_id: int, *, reserved: int = 0, spent: int = 0) -> None:
        change(self, budget_id, reserved=min(0, reserved), spent=spent)

    return patch.object(MemoryTables, "change_budget", keep)


@caught_by("figures_equal_rows")
def settle_into_the_period_of_today() -> Patched:
    """A hold of yesterday is released in today's budget."""
    post = memory_posting._post

    def posted(tables: MemoryTables, attempt: Any, settlement: Any, now: Any) -> None:
        held_in = attempt.budget_ids
        budgets = [tables.budgets[i] for i in held_in]
        attempt.budget_ids = tuple(
            tables.newest_budget[b.org_id, b.scope, b.window] for b in budgets
        )
        post(tables, attempt, settlement, now)
        attempt.budget_ids = held_in

    return patch.object(memory_posting, "_post", posted)


@caught_by("unknown_posts_the_hold")
def void_an_unknown() -> Patched:
    """What nobody knows is thought to be free."""
    assess = ai_call_logger.assess

    def voided(
        costs: Any, view: Any, attempt: Any, reply: Any, failure: Any, *rest: Any
    ) -> Assessment:
        is_unknown = failure and failure.billing is Billing.UNKNOWN
        free = Assessment(Priced(0, ""))
        return free if is_unknown else assess(costs, view, attempt, reply, failure, *rest)

    return patch.object(ai_call_logger, "assess", voided)


@caught_by("posted_is_billed", "no_call_is_given_up_too_soon")
def charge_what_is_free() -> Patched:
    """What the provider did not bill is posted at its whole hold."""
    assess = ai_call_logger.assess

    def dear(
        costs: Any, view: Any, attempt: Any, reply: Any, failure: Any, *rest: Any
    ) -> Assessment:
        is_free = failure and failure.billing is Billing.UNBILLED
        held = Assessment(Priced(attempt.hold_nano_usd, ""))
        return held if is_free else assess(costs, view, attempt, reply, failure, *rest)

    return patch.object(ai_call_logger, "assess", dear)


@caught_by("posted_is_billed", pauses_while_asking=0.4)
def leave_a_late_answer_at_its_hold() -> Patched:
    """The truth comes late, and the whole hold stays posted."""
    assess = ai_call_logger.assess

    def stubborn(costs: Any, view: Any, attempt: Any, reply: Any, *rest: Any) -> Assessment:
        is_late = attempt.status is AttemptStatus.UNKNOWN
        usage = reply.usage if reply else None
        held = Assessment(Priced(attempt.hold_nano_usd, ""), usage)
        return held if is_late else assess(costs, view, attempt, reply, *rest)

    return patch.object(ai_call_logger, "assess", stubborn)


@caught_by("freed_headroom_releases_the_oldest")
def release_nobody() -> Patched:
    """A call that waits for headroom has a timer anyway."""
    return patch.object(memory_ledger, "release_budget_waiters", lambda *_: False)


@caught_by("freed_headroom_releases_the_oldest", "only_as_many_are_released_as_fit")
def release_the_youngest_first() -> Patched:
    """Last come, first served."""
    waiters = memory_headroom._waiters
    return patch.object(memory_headroom, "_waiters", lambda *asked: waiters(*asked)[::-1])


@caught_by("only_as_many_are_released_as_fit")
def release_everybody() -> Patched:
    """One will get it; the others are refused once more."""
    waiters = memory_headroom._waiters
    return patch.object(
        memory_headroom, "_fitting", lambda *asked: [call for call, _ in waiters(*asked)]
    )


@caught_by("nobody_waits_too_long_for_held_money", "who_can_wait_waits")
def a_wait_for_held_money_never_ends() -> Patched:
    """Each time that it is tried, its wait begins again."""
    refuse = memory_claims._refuse

    def endless(tables: Any, call: Any, *rest: Any) -> None:
        call.wait_until = None
        refuse(tables, call, *rest)

    return patch.object(memory_claims, "_refuse", endless)
