"""Time zones that the ledger does not know: refused when they are set, and repaired when they vanish later."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.domain.budgets import ORG_SCOPE, RefusalReason, Window
from callgate.domain.calls import CallState
from callgate.domain.errors import BudgetNoPeriod, UnknownTimeZone
from callgate.domain.ledger import Refused, Reserved
from callgate.domain.requests import OnBudget
from callgate.services.results import error_of
from tests.support.ledger_under_test import (
    DAY_S,
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_reserve,
    a_submission,
)

GONE = "Atlantis/Poseidonis"


def lose_zone(ledger: LedgerUnderTest, org_id: str = ORG) -> None:
    """Have the budgets of an organisation in a zone that there no longer is."""
    if isinstance(ledger.ledger, MemoryLedger):
        budgets = ledger.ledger.tables.budgets
        for n, budget in budgets.items():
            if budget.org_id == org_id:
                budgets[n] = replace(budget, timezone=GONE)
        return
    assert isinstance(ledger.ledger, PostgresLedger)
    with ledger.ledger._session.engine.connect() as connection:
        statement = text("UPDATE budget SET timezone = :zone WHERE org_id = :org")
        connection.execute(statement, {"zone": GONE, "org": org_id})


@pytest.fixture
def broken(ledger: LedgerUnderTest) -> LedgerUnderTest:
    """The period of `ORG` has ended, and its zone is gone; "others" are well."""
    ledger.set_budget(LIMIT, org_id="others")
    lose_zone(ledger)
    ledger.age(2 * DAY_S)
    return ledger


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "FOO1", "Europe/Berlin2", "UTC; --"])
def test_a_zone_that_is_none_is_refused(ledger: LedgerUnderTest, zone: str) -> None:
    """In a word, and nothing is changed; a misspelling with a digit behind it is one too."""
    before = ledger.operations.budgets(ORG)

    with pytest.raises(UnknownTimeZone):
        ledger.operations.set_budget(ORG, ORG_SCOPE, Window.DAY, 7, zone)
    with pytest.raises(UnknownTimeZone):
        ledger.operations.set_budget("new", ORG_SCOPE, Window.DAY, 7, zone)

    assert ledger.operations.budgets(ORG) == before
    assert ledger.operations.budgets("new") == []


def test_a_period_that_runs_needs_no_zone(ledger: LedgerUnderTest) -> None:
    """Its ends are known."""
    lose_zone(ledger)

    assert ledger.claim(ledger.queued())


@pytest.mark.parametrize("patience", list(OnBudget))
def test_calls_end_where_no_period_can_follow(broken: LedgerUnderTest, patience: OnBudget) -> None:
    """Rejected, with a reason that says what to do; a wait for its period would never end."""
    key = broken.queued()

    (refused,) = broken.reserve(a_reserve(key, on_budget=patience))

    assert isinstance(refused, Refused)
    assert refused.state is CallState.REJECTED
    assert refused.refusal is not None
    assert refused.refusal.reason is RefusalReason.NO_PERIOD
    error = error_of(broken.view(key))
    assert isinstance(error, BudgetNoPeriod)
    assert "--timezone UTC" in str(error)
    assert broken.figures() == (0, 0)


def test_neighbours_in_the_batch_are_none_the_worse(broken: LedgerUnderTest) -> None:
    """In whatever order they come."""
    theirs = [broken.queued(f"{n}", org_id="others") for n in range(3)]
    ours = broken.queued()

    outcomes = broken.reserve(*map(a_reserve, [theirs[0], ours, *theirs[1:]]))

    assert [type(outcome) for outcome in outcomes] == [Reserved, Refused, Reserved, Reserved]


def test_another_zone_mends_it(broken: LedgerUnderTest) -> None:
    """The setting rolls nothing over by the zone that is gone; the new period is one of the new zone, and unused."""
    broken.reserve(a_reserve(broken.queued()))

    figures = broken.operations.set_budget(
        ORG, ORG_SCOPE, Window.DAY, LIMIT, broken.noon_zone_in(2 * DAY_S)
    )

    assert figures.starts_at <= broken.now() < figures.ends_at
    assert (figures.reserved_nano_usd, figures.spent_nano_usd) == (0, 0)
    (again,) = broken.submit(a_submission())
    assert again.key.generation == 2
    assert broken.claim(again.key)


def test_what_was_held_when_it_broke_is_settled_where_it_was_held(
    ledger: LedgerUnderTest,
) -> None:
    """A broken zone stops new holds and nothing else."""
    ref = ledger.answered()
    lose_zone(ledger)
    ledger.age(2 * DAY_S)

    from tests.support.ledger_under_test import a_success

    assert ledger.settle(a_success(ref, 60))[0].is_applied
    assert ledger.figures() == (0, 60)


def test_only_the_window_that_was_set_is_mended(broken: LedgerUnderTest) -> None:
    """Day and month have zones of their own."""
    broken.operations.set_budget(ORG, ORG_SCOPE, Window.MONTH, LIMIT, "UTC")

    (refused,) = broken.reserve(a_reserve(broken.queued()))

    assert isinstance(refused, Refused)
    assert refused.refusal is not None
    assert refused.refusal.window is Window.DAY


def test_a_limit_alone_mends_nothing(broken: LedgerUnderTest) -> None:
    """A limit is set in a zone; one that is gone is refused like any other."""
    with pytest.raises(UnknownTimeZone):
        broken.operations.set_budget(ORG, ORG_SCOPE, Window.DAY, 2 * LIMIT, GONE)

    (budget,) = broken.operations.budgets(ORG)
    assert budget.limit_nano_usd == LIMIT
    assert budget.ends_at - budget.starts_at >= timedelta(hours=23)
