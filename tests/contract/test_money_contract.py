"""Money: what may be held, and what becomes of a call that has no headroom."""

from __future__ import annotations

import json

import pytest

from callgate.domain.budgets import BudgetRefusal, RefusalReason, Window
from callgate.domain.calls import CallState
from callgate.domain.ledger import DueKind, Refused, Reserved
from callgate.domain.requests import OnBudget
from tests.contract.money_steps import TYPE_SCOPE, reason_of, refused
from tests.support.ledger_under_test import (
    LIMIT,
    LINK,
    ORG,
    LedgerUnderTest,
    a_reserve,
    a_submission,
)

# Admission.


def test_an_exact_fit_passes(ledger: LedgerUnderTest) -> None:
    """spent + reserved + hold == limit is allowed."""
    ledger.succeeded("spent", posted_nano_usd=60)
    ledger.running("held", 100)

    (outcome,) = ledger.reserve(a_reserve(ledger.queued(), LIMIT - 160))

    assert isinstance(outcome, Reserved)
    assert ledger.figures() == (LIMIT - 60, 60)


def test_one_nano_more_is_refused_and_holds_nothing(ledger: LedgerUnderTest) -> None:
    """Never clamped: the figures are as before, and the refusal names them."""
    ledger.succeeded("spent", posted_nano_usd=60)
    ledger.running("held", 100)
    key = ledger.queued()

    outcomes = ledger.reserve(a_reserve(key, LIMIT - 159))

    refusal = BudgetRefusal(RefusalReason.HELD, ORG, "org", Window.DAY, LIMIT, 60, 100, LIMIT - 159)
    assert outcomes == [Refused(key, CallState.WAITING, refusal, "budget_held")]
    assert ledger.figures() == (100, 60)
    assert ledger.view(key).attempt == 0


def test_a_hold_of_nothing_fits_into_a_used_up_budget(ledger: LedgerUnderTest) -> None:
    """A free model needs no money."""
    ledger.running("all", LIMIT)

    (outcome,) = ledger.reserve(a_reserve(ledger.queued(), 0))

    assert isinstance(outcome, Reserved)


def test_a_large_call_never_refuses_its_neighbours(ledger: LedgerUnderTest) -> None:
    """Decided one by one: what does not fit is passed over, what comes after it is asked for itself."""
    large, small, larger, rest = (ledger.queued(name) for name in ("a", "b", "c", "d"))

    outcomes = ledger.reserve(
        a_reserve(large, LIMIT + 1),
        a_reserve(small, 400),
        a_reserve(larger, 601),
        a_reserve(rest, 600),
    )

    assert [type(outcome) for outcome in outcomes] == [Refused, Reserved, Refused, Reserved]
    assert ledger.figures() == (LIMIT, 0)


def test_a_batch_is_decided_in_arrival_order(ledger: LedgerUnderTest) -> None:
    """Who came first is held first, whatever order the ledger locks in."""
    keys = sorted(ledger.queued(f"page {i}") for i in range(6))[::-1]

    outcomes = ledger.reserve(*[a_reserve(key, 300) for key in keys])

    assert [type(outcome) for outcome in outcomes] == [Reserved] * 3 + [Refused] * 3
    last = outcomes[-1]
    assert isinstance(last, Refused)
    assert last.refusal is not None
    assert last.refusal.reserved_nano_usd == 900


def test_every_scope_of_a_call_is_held(ledger: LedgerUnderTest) -> None:
    """The organisation's budgets and those of the call type, per day and per month."""
    ledger.set_budget(LIMIT, window=Window.MONTH)
    ledger.set_budget(LIMIT, scope=TYPE_SCOPE)

    ledger.running(hold_nano_usd=100)

    assert ledger.figures() == (100, 0)
    assert ledger.figures(window=Window.MONTH) == (100, 0)
    assert ledger.figures(TYPE_SCOPE) == (100, 0)


@pytest.mark.parametrize(
    ("scope", "window"),
    [(TYPE_SCOPE, Window.DAY), ("org", Window.MONTH), (TYPE_SCOPE, Window.MONTH)],
)
def test_all_scopes_or_none(ledger: LedgerUnderTest, scope: str, window: Window) -> None:
    """One scope without room, and nothing is held in the others."""
    ledger.set_budget(99, scope=scope, window=window)
    key = ledger.queued()

    refusal = refused(ledger, key, 100, OnBudget.REJECT)

    assert refusal.refusal == BudgetRefusal(
        RefusalReason.TOO_SMALL, ORG, scope, window, 99, 0, 0, 100
    )
    assert ledger.figures() == (0, 0)
    assert ledger.figures(scope, window) == (0, 0)


