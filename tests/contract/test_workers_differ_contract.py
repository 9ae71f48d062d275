"""Workers that differ are alerted, once a rolling upgrade would be over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from callgate.domain.alert_rules import AlertRules
from callgate.domain.alert_words import todo_of, words_of
from callgate.domain.alerts import Alert, AlertKind
from callgate.domain.fingerprints import Fingerprint
from tests.contract.alert_steps import alerts, look
from tests.support.ledger_under_test import LEASE_S, LedgerUnderTest

OURS = Fingerprint("0.2.0", "0002", "settings", "catalogue")
SECTIONS = {"prices": "p1", "providers": "q1"}
RULES = AlertRules(workers_differ_s=30)
LONG_S = 10 * LEASE_S


def begins(
    ledger: LedgerUnderTest, worker_id: str, fingerprint: Fingerprint = OURS, **sections: str
) -> None:
    """A worker whose lease lasts longer than the test."""
    ledger.leases.renew(worker_id, LONG_S + 1_000)
    ledger.fingerprints.publish(worker_id, fingerprint, {**SECTIONS, **sections})


def found(ledger: LedgerUnderTest) -> list[Alert]:
    look(ledger, RULES)
    return alerts(ledger, AlertKind.WORKERS_DIFFER)


def test_workers_alike_raise_nothing(ledger: LedgerUnderTest) -> None:
    begins(ledger, "a")
    begins(ledger, "b")
    ledger.age(31)

    assert found(ledger) == []


def test_workers_that_differ_are_alerted_after_a_while(ledger: LedgerUnderTest) -> None:
    begins(ledger, "a")
    begins(ledger, "b", replace(OURS, catalogue="other"), prices="p2")
    begins(ledger, "c")
    assert found(ledger) == []

    ledger.age(31)
    (alert,) = found(ledger)
    assert (alert.org_id, alert.subject) == ("", "workers")
    assert alert.detail == {
        "differ": ["catalogue (prices)"], "workers": ["b"], "count": 1, "alive": 3,
    }  # fmt: skip
    assert words_of(alert) == "1 of 3 workers differs from the others in catalogue (prices): b."
    assert "CALLGATE_CATALOGUE" in todo_of(alert)


@pytest.mark.parametrize(
    ("part", "name"),
    [("version", "version"), ("schema_revision", "schema"), ("settings", "settings")],
)
def test_what_differs_is_named(ledger: LedgerUnderTest, part: str, name: str) -> None:
    begins(ledger, "a")
    begins(ledger, "b", replace(OURS, **{part: "other"}))
    ledger.age(31)

    (alert,) = found(ledger)
    assert alert.detail["differ"] == [name]


def test_a_rolling_upgrade_is_quiet(ledger: LedgerUnderTest) -> None:
    """The workers of before have been there for long, and the new ones have not."""
    begins(ledger, "old")
    ledger.age(31)
    begins(ledger, "new", replace(OURS, version="0.3.0"))

    assert found(ledger) == []


def test_the_alert_is_resolved_when_they_are_alike(ledger: LedgerUnderTest) -> None:
    begins(ledger, "a")
    begins(ledger, "b", replace(OURS, catalogue="other"))
    ledger.age(31)
    assert [a.resolved_at for a in found(ledger)] == [None]

    ledger.leases.release("b")
    assert [a.resolved_at is not None for a in found(ledger)] == [True]


def test_five_of_many_are_named(ledger: LedgerUnderTest) -> None:
    for n in range(8):
        begins(ledger, f"usual {n}")
    for n in range(7):
        begins(ledger, f"odd {n}", replace(OURS, settings="other"))
    ledger.age(31)

    (alert,) = found(ledger)
    assert alert.detail["workers"] == [f"odd {n}" for n in range(5)]
    assert words_of(alert).endswith("odd 4 and 2 more.")
