"""What operators' pages read about budgets, and what a pause would concern, on both ledgers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from callgate.domain.budget_states import Affected, BudgetName, MoneyWaiter
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.pauses import PauseKey
from callgate.domain.requests import OnBudget
from callgate.domain.sums import quarter_of
from tests.contract.money_steps import TYPE_SCOPE, refused
from tests.support.ledger_under_test import DAY_S, LIMIT, ORG, LedgerUnderTest

NAME = BudgetName(ORG, ORG_SCOPE, Window.DAY)
TYPE_NAME = BudgetName(ORG, TYPE_SCOPE, Window.DAY)
HOSTILE = "<b>'; DROP TABLE budget; --"


def names(ledger: LedgerUnderTest, **which: object) -> list[BudgetName]:
    """The names that a list has."""
    found = ledger.operations.budgets_by_name(limit=10, **which)  # type: ignore[arg-type]
    return [BudgetName.of(state.figures) for state in found]


def test_a_budget_is_shown_as_it_stands(ledger: LedgerUnderTest) -> None:
    """Its figures are those of the list of budgets; what was posted lately is counted once, folded or not."""
    ledger.succeeded("paid", posted_nano_usd=60)
    ledger.running("under way", 100)
    ledger.succeeded("other type", posted_nano_usd=5, call_type="summary")
    (figures,) = ledger.operations.budgets(ORG)

    state = ledger.operations.budget_state(NAME)

    assert state is not None
    assert state.figures == figures
    assert (figures.spent_nano_usd, figures.reserved_nano_usd) == (65, 100)
    assert (state.lately_nano_usd, state.short.calls, state.past) == (65, 0, ())
    assert not state.has_ended
    ledger.sums.fold_sums(limit=1)
    ledger.succeeded("paid later", posted_nano_usd=7)
    again = ledger.operations.budget_state(NAME)
    assert again is not None
    assert again.lately_nano_usd == 72


def test_a_budget_of_a_type_has_its_own_rate(ledger: LedgerUnderTest) -> None:
    """Only its calls are spent from it."""
    ledger.set_budget(500, scope=TYPE_SCOPE)
    ledger.succeeded("mine", posted_nano_usd=60)
    ledger.succeeded("other", posted_nano_usd=5, call_type="summary")

    of_org, of_type = ledger.operations.budgets_by_name(org_id=ORG, limit=9)[::-1]

    assert (of_org.lately_nano_usd, of_type.lately_nano_usd) == (65, 60)
    ledger.sums.fold_sums(limit=100)
    assert ledger.operations.budgets_by_name(org_id=ORG, limit=9)[0].lately_nano_usd == 60


def test_what_was_spent_long_ago_is_no_rate(ledger: LedgerUnderTest) -> None:
    """An hour later nothing is spent any more."""
    ledger.succeeded("paid", posted_nano_usd=60)
    ledger.age(3_600)

    state = ledger.operations.budget_state(NAME)

    assert state is not None
    assert (state.lately_nano_usd, state.figures.spent_nano_usd) == (0, 60)
    assert state.exhausted_in_s is None


def test_there_may_be_no_such_budget(ledger: LedgerUnderTest) -> None:
    """A page may name anything."""
    assert ledger.operations.budget_state(NAME._replace(org_id=HOSTILE)) is None
    assert ledger.operations.budgets_by_name(org_id=HOSTILE, limit=9) == []
    assert ledger.operations.budget_periods(NAME._replace(scope="x"), limit=9) == []


def test_budgets_are_listed_by_name_page_by_page(ledger: LedgerUnderTest) -> None:
    """Each once, in its newest period, whatever its name."""
    ledger.set_budget(1, window=Window.MONTH)
    ledger.set_budget(1, scope=TYPE_SCOPE)
    ledger.set_budget(1, org_id="zeta")
    ledger.set_budget(1, org_id=HOSTILE)
    every = names(ledger)

    assert set(every) == {
        NAME,
        NAME._replace(window=Window.MONTH),
        TYPE_NAME,
        NAME._replace(org_id="zeta"),
        NAME._replace(org_id=HOSTILE),
    }
    for n, name in enumerate(every):
        assert names(ledger, after=name) == every[n + 1 :]
    assert names(ledger, org_id=ORG) == [name for name in every if name.org_id == ORG]
    assert names(ledger, org_id=ORG, after=TYPE_NAME)[-1].scope == ORG_SCOPE
    assert len(ledger.operations.budgets_by_name(limit=2)) == 2


def test_the_fullest_budgets_come_first(ledger: LedgerUnderTest) -> None:
    """By the used part of the limit; what is held is used, and a limit of 0 is used up."""
    for org_id, limit in (("half", 200), ("tenth", 1_000), ("closed", 0)):
        ledger.set_budget(limit, org_id=org_id)
    ledger.succeeded("one", posted_nano_usd=100, org_id="half")
    ledger.running("two", 100, org_id="tenth")

    found = ledger.operations.fullest_budgets(limit=3)

    assert [state.figures.org_id for state in found] == ["closed", "half", "tenth"]


def test_a_call_waits_for_each_budget_that_has_less_than_its_hold(ledger: LedgerUnderTest) -> None:
    """Of two budgets of a call only the one that is short."""
    ledger.set_budget(50, scope=TYPE_SCOPE)
    ledger.running("holds", 30)
    for n, hold in enumerate((30, 40)):
        refused(ledger, ledger.queued(f"waits {n}"), hold, OnBudget.WAIT)
    refused(ledger, ledger.queued("other type", call_type="summary"), LIMIT, OnBudget.WAIT)

    of_type, of_org = ledger.operations.budgets_by_name(org_id=ORG, limit=9)

    assert (of_type.short.calls, of_type.short.hold_nano_usd) == (2, 70)
    assert (of_org.short.calls, of_org.short.hold_nano_usd) == (1, LIMIT)
    assert not of_org.short.is_more
    assert ledger.operations.money_waiters(ORG, limit=2) == [
        MoneyWaiter("extraction", 30),
        MoneyWaiter("extraction", 40),
    ]
    assert len(ledger.operations.money_waiters(ORG, limit=9)) == 3


def test_past_periods_are_kept(ledger: LedgerUnderTest) -> None:
    """Oldest first beside the newest; as rows newest first. A day without a call has none."""
    for n, nano_usd in enumerate((10, 20, 30)):
        ledger.succeeded(f"call {n}", posted_nano_usd=nano_usd)
        ledger.age(DAY_S)

    over = ledger.operations.budget_state(NAME)
    assert over is not None
    assert over.has_ended
    assert (over.figures.spent_nano_usd, over.now.spent_nano_usd) == (30, 0)

    ledger.succeeded("today", posted_nano_usd=40)
    state = ledger.operations.budget_state(NAME)
    assert state is not None
    assert [p.spent_nano_usd for p in state.past] == [10, 20, 30]
    assert {p.limit_nano_usd for p in state.past} == {LIMIT}
    rows = ledger.operations.budget_periods(NAME, limit=3)
    assert [row.spent_nano_usd for row in rows] == [40, 30, 20]
    assert rows[0] == state.figures


def test_spending_by_quarter_hour(ledger: LedgerUnderTest) -> None:
    """Of the scope of a budget, folded or not."""
    ledger.succeeded("early", posted_nano_usd=10)
    ledger.age(3_600)
    ledger.sums.fold_sums(limit=100)
    ledger.succeeded("late", posted_nano_usd=20)
    ledger.succeeded("late too", posted_nano_usd=3, call_type="summary")
    now = ledger.now()
    since = quarter_of(now) - timedelta(hours=2)

    of_org = ledger.operations.spent_by_quarter(NAME, since)
    of_type = ledger.operations.spent_by_quarter(TYPE_NAME, since)

    assert [spent for _, spent in of_org] == [10, 23]
    assert [spent for _, spent in of_type] == [10, 20]
    assert all(at == quarter_of(at) for at, _ in of_org)
    assert ledger.operations.spent_by_quarter(NAME, quarter_of(now)) == of_org[1:]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (PauseKey(), Affected(1, 100, 2, 1, 2, False)),
        (PauseKey(org_id=ORG), Affected(1, 100, 1, 1, 1, False)),
        (PauseKey(org_id=ORG, is_freeze=True), Affected(1, 100, 1, 1, 1, False)),
        (PauseKey(org_id="bolt"), Affected(0, 0, 1, 0, 1, False)),
        (PauseKey(call_type="summary"), Affected(0, 0, 1, 0, 1, False)),
        (PauseKey(provider="openai", model="gpt-4o-mini"), Affected(1, 100, 1, 1, 1, False)),
        (PauseKey(model="o9"), Affected(0, 0, 1, 0, 1, False)),
        (PauseKey(org_id=HOSTILE), Affected(0, 0, 0, 0, 0, False)),
    ],
)
def test_what_a_pause_would_concern(
    ledger: LedgerUnderTest, key: PauseKey, expected: Affected
) -> None:
    """Open calls by state, what those in flight hold, and how many organisations they belong to."""
    ledger.succeeded("ended")
    ledger.running("in flight", 100)
    ledger.waiting("waits", due_in_s=60.0)
    ledger.queued("queued", call_type="summary")
    ledger.queued("theirs", org_id="bolt", model="o9")

    assert ledger.operations.affected(key) == expected