def test_other_call_types_and_organisations_are_not_concerned(ledger: LedgerUnderTest) -> None:
    """A budget limits its own scope only."""
    ledger.set_budget(0, scope="call_type:triage")
    ledger.set_budget(0, org_id="zeta")

    ledger.running(hold_nano_usd=LIMIT)

    assert ledger.figures() == (LIMIT, 0)


def test_the_least_hopeful_scope_decides(ledger: LedgerUnderTest) -> None:
    """Held in one scope and impossible in another: waiting would not help."""
    ledger.running("held", LIMIT)
    ledger.set_budget(99, scope=TYPE_SCOPE)

    refusal = refused(ledger, ledger.queued(), 100, OnBudget.WAIT)

    assert (refusal.state, reason_of(refusal)) == (CallState.REJECTED, RefusalReason.TOO_SMALL)


# Refusals.


def test_a_refusal_is_kept_with_the_call(ledger: LedgerUnderTest) -> None:
    """Its error is the refusal as JSON, with a stable code, the scope and all figures."""
    ledger.running("held", LIMIT)
    key = ledger.queued()

    refusal = refused(ledger, key, 100, OnBudget.REJECT)

    error = ledger.view(key).error
    assert error is not None
    assert json.loads(error)["code"] == "budget_held"
    assert BudgetRefusal.from_json(error) == refusal.refusal


@pytest.mark.parametrize("on_budget", OnBudget)
def test_a_call_held_up_by_others_waits(ledger: LedgerUnderTest, on_budget: OnBudget) -> None:
    """Their holds may turn out cheaper: it is tried again, soon while it is young."""
    ledger.running("held", LIMIT)
    key = ledger.queued()

    refusal = refused(ledger, key, 100, on_budget)

    assert (refusal.state, reason_of(refusal)) == (CallState.WAITING, RefusalReason.HELD)
    assert ledger.state(key) is CallState.WAITING
    ledger.age(2)
    assert ledger.due_kinds() == [(DueKind.PUBLISH, key)]


@pytest.mark.parametrize(("age_s", "wait_s"), [(40, 10), (1_000, 30)])
def test_a_held_up_call_waits_a_quarter_of_its_age(
    ledger: LedgerUnderTest, age_s: float, wait_s: float
) -> None:
    """At most 30 seconds, so that neither the queue nor the call starves."""
    key = ledger.queued()
    ledger.age(age_s)
    ledger.running("held", LIMIT)

    refused(ledger, key, 100, OnBudget.REJECT)

    due_at = ledger.view(key).due_at
    assert due_at is not None
    assert abs((due_at - ledger.now()).total_seconds() - wait_s) < 2


def test_an_exhausted_budget_rejects(ledger: LedgerUnderTest) -> None:
    """The period's money is spent; by default nobody waits for the next one."""
    ledger.succeeded("spent", posted_nano_usd=950)
    key = ledger.queued()

    refusal = refused(ledger, key, 51, OnBudget.REJECT)

    assert (refusal.state, reason_of(refusal)) == (CallState.REJECTED, RefusalReason.EXHAUSTED)
    assert (ledger.state(key), ledger.view(key).due_at) == (CallState.REJECTED, None)


def test_an_exhausted_budget_can_be_waited_for(ledger: LedgerUnderTest) -> None:
    """Until the very end of the period; then the call is admitted into the next one."""
    ledger.succeeded("spent", posted_nano_usd=950)
    key = ledger.queued()

    refusal = refused(ledger, key, 51, OnBudget.WAIT)

    (budget,) = ledger.operations.budgets(ORG)
    assert (refusal.state, reason_of(refusal)) == (CallState.WAITING, RefusalReason.EXHAUSTED)
    assert ledger.view(key).due_at == budget.ends_at
    ledger.age((budget.ends_at - ledger.now()).total_seconds() + 1)
    ledger.claim(ledger.requeued(key), 51)


def test_the_last_exhausted_period_is_waited_for(ledger: LedgerUnderTest) -> None:
    """Two budgets are used up: the earlier end would only bring the next refusal."""
    month = ledger.set_budget(LIMIT, window=Window.MONTH)
    ledger.set_budget(LIMIT, scope=TYPE_SCOPE)
    ledger.succeeded("spent", posted_nano_usd=950)
    key = ledger.queued()

    refused(ledger, key, 51, OnBudget.WAIT)

    assert ledger.view(key).due_at == month.ends_at


