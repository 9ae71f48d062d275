"""Posting: what a settlement moves, and in which budget period, on both ledgers."""

from __future__ import annotations

from datetime import timedelta

from callgate.domain.budgets import RefusalReason, Window
from callgate.domain.calls import AttemptStatus
from callgate.domain.requests import OnBudget
from tests.contract.money_steps import TYPE_SCOPE, reason_of, refused
from tests.support.ledger_under_test import (
    DAY_S,
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_failure,
    a_loss,
    a_success,
    an_answer,
)

# Posting.


def test_settling_replaces_the_hold_by_the_cost(ledger: LedgerUnderTest) -> None:
    """In every scope; what was not spent is free again."""
    ledger.set_budget(LIMIT, scope=TYPE_SCOPE)

    ledger.succeeded(posted_nano_usd=60)

    assert ledger.figures() == (0, 60)
    assert ledger.figures(TYPE_SCOPE) == (0, 60)


def test_an_unbilled_attempt_costs_nothing(ledger: LedgerUnderTest) -> None:
    """Posted at 0: the whole hold is free again."""
    ledger.dead()

    assert ledger.figures() == (0, 0)


def test_an_unknown_attempt_costs_its_whole_hold(ledger: LedgerUnderTest) -> None:
    """Nobody knows whether it was billed, so it is counted as if it was."""
    ledger.lost()

    assert ledger.figures() == (0, 100)


def test_a_late_answer_lowers_what_was_spent(ledger: LedgerUnderTest) -> None:
    """The difference to the truth is given back, in the same budgets."""
    ref = ledger.lost()
    ledger.record(an_answer(ref))

    ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))

    assert ledger.figures() == (0, 60)
    assert ledger.view(ref.key).posted_nano_usd == 60


def test_settling_twice_posts_once(ledger: LedgerUnderTest) -> None:
    """Also within one batch, also with another amount."""
    ref = ledger.answered()

    settled = ledger.settle(a_success(ref, 60), a_success(ref, 70))
    again = ledger.settle(a_success(ref, 80))

    assert [s.is_applied for s in settled + again] == [True, False, False]
    assert ledger.figures() == (0, 60)


def test_a_cost_above_the_hold_is_posted_in_full(ledger: LedgerUnderTest) -> None:
    """The tokens are burnt: the period is over its limit then, and admits nothing more."""
    ref = ledger.answered(hold_nano_usd=LIMIT)

    ledger.settle(a_success(ref, LIMIT + 5))

    assert ledger.figures() == (0, LIMIT + 5)
    outcome = refused(ledger, ledger.queued("next"), 1, OnBudget.REJECT)
    assert reason_of(outcome) is RefusalReason.EXHAUSTED


def test_several_attempts_of_one_budget_settle_in_one_batch(ledger: LedgerUnderTest) -> None:
    """Every row moves its own money."""
    refs = [ledger.answered(f"page {i}") for i in range(3)]
    lost = ledger.running("lost", 100)

    ledger.settle(*[a_success(ref, 10 + i) for i, ref in enumerate(refs)], a_loss(lost))

    assert ledger.figures() == (0, 10 + 11 + 12 + 100)


# Periods.


def test_a_budget_rolls_over(ledger: LedgerUnderTest) -> None:
    """The first hold after the end of a period begins a new one: same limit, nothing spent, nothing held."""
    ledger.succeeded("before", posted_nano_usd=LIMIT)
    (before,) = ledger.operations.budgets(ORG)
    ledger.age(2 * DAY_S)

    ledger.running(hold_nano_usd=LIMIT)

    (after,) = ledger.operations.budgets(ORG)
    assert after.budget_id != before.budget_id
    assert (after.limit_nano_usd, after.timezone) == (before.limit_nano_usd, before.timezone)
    assert (after.reserved_nano_usd, after.spent_nano_usd) == (LIMIT, 0)
    assert after.starts_at <= ledger.now() < after.ends_at
    assert after.ends_at - after.starts_at == timedelta(days=1)


