"""The rules of what pages say about budgets: rate, time to exhaustion, and what a new limit lets run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.budget_states import (
    BudgetName,
    BudgetState,
    MoneyWaiter,
    Short,
    exhausted_in_s,
    fitting_of,
    lately_since,
    preview,
)
from callgate.domain.budgets import ORG_SCOPE, BudgetFigures, Window

AT = datetime(2026, 11, 18, 12, 7, 30, tzinfo=UTC)
HOUR_S = 3_600.0
ORG = "acme"
NAME = BudgetName(ORG, ORG_SCOPE, Window.DAY)
EXTRACTION = BudgetName(ORG, "call_type:extraction", Window.DAY)


def figures(
    name: BudgetName = NAME, limit: int = 100, held: int = 0, spent: int = 0
) -> BudgetFigures:
    """A budget whose day is half over."""
    midnight = AT.replace(hour=0, minute=0, second=0)
    tomorrow = midnight + timedelta(days=1)
    return BudgetFigures(1, *name, "UTC", midnight, tomorrow, limit, held, spent)


def state(budget: BudgetFigures, lately: int = 0) -> BudgetState:
    """A budget as a page reads it."""
    return BudgetState(budget, AT, lately, Short(0, 0))


@pytest.mark.parametrize(
    ("left", "spent", "period_left_s", "expected"),
    [
        (100, 50, 24 * HOUR_S, 2 * HOUR_S),
        (100, 50, 2 * HOUR_S + 1, 2 * HOUR_S),
        (100, 50, 2 * HOUR_S, None),
        (100, 0, 24 * HOUR_S, None),
        (100, -5, 24 * HOUR_S, None),
        (0, 50, 24 * HOUR_S, 0.0),
        (-3, 0, 24 * HOUR_S, 0.0),
        (100, 50, -1.0, None),
    ],
    ids=[
        "in time",
        "just before the end",
        "at the end",
        "nothing is spent",
        "taken back",
        "now",
        "overrun",
        "ended",
    ],
)
def test_when_a_budget_is_used_up(
    left: int, spent: int, period_left_s: float, expected: float | None
) -> None:
    """Now, in so many seconds, or never in this period."""
    found = exhausted_in_s(
        left, spent_nano_usd=spent, elapsed_s=HOUR_S, period_left_s=period_left_s
    )

    assert found == expected


@given(st.integers(1, 10**15), st.integers(1, 10**15), st.floats(1, 10**5))
def test_at_that_rate_just_what_is_left_is_spent(left: int, spent: int, elapsed_s: float) -> None:
    """Whatever the amounts."""
    after_s = exhausted_in_s(
        left, spent_nano_usd=spent, elapsed_s=elapsed_s, period_left_s=float("inf")
    )

    assert after_s is not None
    assert after_s * spent / elapsed_s == pytest.approx(left)


def test_the_rate_is_that_of_three_quarter_hours_and_the_present_one() -> None:
    """So it is known at once, and one quiet minute does not change it."""
    assert lately_since(AT) == AT.replace(hour=11, minute=15, second=0)
    assert state(figures(), lately=105).nano_usd_per_hour == 120
    assert state(figures(limit=240), lately=105).exhausted_in_s == 2 * HOUR_S


def test_what_is_held_is_used() -> None:
    """A new hold cannot take it, though it may cost less in the end."""
    found = state(figures(limit=100, held=30, spent=20), lately=1)

    assert found.used_share == 0.5
    assert state(figures(limit=100, held=80, spent=20)).exhausted_in_s == 0.0
    assert state(figures(limit=0)).used_share == 1.0


def test_a_period_that_is_over_is_followed_by_an_unused_one() -> None:
    """Nobody has called since; the next call makes the new row."""
    over = replace(state(figures(held=5, spent=100)), at=AT + timedelta(days=2))

    assert over.has_ended
    assert (over.now.spent_nano_usd, over.now.reserved_nano_usd) == (0, 0)
    assert over.used_share == 0.0
    assert over.exhausted_in_s is None


WAITERS = [MoneyWaiter("extraction", 40), MoneyWaiter("summary", 70), MoneyWaiter("extraction", 20)]


def test_what_waits_fits_oldest_first_and_what_does_not_is_passed_over() -> None:
    """As when headroom is freed."""
    assert fitting_of({NAME: 60}, WAITERS, ORG) == [WAITERS[0], WAITERS[2]]
    assert fitting_of({NAME: 110, EXTRACTION: 30}, WAITERS, ORG) == WAITERS[1:]
    assert fitting_of({}, WAITERS, ORG) == WAITERS
    assert fitting_of({NAME: -1}, WAITERS, ORG) == []


def test_a_preview_says_what_a_limit_lets_run() -> None:
    """Of the calls that wait for money."""
    found = preview([figures(limit=100, spent=90)], WAITERS, NAME, 160, at=AT)

    assert (found.old_nano_usd, found.new_nano_usd, found.left_nano_usd) == (100, 160, 70)
    assert (found.waiting, found.waiting_nano_usd) == (3, 130)
    assert (found.would_run, found.would_run_nano_usd, found.would_run_now) == (2, 60, 0)


def test_another_budget_may_keep_calls_waiting() -> None:
    """A larger limit of the day does not help if the month is spent."""
    month = replace(figures(limit=100, spent=100), window=Window.MONTH)

    found = preview([figures(limit=100, spent=90), month], WAITERS, NAME, 1_000, at=AT)

    assert (found.left_nano_usd, found.would_run) == (910, 0)


def test_a_budget_of_a_type_concerns_only_its_calls() -> None:
    """Those of other types are not counted, though they take money first."""
    budgets = [figures(limit=1_000), figures(EXTRACTION, limit=10)]

    found = preview(budgets, WAITERS, EXTRACTION, 50, at=AT)

    assert (found.waiting, found.would_run, found.would_run_nano_usd) == (2, 1, 40)


def test_a_new_budget_and_a_smaller_limit() -> None:
    """Nothing is used of a new one; a limit below what is used lets nothing run."""
    new = preview([], WAITERS, NAME, 45, at=AT, is_more=True)
    assert (new.old_nano_usd, new.left_nano_usd, new.would_run, new.is_more) == (None, 45, 1, True)

    less = preview([figures(limit=100, held=30, spent=50)], WAITERS, NAME, 60, at=AT)
    assert (less.left_nano_usd, less.would_run, less.would_run_now) == (-20, 0, 1)


def test_the_money_of_a_period_that_is_over_counts_no_more() -> None:
    """The limit is that of the next period."""
    found = preview([figures(limit=100, spent=100)], WAITERS, NAME, 100, at=AT + timedelta(days=1))

    assert (found.left_nano_usd, found.would_run) == (100, 2)
