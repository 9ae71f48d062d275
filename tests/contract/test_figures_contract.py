"""The figures of the ledger for metrics: what they count, and that they are read once for all processes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from callgate.domain import metrics
from callgate.domain.breaker import Health
from callgate.domain.budgets import Window
from callgate.domain.fingerprints import Fingerprint
from callgate.domain.limits import MINUTE_S, Declaration
from callgate.domain.metric_ports import LedgerFigures
from callgate.domain.metrics import Metric
from callgate.domain.pauses import PauseKey
from tests.contract.flow_steps import BY, MODEL, WORKER, a_rule, declare, sent
from tests.support.ledger_under_test import (
    LIMIT,
    LINK,
    ORG,
    REAPER,
    LedgerUnderTest,
    a_failure,
    an_answer,
)

NANO = 1e-9


def read(ledger: LedgerUnderTest, *, orgs_max: int = 10, interval_s: float = 0.0) -> LedgerFigures:
    """The figures as they are now."""
    return ledger.ledger_figures.read_figures(interval_s=interval_s, orgs_max=orgs_max)


def value(found: LedgerFigures, metric: Metric, *labels: str) -> float | None:
    """One figure; None if it is not there."""
    values = [f.value for f in found.figures if (f.name, f.labels) == (metric.name, labels)]
    assert len(values) <= 1
    return values[0] if values else None


def series(found: LedgerFigures, metric: Metric) -> dict[tuple[str, ...], float]:
    """All figures of a metric by their labels."""
    return {f.labels: f.value for f in found.figures if f.name == metric.name}


def test_an_empty_ledger_has_every_figure_without_labels_of_its_rows(
    ledger: LedgerUnderTest,
) -> None:
    found = read(ledger)

    of_rows = {
        metrics.UNPOSTED,
        metrics.LIMIT_USED,
        metrics.BLOCKED_KEYS,
        metrics.OPEN_BREAKERS,
        metrics.READ_AT,
    }
    expected = {m.name for m in metrics.METRICS if m.is_of_ledger and m not in of_rows}
    assert {figure.name for figure in found.figures} == expected
    for figure in found.figures:
        assert len(figure.labels) == len(metrics.BY_NAME[figure.name].labels), figure


def test_open_calls_are_counted_by_state_and_reason(ledger: LedgerUnderTest) -> None:
    for n in range(3):
        ledger.queued(f"queued {n}")
    ledger.running("running")
    ledger.waiting("waiting", 60.0)
    ledger.succeeded("succeeded")
    ledger.dead("dead")
    ledger.age(20)

    found = read(ledger)

    assert value(found, metrics.CALLS, "queued", "") == 3
    assert value(found, metrics.CALLS, "running", "") == 1
    assert value(found, metrics.CALLS, "waiting", "retry") == 1
    assert sum(series(found, metrics.CALLS).values()) == 5
    assert value(found, metrics.QUEUE_AGE) == pytest.approx(20, abs=3)


def test_unposted_attempts_and_the_oldest_answer_are_seen(ledger: LedgerUnderTest) -> None:
    ledger.running("under way")
    ledger.answered("answered")
    ledger.age(7)
    ledger.answered("answered later")
    ledger.succeeded("posted")

    found = read(ledger)

    assert series(found, metrics.UNPOSTED) == {
        ("openai", MODEL, "dispatched"): 1,
        ("openai", MODEL, "answered"): 2,
    }
    assert value(found, metrics.SETTLE_LAG) == pytest.approx(7, abs=3)


def test_budgets_show_limit_held_and_spent(ledger: LedgerUnderTest) -> None:
    ledger.succeeded("spent", posted_nano_usd=70)
    ledger.running("held", hold_nano_usd=150)

    found = read(ledger)

    labels = (ORG, "org", "day")
    assert value(found, metrics.BUDGET_LIMIT, *labels) == pytest.approx(LIMIT * NANO)
    assert value(found, metrics.BUDGET_HELD, *labels) == pytest.approx(150 * NANO)
    assert value(found, metrics.BUDGET_SPENT, *labels) == pytest.approx(70 * NANO)
    assert value(found, metrics.DRIFT, "held") == 0


def test_the_largest_organisations_are_named_and_the_others_are_summed(
    ledger: LedgerUnderTest,
) -> None:
    for n, org_id in enumerate(("small", "large", "middle")):
        ledger.set_budget(1_000, org_id=org_id)
        ledger.succeeded(org_id, (10, 50, 30)[n], org_id=org_id)

    found = read(ledger, orgs_max=2)

    spent = series(found, metrics.BUDGET_SPENT)
    assert spent == {
        ("large", "org", "day"): pytest.approx(50 * NANO),
        ("middle", "org", "day"): pytest.approx(30 * NANO),
        ("other", "org", "day"): pytest.approx(10 * NANO),
    }
    limits = series(found, metrics.BUDGET_LIMIT)
    assert limits["other", "org", "day"] == pytest.approx((LIMIT + 1_000) * NANO)


def test_budgets_are_counted_by_how_much_is_used(ledger: LedgerUnderTest) -> None:
    for org_id, posted in (("half", 500), ("most", 800), ("all", 1_000)):
        ledger.set_budget(1_000, org_id=org_id)
        ref = ledger.claim(ledger.queued(org_id, org_id=org_id), posted)
        ledger.record(an_answer(ref))

    assert series(read(ledger), metrics.BUDGETS) == {
        ("0",): 1,
        ("50",): 1,
        ("80",): 1,
        ("100",): 1,
    }


def test_a_period_that_has_ended_is_not_shown(ledger: LedgerUnderTest) -> None:
    ledger.operations.set_budget(ORG, "org", Window.MONTH, 5_000, ledger.noon_zone)
    ledger.age(86_400)

    windows = {labels[2] for labels in series(read(ledger), metrics.BUDGET_LIMIT)}

    assert "day" not in windows


def test_unknown_bills_are_counted_with_their_money(ledger: LedgerUnderTest) -> None:
    ledger.lost("lost")
    ledger.succeeded("known")

    found = read(ledger)

    assert value(found, metrics.UNKNOWN_BILLS) == 1
    assert value(found, metrics.UNKNOWN_USD) == pytest.approx(100 * NANO)


def test_a_provider_limit_shows_which_part_of_it_is_used(ledger: LedgerUnderTest) -> None:
    """Three of a hundred requests per minute may be used at once."""
    declare(ledger, a_rule(100, window_s=MINUTE_S))
    labels = ("openai", MODEL, "provider", "requests", "60")
    sent(ledger, "first")
    before = value(read(ledger), metrics.LIMIT_USED, *labels)
    sent(ledger, "second")

    after = value(read(ledger), metrics.LIMIT_USED, *labels)

    assert before is not None
    assert after is not None
    assert 0 < before < 0.34 < after < 0.67


def test_a_key_that_was_refused_for_its_rate_is_blocked(ledger: LedgerUnderTest) -> None:
    ref = sent(ledger, "too fast")
    ledger.record(an_answer(ref))
    failed = a_failure(ref, health=Health.LIMITED, failure_code="rate_limited", blocked_for_s=60.0)
    ledger.settle(failed)

    found = read(ledger)

    assert series(found, metrics.BLOCKED_KEYS) == {("openai", MODEL): 1}
    assert series(found, metrics.OPEN_BREAKERS) == {}


def test_open_breakers_are_shown_with_their_reason(ledger: LedgerUnderTest) -> None:
    ledger.operations.set_breaker("openai", "by-hand", "", is_open=True, by=BY)
    ledger.set_budget(LIMIT, org_id="other")
    for n in range(3):
        org_id = (ORG, "other")[n % 2]
        ref = ledger.claim(ledger.queued(f"refused {n}", model="m", org_id=org_id), 0)
        ledger.record(an_answer(ref))
        ledger.settle(a_failure(ref, health=Health.FAILED, failure_code="server_error"))

    shown = series(read(ledger), metrics.OPEN_BREAKERS)

    assert shown["openai", "by-hand", "provider", "all", "operator"] == 1
    assert shown["openai", "m", "provider", "all", "server_error"] == 1


def test_pauses_leases_and_what_workers_differ_in_are_counted(ledger: LedgerUnderTest) -> None:
    ledger.operations.pause(PauseKey(provider="openai"), by=BY)
    ledger.operations.pause(PauseKey(org_id="acme", is_freeze=True), by=BY)
    ledger.leases.renew("gone", 1.0)
    ledger.age(5)
    ledger.leases.renew(WORKER, 60.0)
    ledger.leases.renew(REAPER.worker_id, 60.0)
    ledger.flow.publish(WORKER, Declaration(open_calls_max=7))
    ledger.flow.publish(REAPER.worker_id, Declaration(open_calls_max=8))
    for worker_id, catalogue in ((WORKER, "old"), (REAPER.worker_id, "new")):
        fingerprint = Fingerprint("0.2.0", "0002", "settings", catalogue)
        ledger.fingerprints.publish(worker_id, fingerprint)

    found = read(ledger)

    assert series(found, metrics.PAUSES) == {("pause",): 1, ("freeze",): 1}
    assert series(found, metrics.LEASES) == {("live",): 2, ("expired",): 1}
    assert series(found, metrics.WORKER_VARIANTS) == {
        ("catalogue",): 2,
        ("limits",): 2,
        ("settings",): 1,
        ("version",): 1,
        ("schema",): 1,
    }


def test_undelivered_links_are_seen(ledger: LedgerUnderTest) -> None:
    ledger.succeeded("with a link", link=LINK)
    ledger.age(60)

    found = read(ledger)

    assert value(found, metrics.UNDELIVERED) == 1
    assert value(found, metrics.LINKS_OVERDUE) == pytest.approx(50, abs=11)


def test_figures_are_read_again_only_after_the_interval(ledger: LedgerUnderTest) -> None:
    """Many processes ask, and one of them reads."""
    first = read(ledger, interval_s=15)
    ledger.queued("new")
    ledger.age(8)
    second = read(ledger, interval_s=15)
    ledger.age(8)
    third = read(ledger, interval_s=15)

    assert second.figures == first.figures
    assert second.age_s == pytest.approx(8, abs=3)
    assert value(third, metrics.CALLS, "queued", "") == 1
    assert third.age_s < 3
    assert third.read_at - second.read_at >= timedelta(seconds=8)


def test_figures_of_this_moment_are_those_that_would_be_stored(ledger: LedgerUnderTest) -> None:
    """And they change nothing that is stored."""
    stored = read(ledger, interval_s=3_600.0)
    ledger.queued()

    current = ledger.ledger_figures.current_figures(orgs_max=10)

    assert value(read(ledger, interval_s=3_600.0), metrics.CALLS, "queued", "") == 0
    assert read(ledger, interval_s=3_600.0).read_at == stored.read_at
    newest = read(ledger)
    untimed = {metrics.QUEUE_AGE.name, metrics.LINKS_OVERDUE.name, metrics.SETTLE_LAG.name}
    assert {f for f in current if f.name not in untimed} == {
        f for f in newest.figures if f.name not in untimed
    }
    assert value(newest, metrics.CALLS, "queued", "") == 1
