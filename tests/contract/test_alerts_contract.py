"""Alerts: what raises them, once for all processes, and what resolves them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from callgate.domain.alert_rules import AlertRules, OrganisationAlerts
from callgate.domain.alert_words import todo_of, words_of
from callgate.domain.alerts import FORGOTTEN_AFTER_S, RAISED_AGAIN_S, AlertKind, LookTerms
from callgate.domain.budgets import Window
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.requests import OnBudget
from tests.contract.alert_steps import RULES, alerts, lines, look, moment, one
from tests.contract.breaker_steps import breaker, opened, opened_for_all, sent
from tests.contract.flow_steps import is_limited
from tests.contract.money_steps import TYPE_SCOPE, refused
from tests.contract.unknown_steps import given_up
from tests.support.ledger_under_test import DAY_S, LEASE_S, LIMIT, ORG, REAPER, LedgerUnderTest
from tests.support.process_leases import LENGTH_S, pass_time

BY = By("nina", "a test")


def percents(ledger: LedgerUnderTest) -> list[int]:
    """The thresholds that were alerted, in order."""
    return [a.detail["percent"] for a in alerts(ledger, AlertKind.BUDGET_THRESHOLD)]


def test_a_ledger_in_order_raises_nothing(ledger: LedgerUnderTest) -> None:
    ledger.succeeded(posted_nano_usd=LIMIT // 2 - 1)

    assert look(ledger) == 0
    assert lines(ledger) == []


def test_each_threshold_of_a_budget_is_alerted_once_in_its_period(ledger: LedgerUnderTest) -> None:
    for n, (posted, seen) in enumerate(
        ((500, [50]), (299, [50]), (1, [50, 80]), (200, [50, 80, 100]))
    ):
        ledger.succeeded(f"{n}", posted)
        look(ledger)
        look(ledger)
        assert percents(ledger) == seen


def test_what_is_held_counts_as_used(ledger: LedgerUnderTest) -> None:
    ledger.running("held", LIMIT - 200)
    look(ledger)

    alert = one(ledger, AlertKind.BUDGET_THRESHOLD)
    assert (alert.org_id, alert.subject, alert.detail["percent"]) == (ORG, f"{ORG}/org/day", 80)
    assert [alert.detail[f"{n}_nano_usd"] for n in ("limit", "spent", "held")] == [1000, 0, 800]
    starts_at, ends_at = (moment(alert.detail[n]) for n in ("starts_at", "ends_at"))
    assert starts_at <= alert.at < ends_at
    assert words_of(alert).startswith(
        "80 % of the budget acme/org/day are used: $0.000000 spent and $0.000000800 held of $0.000001"
    )


def test_the_next_period_is_alerted_again(ledger: LedgerUnderTest) -> None:
    ledger.succeeded("first", LIMIT // 2)
    look(ledger)
    ledger.age(DAY_S)
    look(ledger)
    assert percents(ledger) == [50]

    ledger.succeeded("second", LIMIT // 2)
    look(ledger)
    assert percents(ledger) == [50, 50]


def test_a_budget_that_refuses_calls_is_used_up(ledger: LedgerUnderTest) -> None:
    """Its last nano-USD may never be used."""
    ledger.succeeded("most of it", LIMIT - 50)
    refused(ledger, ledger.queued("too large", call_type="extraction"), 60, OnBudget.WAIT)
    look(ledger)

    assert percents(ledger) == [80, 100]


def test_a_lower_threshold_is_alerted_after_a_higher_one(ledger: LedgerUnderTest) -> None:
    """A call may be refused long before the budget is used."""
    ledger.succeeded("some of it", LIMIT * 6 // 10)
    refused(ledger, ledger.queued("too large", call_type="extraction"), LIMIT, OnBudget.WAIT)
    look(ledger)
    assert percents(ledger) == [50, 100]

    ledger.succeeded("more of it", LIMIT * 2 // 10)
    look(ledger)
    look(ledger)
    assert percents(ledger) == [50, 100, 80]


def test_a_call_that_another_budget_refuses_says_nothing_of_this_one(
    ledger: LedgerUnderTest,
) -> None:
    ledger.set_budget(LIMIT // 10, scope=TYPE_SCOPE)
    ledger.succeeded("of the type", LIMIT // 10, call_type="extraction")
    ledger.set_budget(LIMIT, scope="call_type:other")
    ledger.succeeded("others", LIMIT // 2, call_type="other")
    # It is larger than what is left of the other type too, and of no concern to it.
    large = LIMIT // 10
    refused(ledger, ledger.queued("too large", call_type="extraction"), large, OnBudget.WAIT)
    ledger.set_budget(LIMIT // 2 + large - 1, scope="call_type:other")
    look(ledger, AlertRules(budget_percents=(50, 100)))

    found = {a.subject: a.detail["percent"] for a in alerts(ledger)}
    assert found == {
        f"{ORG}/org/day": 50,
        f"{ORG}/{TYPE_SCOPE}/day": 100,
        f"{ORG}/call_type:other/day": 50,
    }


def test_each_budget_of_an_organisation_has_its_own_alerts(ledger: LedgerUnderTest) -> None:
    ledger.set_budget(10 * LIMIT, window=Window.MONTH)
    ledger.succeeded("half of the day", LIMIT // 2)
    look(ledger)

    assert one(ledger, AlertKind.BUDGET_THRESHOLD).detail["window"] == "day"


def test_an_organisation_may_have_thresholds_of_its_own(ledger: LedgerUnderTest) -> None:
    rules = AlertRules(
        budget_percents=(100,),
        orgs={ORG: OrganisationAlerts(budget_percents=(10, 20)), "bolt": OrganisationAlerts()},
    )
    ledger.set_budget(LIMIT, org_id="bolt")
    for org_id in (ORG, "bolt"):
        ledger.succeeded("some", LIMIT // 4, org_id=org_id)
    look(ledger, rules)
    assert percents(ledger) == [20]

    look(ledger, AlertRules(budget_percents=(), orgs={ORG: OrganisationAlerts(budget_percents=())}))
    assert percents(ledger) == [20]


def test_an_open_breaker_is_alerted_until_it_closes(ledger: LedgerUnderTest) -> None:
    opened_for_all(ledger)
    look(ledger)

    alert = one(ledger, AlertKind.BREAKER_OPEN)
    assert (alert.org_id, alert.resolved_at, alert.detail["calls_of"]) == ("", None, "all")
    assert alert.detail["reason"] == "server_error"
    found = breaker(ledger, "")
    names = found.provider, found.model
    assert alert.subject == "/".join(names)
    ledger.operations.set_breaker(*names, "", is_open=False, by=BY)
    look(ledger)
    closed = one(ledger, AlertKind.BREAKER_OPEN)
    assert closed.resolved_at is not None
    assert ledger.operations.alerts(only_holding=True, limit=10) == []


def test_a_breaker_of_one_organisation_names_it(ledger: LedgerUnderTest) -> None:
    opened(ledger)
    look(ledger)

    alert = one(ledger, AlertKind.BREAKER_OPEN)
    assert (alert.org_id, alert.detail["calls_of"]) == (ORG, ORG)


def test_a_breaker_opened_by_hand_shows_no_words_of_the_operator(ledger: LedgerUnderTest) -> None:
    ledger.operations.set_breaker("openai", "gpt-4o-mini", "", is_open=True, by=BY)
    look(ledger)

    assert one(ledger, AlertKind.BREAKER_OPEN).detail["reason"] == "operator"


def test_a_state_that_comes_and_goes_is_not_raised_each_time(ledger: LedgerUnderTest) -> None:
    def switch(*, is_open: bool) -> None:
        ledger.operations.set_breaker("openai", "gpt-4o-mini", "", is_open=is_open, by=BY)
        look(ledger)

    for is_open in (True, False, True, False, True):
        switch(is_open=is_open)
    assert len(alerts(ledger)) == 1

    ledger.age(RAISED_AGAIN_S + 1)
    look(ledger)
    assert [a.resolved_at is None for a in alerts(ledger)] == [False, True]


def test_a_blocked_key_is_alerted_after_a_while(ledger: LedgerUnderTest) -> None:
    """Some refusals for the rate are usual."""
    ref = sent(ledger, "refused")
    is_limited(ledger, ref, 300.0)
    look(ledger)
    assert alerts(ledger) == []

    ledger.age(RULES.blocked_key_s + 1)
    look(ledger)
    alert = one(ledger, AlertKind.KEY_BLOCKED)
    assert alert.detail["reason"] == "rate_limited"


def test_dead_letters_are_alerted_above_their_rate(ledger: LedgerUnderTest) -> None:
    rules = AlertRules(
        dead_letters_per_hour=3, orgs={"bolt": OrganisationAlerts(dead_letters_per_hour=2)}
    )
    ledger.set_budget(LIMIT, org_id="bolt")
    for n in range(2):
        for org_id in (ORG, "bolt"):
            ledger.dead(f"{n}", org_id=org_id)
    look(ledger, rules)
    assert [(a.org_id, a.detail) for a in alerts(ledger)] == [
        ("bolt", {"per_hour": 2, "threshold": 2})
    ]

    ledger.dead("third")
    look(ledger, rules)
    assert [a.org_id for a in alerts(ledger, AlertKind.DEAD_LETTERS)] == ["bolt", ORG]


def test_unknown_money_is_alerted_until_it_is_settled(ledger: LedgerUnderTest) -> None:
    rules = AlertRules(unknown_usd=Decimal("0.0000001"))
    given_up(ledger)
    look(ledger, AlertRules(unknown_usd=Decimal("0.000001")))
    assert alerts(ledger) == []

    look(ledger, rules)
    assert one(ledger, AlertKind.UNKNOWN_MONEY).detail["value"] == pytest.approx(1e-7)
    look(ledger, AlertRules())
    assert one(ledger, AlertKind.UNKNOWN_MONEY).resolved_at is not None


def test_an_old_queue_is_alerted(ledger: LedgerUnderTest) -> None:
    key = ledger.queued()
    ledger.age(RULES.queue_age_s + 1)
    look(ledger)
    assert one(ledger, AlertKind.QUEUE_AGE).detail["value"] >= RULES.queue_age_s

    ledger.claim(key)
    look(ledger)
    assert one(ledger, AlertKind.QUEUE_AGE).resolved_at is not None


def test_old_figures_raise_and_resolve_nothing(ledger: LedgerUnderTest) -> None:
    key = ledger.queued()
    ledger.age(RULES.queue_age_s + 1)
    look(ledger)
    ledger.claim(key)
    ledger.ledger_figures.read_figures(interval_s=0, orgs_max=5)
    ledger.age(3_600)

    ledger.alerts.look(LookTerms(0.0, RULES))
    assert one(ledger, AlertKind.QUEUE_AGE).resolved_at is None


def test_a_frozen_organisation_is_alerted_until_it_is_not(ledger: LedgerUnderTest) -> None:
    ledger.operations.pause(PauseKey(provider="openai"), by=BY)
    ledger.operations.pause(PauseKey(org_id=ORG, is_freeze=True), by=BY)
    look(ledger)
    assert one(ledger, AlertKind.FROZEN).org_id == ORG

    ledger.operations.resume(PauseKey(org_id=ORG, is_freeze=True), by=BY)
    look(ledger)
    assert one(ledger, AlertKind.FROZEN).resolved_at is not None


def test_a_lost_lease_is_alerted_with_its_expiry(ledger: LedgerUnderTest) -> None:
    """Each time that it is lost, and not when a worker ends it."""
    for _ in range(2):
        ledger.leases.renew("host:1:lost", LENGTH_S)
        pass_time(ledger, LENGTH_S, REAPER.worker_id)
        assert ledger.leases.expire(REAPER.worker_id) == ["host:1:lost"]
    ledger.leases.renew("host:2:stopped", LEASE_S)
    ledger.leases.release("host:2:stopped")

    found = alerts(ledger)
    assert [(a.kind, a.subject) for a in found] == [(AlertKind.LEASE_LOST, "host:1:lost")] * 2
    assert (found[1].at - moment(found[1].detail["since"])).total_seconds() >= LENGTH_S
    look(ledger)
    assert not any(a.resolved_at for a in alerts(ledger))


def test_within_an_interval_one_look_is_enough(ledger: LedgerUnderTest) -> None:
    assert look(ledger, interval_s=15) == 0
    ledger.succeeded(posted_nano_usd=LIMIT // 2)
    assert look(ledger, interval_s=15) == 0

    ledger.age(15)
    assert look(ledger, interval_s=15) == 1


def test_every_kind_has_words_and_a_remedy(ledger: LedgerUnderTest) -> None:
    opened(ledger)
    ledger.running("runs", LIMIT // 2)
    ledger.operations.pause(PauseKey(org_id=ORG, is_freeze=True), by=BY)
    ledger.operations.test_alert("nina")
    look(ledger, AlertRules(dead_letters_per_hour=3, budget_percents=(1,)))

    kinds = {a.kind for a in alerts(ledger)}
    assert len(kinds) == len(alerts(ledger)) == 5
    assert all(words_of(a) and todo_of(a) for a in alerts(ledger))


def test_old_alerts_are_forgotten_unless_they_hold(ledger: LedgerUnderTest) -> None:
    ledger.succeeded(posted_nano_usd=LIMIT // 2)
    opened(ledger)
    look(ledger)
    ledger.age(FORGOTTEN_AFTER_S + 1)
    ledger.operations.test_alert("nina")

    assert ledger.alerts.forget(age_s=FORGOTTEN_AFTER_S, limit=10) == 1
    assert [a.kind for a in alerts(ledger)] == [AlertKind.BREAKER_OPEN, AlertKind.TEST]
