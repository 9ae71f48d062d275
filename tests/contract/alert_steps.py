"""Steps of tests about alerts."""

from __future__ import annotations

from datetime import datetime

from callgate.domain.alert_rules import AlertRules
from callgate.domain.alerts import (
    Alert,
    AlertDelivery,
    AlertKind,
    AlertLine,
    AlertOutcome,
    Channel,
    LookTerms,
)
from tests.support.ledger_under_test import LedgerUnderTest

RULES = AlertRules()
LOG_AND_WEBHOOK = (Channel.LOG, Channel.WEBHOOK)
DAY_S = 86_400.0


def look(ledger: LedgerUnderTest, rules: AlertRules = RULES, *, interval_s: float = 0.0) -> int:
    """Look for alerts now, with figures of now."""
    ledger.ledger_figures.read_figures(interval_s=0, orgs_max=5)
    return ledger.alerts.look(LookTerms(interval_s, rules))


def lines(ledger: LedgerUnderTest) -> list[AlertLine]:
    """All alerts, oldest first."""
    return ledger.operations.alerts(limit=100)[::-1]


def alerts(ledger: LedgerUnderTest, kind: AlertKind | None = None) -> list[Alert]:
    """The alerts of a kind, oldest first."""
    return [line.alert for line in lines(ledger) if kind in (None, line.alert.kind)]


def one(ledger: LedgerUnderTest, kind: AlertKind) -> Alert:
    """The only alert there is."""
    (found,) = alerts(ledger)
    assert found.kind is kind
    return found


def take(
    ledger: LedgerUnderTest, *channels: Channel, limit: int = 100, lease_s: float = 20.0
) -> list[AlertDelivery]:
    """Take messages, by default those to the webhook."""
    return ledger.alerts.take(channels or (Channel.WEBHOOK,), limit=limit, lease_s=lease_s)


def fail(ledger: LedgerUnderTest, delivery: AlertDelivery, *, again_s: float = 5.0) -> bool:
    """Say that a message was not accepted; return whether it is dead."""
    outcome = AlertOutcome(delivery.delivery_id, "HTTP 503", again_s)
    return bool(ledger.alerts.keep([outcome], dead_after_s=3 * DAY_S))


def deliver(ledger: LedgerUnderTest, delivery: AlertDelivery) -> None:
    """Say that a message was accepted."""
    assert ledger.alerts.keep([AlertOutcome(delivery.delivery_id)], dead_after_s=3 * DAY_S) == []


def moment(text: str) -> datetime:
    """A time in the detail of an alert."""
    return datetime.fromisoformat(text)
