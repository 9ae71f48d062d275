"""Operators who change what they saw: another operator's change, or an old page, is noticed; on both ledgers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from callgate.domain.budget_states import BudgetName
from callgate.domain.budgets import ORG_SCOPE, BudgetFigures, Window
from callgate.domain.calls import CallState
from callgate.domain.errors import ChangedMeanwhile, UnknownTimeZone
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.requests import OnBudget
from callgate.services.audit import audit
from tests.contract.money_steps import refused
from tests.support.ledger_under_test import (
    DAY_S,
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_success,
    an_answer,
)

BY = By("ann", "they asked for it")
NAME = BudgetName(ORG, ORG_SCOPE, Window.DAY)
MONTH = BudgetName(ORG, ORG_SCOPE, Window.MONTH)
KEY = ("openai", "gpt-4o-mini", "")


def logged(ledger: LedgerUnderTest) -> list[tuple[str, str | None, str, dict[str, object]]]:
    """The action log without the first entry, which belongs to the fixture; newest first."""
    return [
        (a.action, a.org_id, a.subject, a.detail) for a in ledger.operations.actions(limit=99)[:-1]
    ]


def limit_of(ledger: LedgerUnderTest, name: BudgetName = NAME) -> BudgetFigures:
    """A budget now."""
    state = ledger.operations.budget_state(name)
    assert state is not None
    return state.figures


def test_a_limit_is_changed_and_logged(ledger: LedgerUnderTest) -> None:
    """The period keeps its figures and its zone; a call that waited and fits is due."""
    ledger.running("holds", LIMIT)
    key = ledger.queued("waits")
    refused(ledger, key, 100, OnBudget.WAIT)
    before = limit_of(ledger)

    after = ledger.operations.change_limit(NAME, LIMIT + 100, seen_nano_usd=LIMIT, by=BY)

    assert after == limit_of(ledger)
    assert (after.limit_nano_usd, after.reserved_nano_usd) == (LIMIT + 100, LIMIT)
    assert (after.budget_id, after.timezone) == (before.budget_id, before.timezone)
    assert ledger.requeued(key) == key
    detail = {"from_nano_usd": LIMIT, "to_nano_usd": LIMIT + 100, "timezone": before.timezone}
    assert logged(ledger) == [("budget.set", ORG, f"{ORG}/org/day", detail)]
    assert ledger.operations.actions(limit=1)[0].by == BY


@pytest.mark.parametrize("seen", [LIMIT - 1, LIMIT + 1, None])
def test_a_limit_that_is_another_one_now_stays(ledger: LedgerUnderTest, seen: int | None) -> None:
    """The second of two operators hears what it is."""
    with pytest.raises(ChangedMeanwhile, match=r"the limit is \$0\.000001 now"):
        ledger.operations.change_limit(NAME, 5, seen_nano_usd=seen, by=BY)

    assert limit_of(ledger).limit_nano_usd == LIMIT
    assert logged(ledger) == []


def test_a_new_budget(ledger: LedgerUnderTest) -> None:
    """Only if there is none, as the operator saw it."""
    month = NAME._replace(window=Window.MONTH)
    with pytest.raises(ChangedMeanwhile, match="no such budget"):
        ledger.operations.change_limit(month, 5, seen_nano_usd=4, by=BY)
    assert ledger.operations.budget_state(month) is None

    made = ledger.operations.change_limit(month, 5, seen_nano_usd=None, by=BY)
    assert (made.limit_nano_usd, made.timezone) == (5, "UTC")
    with pytest.raises(ChangedMeanwhile, match="now"):
        ledger.operations.change_limit(month, 6, seen_nano_usd=None, by=BY)

    detail = {"from_nano_usd": None, "to_nano_usd": 5, "timezone": "UTC"}
    assert logged(ledger) == [("budget.set", ORG, f"{ORG}/org/month", detail)]


@pytest.mark.parametrize("window", [Window.DAY, Window.MONTH])
def test_an_unknown_time_zone_changes_nothing(ledger: LedgerUnderTest, window: Window) -> None:
    """Whether or not there is such a budget."""
    name = NAME._replace(window=window)
    before = ledger.operations.budgets()

    with pytest.raises(UnknownTimeZone):
        ledger.operations.change_limit(
            name, 5, seen_nano_usd=LIMIT if window is Window.DAY else None, timezone="Mars1", by=BY
        )

    assert ledger.operations.budgets() == before
    assert logged(ledger) == []


def test_the_limit_of_a_period_that_is_over(ledger: LedgerUnderTest) -> None:
    """It is that of the next period too, and the operator saw it."""
    ledger.succeeded("paid", posted_nano_usd=60)
    ledger.age(DAY_S)

    after = ledger.operations.change_limit(NAME, 7, seen_nano_usd=LIMIT, by=BY)

    assert (after.limit_nano_usd, after.spent_nano_usd) == (7, 0)
    assert [b.limit_nano_usd for b in ledger.operations.budget_periods(NAME, limit=9)] == [7, LIMIT]


def test_a_breaker_that_has_changed_stays(ledger: LedgerUnderTest) -> None:
    """Closing what another operator has opened again meanwhile is refused."""
    seen = ledger.operations.set_breaker(*KEY, is_open=True, by=BY)
    ledger.age(60)
    ben = By("ben", "it leaks")
    now = ledger.operations.set_breaker(*KEY, is_open=True, by=ben)

    with pytest.raises(ChangedMeanwhile):
        ledger.operations.set_breaker(*KEY, is_open=False, seen_at=seen.changed_at, by=BY)
    (kept,) = ledger.operations.breakers()
    assert (kept.is_open, kept.reason) == (True, "it leaks")
    closed = ledger.operations.set_breaker(*KEY, is_open=False, seen_at=now.changed_at, by=BY)
    assert not closed.is_open
    assert [entry[0] for entry in logged(ledger)] == ["breaker.close", *["breaker.open"] * 2]


def test_a_breaker_of_which_nothing_was_seen(ledger: LedgerUnderTest) -> None:
    """A new one has no time to compare."""
    key = ("sim", "o9", "")
    with pytest.raises(ChangedMeanwhile):
        ledger.operations.set_breaker(
            *key, is_open=True, seen_at=ledger.now() - timedelta(days=1), by=BY
        )

    assert ledger.operations.set_breaker(*key, is_open=True, by=BY).is_open


@pytest.mark.parametrize("key", [PauseKey(org_id=ORG), PauseKey(org_id=ORG, is_freeze=True)])
def test_of_two_operators_who_pause_the_first_is_named(
    ledger: LedgerUnderTest, key: PauseKey
) -> None:
    """The second hears of it; without the question the newer reason counts, as before."""
    ledger.operations.pause(key, is_new=True, by=BY)
    with pytest.raises(ChangedMeanwhile, match="already"):
        ledger.operations.pause(key, is_new=True, by=By("ben", "me too"))
    (kept,) = ledger.operations.pauses()
    assert kept.by == BY
    assert len(logged(ledger)) == 1

    ledger.operations.pause(key, by=By("ben", "me too"))
    assert ledger.operations.pauses()[0].by.operator == "ben"


def test_a_pause_that_began_again_is_not_ended(ledger: LedgerUnderTest) -> None:
    """Who saw the first one does not know why there is a second."""
    key = PauseKey(call_type="extraction")
    first = ledger.operations.pause(key, by=BY)
    assert ledger.operations.resume(key, seen_at=first.at, by=BY)
    assert not ledger.operations.resume(key, seen_at=first.at, by=BY)
    ledger.age(60)
    second = ledger.operations.pause(key, by=By("ben", "again"))

    with pytest.raises(ChangedMeanwhile, match="again meanwhile"):
        ledger.operations.resume(key, seen_at=first.at, by=BY)
    assert len(ledger.operations.pauses()) == 1
    assert ledger.operations.resume(key, seen_at=second.at, by=BY)
    assert ledger.operations.pauses() == []
    assert ledger.state(ledger.queued()) is CallState.QUEUED


def test_a_budget_is_removed_and_its_attempts_are_posted_as_usual(ledger: LedgerUnderTest) -> None:
    """Who waited for it is due, and the audit finds nothing wrong; a new budget begins at 0."""
    ledger.operations.change_limit(MONTH, 150, seen_nano_usd=None, by=BY)
    ref, waits = ledger.running("holds", 100), ledger.queued("waits")
    refused(ledger, waits, 100, OnBudget.WAIT)

    ledger.operations.remove_budget(MONTH, seen_nano_usd=150, by=BY)
    ledger.claim(ledger.requeued(waits))
    ledger.operations.remove_budget(NAME, seen_nano_usd=LIMIT, by=BY)
    ledger.record(an_answer(ref))
    assert ledger.settle(a_success(ref, 60))[0].is_applied
    ledger.set_budget(500)

    assert [b.spent_nano_usd for b in ledger.operations.budgets(ORG)] == [0]
    assert ledger.view(ref).posted_nano_usd == 60
    assert audit(ledger.operations).is_clean
    removed = [a for a in ledger.operations.actions(limit=9) if a.action == "budget.remove"]
    assert [a.subject for a in removed] == [f"{ORG}/org/day", f"{ORG}/org/month"]
    assert [a.detail["reserved_nano_usd"] for a in removed] == [200, 100]


@pytest.mark.parametrize("seen", [LIMIT + 1, 0])
def test_a_budget_that_changed_meanwhile_is_not_removed(ledger: LedgerUnderTest, seen: int) -> None:
    with pytest.raises(ChangedMeanwhile):
        ledger.operations.remove_budget(NAME, seen_nano_usd=seen, by=BY)

    assert [b.limit_nano_usd for b in ledger.operations.budgets(ORG)] == [LIMIT]
    with pytest.raises(ChangedMeanwhile):
        ledger.operations.remove_budget(MONTH, seen_nano_usd=seen, by=BY)