def test_only_exhausted_periods_are_waited_for(ledger: LedgerUnderTest) -> None:
    """A month with headroom does not delay what the next day allows."""
    ledger.set_budget(10 * LIMIT, window=Window.MONTH)
    ledger.succeeded("spent", posted_nano_usd=950)
    key = ledger.queued()

    refused(ledger, key, 51, OnBudget.WAIT)

    (day,) = [b for b in ledger.operations.budgets(ORG) if b.window is Window.DAY]
    assert ledger.view(key).due_at == day.ends_at


@pytest.mark.parametrize("on_budget", OnBudget)
def test_a_call_that_never_fits_is_rejected(ledger: LedgerUnderTest, on_budget: OnBudget) -> None:
    """No period will ever have room for it."""
    key = ledger.queued()

    refusal = refused(ledger, key, LIMIT + 1, on_budget)

    assert (refusal.state, reason_of(refusal)) == (CallState.REJECTED, RefusalReason.TOO_SMALL)


@pytest.mark.parametrize("on_budget", OnBudget)
def test_an_organisation_without_a_budget_is_refused(
    ledger: LedgerUnderTest, on_budget: OnBudget
) -> None:
    """A forgotten budget must not mean unlimited money."""
    key = ledger.queued(org_id="zeta")

    refusal = refused(ledger, key, 1, on_budget)

    assert refusal.state is CallState.REJECTED
    assert refusal.refusal == BudgetRefusal(
        RefusalReason.NOT_CONFIGURED, "zeta", "org", None, 0, 0, 0, 1
    )
    error = ledger.view(key).error
    assert error is not None
    assert BudgetRefusal.from_json(error) == refusal.refusal


def test_a_call_that_no_budget_covers_is_refused(ledger: LedgerUnderTest) -> None:
    """A budget for another call type alone does not make this one free."""
    ledger.set_budget(LIMIT, scope="call_type:triage", org_id="zeta")
    key = ledger.queued(org_id="zeta")

    assert reason_of(refused(ledger, key, 1, OnBudget.REJECT)) is RefusalReason.NOT_CONFIGURED


def test_a_default_limit_becomes_a_budget(ledger: LedgerUnderTest) -> None:
    """Per day, in UTC, for the whole organisation; from then on it is a budget like any other."""
    one, two = ledger.queued("one", org_id="zeta"), ledger.queued("two", org_id="zeta")

    (first,) = ledger.reserve(a_reserve(one, 60, default_limit_nano_usd=100))
    (second,) = ledger.reserve(a_reserve(two, 41, default_limit_nano_usd=9_999))

    (budget,) = ledger.operations.budgets("zeta")
    assert isinstance(first, Reserved)
    assert isinstance(second, Refused)
    assert (budget.scope, budget.window, budget.timezone) == ("org", Window.DAY, "UTC")
    assert (budget.limit_nano_usd, budget.reserved_nano_usd) == (100, 60)


def test_each_organisation_gets_the_default_of_its_own_call(ledger: LedgerUnderTest) -> None:
    """A batch of several organisations: the first call of each says what its default is."""
    zeta, eta = ledger.queued("one", org_id="zeta"), ledger.queued("one", org_id="eta")

    ledger.reserve(
        a_reserve(zeta, 60, default_limit_nano_usd=100),
        a_reserve(eta, 60, default_limit_nano_usd=70),
    )

    limits = {b.org_id: b.limit_nano_usd for b in ledger.operations.budgets()}
    assert limits == {ORG: LIMIT, "zeta": 100, "eta": 70}


def test_a_default_limit_can_be_too_small(ledger: LedgerUnderTest) -> None:
    """The default is no free pass for the first call."""
    key = ledger.queued(org_id="zeta")

    (outcome,) = ledger.reserve(a_reserve(key, 101, default_limit_nano_usd=100))

    assert isinstance(outcome, Refused)
    assert reason_of(outcome) is RefusalReason.TOO_SMALL


def test_a_rejected_calls_links_fall_due(ledger: LedgerUnderTest) -> None:
    """Its submitters hear of a refusal as they hear of a result."""
    new = a_submission(link=LINK)
    key = ledger.submit(new)[0].key

    refused(ledger, key, LIMIT + 1, OnBudget.REJECT)

    assert ledger.due() == ()
    (delivery,) = ledger.links()
    assert (delivery.submission_id, delivery.key) == (new.submission_id, key)
    assert (delivery.state, delivery.link) == (CallState.REJECTED, LINK)
