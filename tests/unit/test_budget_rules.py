"""Budget rules that need no database: admission, refusals as text, waiting."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callgate.domain.budgets import (
    BudgetFigures,
    BudgetRefusal,
    RefusalReason,
    Window,
    admit,
    held_wait_s,
    refusal_of,
    scopes_of,
)

AMOUNTS = st.integers(0, 10**12)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


def a_budget(limit: int = 100, reserved: int = 0, spent: int = 0, **changes: Any) -> BudgetFigures:
    """Acme's budget for one day."""
    fields: dict[str, Any] = {
        "budget_id": 1,
        "org_id": "acme",
        "scope": "org",
        "window": Window.DAY,
        "timezone": "UTC",
        "starts_at": datetime(2026, 11, 18, tzinfo=UTC),
        "ends_at": datetime(2026, 11, 19, tzinfo=UTC),
    }
    return BudgetFigures(
        **{**fields, **changes},
        limit_nano_usd=limit,
        reserved_nano_usd=reserved,
        spent_nano_usd=spent,
    )


@pytest.mark.parametrize(
    ("hold", "reason"),
    [
        (30, None),
        (31, RefusalReason.HELD),
        (50, RefusalReason.HELD),
        (51, RefusalReason.EXHAUSTED),
        (100, RefusalReason.EXHAUSTED),
        (101, RefusalReason.TOO_SMALL),
    ],
)
def test_a_refusals_reason_is_what_would_have_to_change(
    hold: int, reason: RefusalReason | None
) -> None:
    """Held money may come back, spent money not in this period, a limit never by itself. An exact fit passes."""
    budget = a_budget(limit=100, reserved=20, spent=50)

    assert refusal_of(budget, hold, NOON) is reason


@given(limit=AMOUNTS, reserved=AMOUNTS, spent=AMOUNTS, hold=AMOUNTS)
def test_admission_is_the_inequality(limit: int, reserved: int, spent: int, hold: int) -> None:
    """spent + reserved + hold <= limit, also for figures over the limit."""
    budget = a_budget(limit, reserved, spent)

    assert (admit([budget], "acme", hold, NOON) is None) == (spent + reserved + hold <= limit)


def test_an_exact_fit_passes_and_one_nano_more_does_not() -> None:
    """The refusal carries its figures."""
    budget = a_budget(limit=100, reserved=20, spent=50)

    assert admit([budget], "acme", 30, NOON) is None
    assert admit([budget], "acme", 31, NOON) == BudgetRefusal(
        RefusalReason.HELD, "acme", "org", Window.DAY, 100, 50, 20, 31
    )


def test_a_period_that_has_ended_refuses_everything() -> None:
    """It could not be rolled over, so its figures are not known."""
    ended = a_budget(limit=100, ends_at=NOON)

    assert refusal_of(ended, 0, NOON) is RefusalReason.NO_PERIOD
    refusal = admit([a_budget(limit=1), ended], "acme", 50, NOON)
    assert refusal is not None
    assert refusal.reason is RefusalReason.NO_PERIOD
    assert "--timezone UTC" in str(refusal)


@pytest.mark.parametrize(
    ("scope", "command"),
    [
        ("org", "callgate budgets set 'a b' --timezone UTC"),
        ("call_type:x", "callgate budgets set 'a b' --call-type x --timezone UTC"),
    ],
)
def test_a_missing_period_names_the_command_that_fixes_it(scope: str, command: str) -> None:
    """For exactly this scope."""
    refusal = BudgetRefusal(RefusalReason.NO_PERIOD, "a b", scope, Window.DAY, 1, 0, 0, 1)

    assert f"`{command}`" in str(refusal)


def test_of_several_refusals_the_least_hopeful_counts() -> None:
    """The one for which waiting helps least; of equal ones the lower id."""
    held = a_budget(limit=100, reserved=100, budget_id=1)
    exhausted = a_budget(limit=100, spent=100, budget_id=4, scope="call_type:a")
    also_exhausted = a_budget(limit=100, spent=100, budget_id=3, scope="call_type:b")
    never = a_budget(limit=1, budget_id=9, scope="call_type:c")

    def counted_refusal(*budgets: BudgetFigures) -> tuple[RefusalReason, str] | None:
        refusal = admit(budgets, "acme", 10, NOON)
        return (refusal.reason, refusal.scope) if refusal else None

    assert counted_refusal(a_budget(), held) == (RefusalReason.HELD, "org")
    assert counted_refusal(held, exhausted) == (RefusalReason.EXHAUSTED, "call_type:a")
    assert counted_refusal(exhausted, also_exhausted) == (RefusalReason.EXHAUSTED, "call_type:b")
    assert counted_refusal(exhausted, never, held) == (RefusalReason.TOO_SMALL, "call_type:c")
    assert counted_refusal(a_budget(), a_budget()) is None


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS), min_size=1, max_size=4), AMOUNTS)
def test_all_scopes_must_have_headroom(figures: list[tuple[int, int, int]], hold: int) -> None:
    """A hold is admitted if each scope alone admits it, in any order."""
    budgets = [a_budget(*f, budget_id=i) for i, f in enumerate(figures)]

    together = admit(budgets, "acme", hold, NOON)

    assert (together is None) == all(admit([b], "acme", hold, NOON) is None for b in budgets)
    assert admit(budgets[::-1], "acme", hold, NOON) == together


def test_a_call_is_limited_by_its_organisation_and_its_type() -> None:
    """Two scopes; a budget exists where an operator set one."""
    assert scopes_of("extraction") == ("org", "call_type:extraction")


@pytest.mark.parametrize("window", [Window.DAY, None])
@pytest.mark.parametrize("reason", RefusalReason)
def test_a_refusal_is_stored_and_read_back(reason: RefusalReason, window: Window | None) -> None:
    """As JSON with a code and a message with all numbers."""
    refusal = BudgetRefusal(reason, "acme", "org", window, 100, 50, 20, 31)

    stored = json.loads(refusal.to_json())

    assert BudgetRefusal.from_json(refusal.to_json()) == refusal
    assert stored["code"] == f"budget_{reason.value}"
    assert stored["message"] == str(refusal)


def test_a_refusals_message_has_scope_window_and_amounts() -> None:
    refusal = BudgetRefusal(
        RefusalReason.HELD, "acme", "org", Window.DAY, 1_000_000, 2_000, 3_000, 998_001
    )

    assert str(refusal) == (
        "org 'acme', scope 'org' per day: the call may cost $0.000998001, and $0.000995 are left: of the limit of"
        " $0.001000, $0.000002 are spent and $0.000003 are held for calls in flight"
    )


def test_a_missing_budget_says_what_to_do() -> None:
    refusal = BudgetRefusal(RefusalReason.NOT_CONFIGURED, "acme", "org", None, 0, 0, 0, 31)

    assert (
        str(refusal)
        == "no budget of org 'acme' covers this call; set one with `callgate budgets set`"
    )


@pytest.mark.parametrize(
    ("age_s", "wait_s"), [(0, 0.25), (1, 0.25), (1.2, 0.3), (40, 10), (120, 30), (86_400, 30)]
)
def test_a_held_up_call_waits_a_quarter_of_its_age(age_s: float, wait_s: float) -> None:
    """At least 0.25 s and at most 30 s."""
    assert held_wait_s(age_s) == pytest.approx(wait_s)