def test_periods_never_overlap(ledger: LedgerUnderTest) -> None:
    """A new time zone, in which it is noon when the old zone's day ends: the new day begins with that end."""
    noon_zone = ledger.noon_zone_in(13 * 3_600)
    ledger.operations.set_budget(ORG, "org", Window.DAY, LIMIT, noon_zone)
    ledger.age(13 * 3_600)

    ledger.running(hold_nano_usd=LIMIT)

    (budget,) = ledger.operations.budgets(ORG)
    assert ledger.now() - timedelta(hours=3) < budget.starts_at <= ledger.now() < budget.ends_at


def test_a_hold_settles_in_the_period_it_was_made_in(ledger: LedgerUnderTest) -> None:
    """Across midnight: yesterday's money stays yesterday's, today's figures know nothing of it."""
    yesterday = ledger.running("yesterday", 100)
    ledger.age(2 * DAY_S)
    ledger.running("today", 70)

    ledger.record(an_answer(yesterday))
    ledger.settle(a_success(yesterday, 60))

    assert ledger.figures() == (70, 0)
    old, new = ledger.operations.snapshot().budgets
    assert (old.reserved_nano_usd, old.spent_nano_usd) == (0, 60)
    assert (new.reserved_nano_usd, new.spent_nano_usd) == (70, 0)


def test_a_late_answer_is_posted_in_the_period_of_its_hold(ledger: LedgerUnderTest) -> None:
    """The correction belongs where the whole hold was posted."""
    ref = ledger.lost()
    ledger.age(2 * DAY_S)
    ledger.running("today", 70)

    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, 60, expected_status=AttemptStatus.UNKNOWN))

    old, new = ledger.operations.snapshot().budgets
    assert (old.reserved_nano_usd, old.spent_nano_usd) == (0, 60)
    assert (new.reserved_nano_usd, new.spent_nano_usd) == (70, 0)


def test_a_scope_added_later_is_not_charged_for_earlier_holds(ledger: LedgerUnderTest) -> None:
    """A hold settles in exactly the budgets it was made in."""
    ref = ledger.running(hold_nano_usd=100)
    ledger.set_budget(LIMIT, scope=TYPE_SCOPE)

    ledger.record(an_answer(ref))
    ledger.settle(a_success(ref, 60))

    assert ledger.figures() == (0, 60)
    assert ledger.figures(TYPE_SCOPE) == (0, 0)


def test_a_limit_counts_from_now_on(ledger: LedgerUnderTest) -> None:
    """Lowered below what is spent it admits nothing, raised again it does; figures never change by it."""
    ledger.succeeded("spent", posted_nano_usd=60)
    ledger.running("held", 100)

    lowered = ledger.set_budget(150)
    key = ledger.queued()
    refusal = refused(ledger, key, 1, OnBudget.REJECT)
    ledger.set_budget(161)
    ledger.age(2)

    assert (lowered.reserved_nano_usd, lowered.spent_nano_usd) == (100, 60)
    assert reason_of(refusal) is RefusalReason.HELD
    ledger.claim(ledger.requeued(key), 1)
    assert ledger.figures() == (101, 60)


def test_the_figures_equal_the_rows_after_everything(ledger: LedgerUnderTest) -> None:
    """reserved = Σ hold of unposted rows and spent = Σ posted, in every period of every budget."""
    ledger.set_budget(LIMIT, scope=TYPE_SCOPE)
    ledger.set_budget(LIMIT, window=Window.MONTH)
    ledger.succeeded("good", posted_nano_usd=60)
    ledger.dead("bad")
    ledger.lost("gone")
    waiting = ledger.waiting("again")
    ledger.running("open", 50)
    ledger.settle(a_failure(waiting), a_success(waiting))

    snapshot = ledger.operations.snapshot()

    assert [budget.drift_nano_usd for budget in snapshot.budgets] == [0, 0, 0]
    assert {(b.reserved_nano_usd, b.spent_nano_usd) for b in snapshot.budgets} == {(50, 160)}
    assert snapshot.spent_nano_usd == 160
