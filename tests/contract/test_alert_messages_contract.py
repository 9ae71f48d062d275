"""Messages about alerts: taken by one process at a time, until they are delivered or dead."""

from __future__ import annotations

from dataclasses import replace

from callgate.domain.alerts import AlertEvent, AlertKind, AlertOutcome, Channel
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from tests.contract.alert_steps import DAY_S, LOG_AND_WEBHOOK, deliver, fail, lines, look, take
from tests.support.ledger_under_test import ORG, LedgerUnderTest

BY = By("nina", "the receiver works again")
FREEZE = PauseKey(org_id=ORG, is_freeze=True)


def test_an_alert_has_one_message_for_each_channel(ledger: LedgerUnderTest) -> None:
    alert_id = ledger.operations.test_alert("nina")

    found = take(ledger, *LOG_AND_WEBHOOK)
    assert {d.channel for d in found} == set(LOG_AND_WEBHOOK)
    assert {(d.alert.alert_id, d.event, d.tries) for d in found} == {
        (alert_id, AlertEvent.RAISED, 1)
    }
    assert found[0].alert.detail == {"operator": "nina"}
    assert take(ledger, *LOG_AND_WEBHOOK) == []


def test_a_message_without_an_outcome_is_taken_again(ledger: LedgerUnderTest) -> None:
    """Its taker may have been killed after it was sent. It keeps its id."""
    ledger.operations.test_alert("nina")
    (first,) = take(ledger)
    ledger.age(21)

    (again,) = take(ledger)
    assert replace(again, alert=first.alert) == replace(first, tries=2)


def test_a_delivered_message_is_not_taken_again(ledger: LedgerUnderTest) -> None:
    ledger.operations.test_alert("nina")
    (message,) = take(ledger)
    assert [line.webhook for line in lines(ledger)] == ["pending"]
    deliver(ledger, message)
    ledger.age(DAY_S)

    assert take(ledger) == []
    assert [(line.webhook, line.tries, line.failure) for line in lines(ledger)] == [
        ("delivered", 1, None)
    ]


def test_a_failed_message_is_taken_again_when_it_is_due(ledger: LedgerUnderTest) -> None:
    ledger.operations.test_alert("nina")
    (message,) = take(ledger)
    assert not fail(ledger, message, again_s=40.0)
    assert [(line.webhook, line.failure) for line in lines(ledger)] == [("pending", "HTTP 503")]
    ledger.age(39)
    assert take(ledger) == []
    ledger.age(2)

    (again,) = take(ledger)
    assert (again.delivery_id, again.tries) == (message.delivery_id, 2)


def test_a_message_that_fails_for_days_is_dead(ledger: LedgerUnderTest) -> None:
    ledger.operations.test_alert("nina")
    (message,) = take(ledger)
    ledger.age(3 * DAY_S)
    (message,) = take(ledger)

    assert fail(ledger, message)
    assert [line.webhook for line in lines(ledger)] == ["dead"]
    ledger.age(DAY_S)
    assert take(ledger) == []


def test_a_failure_that_comes_late_does_not_undo_a_delivery(ledger: LedgerUnderTest) -> None:
    """Two processes may have sent the same message."""
    ledger.operations.test_alert("nina")
    (message,) = take(ledger)
    deliver(ledger, message)

    assert not fail(ledger, message)
    assert [line.webhook for line in lines(ledger)] == ["delivered"]


def test_a_resolved_state_is_told_too(ledger: LedgerUnderTest) -> None:
    ledger.operations.pause(FREEZE, by=BY)
    look(ledger)
    (raised,) = take(ledger)
    assert (raised.event, raised.alert.kind) == (AlertEvent.RAISED, AlertKind.FROZEN)
    ledger.operations.resume(FREEZE, by=BY)
    look(ledger)

    (resolved,) = take(ledger)
    assert resolved.event is AlertEvent.RESOLVED
    assert resolved.alert.resolved_at is not None
    assert resolved.delivery_id != raised.delivery_id


def test_without_a_webhook_only_the_log_is_told(ledger: LedgerUnderTest) -> None:
    ledger.operations.test_alert("nina")

    assert [d.channel for d in take(ledger, Channel.LOG)] == [Channel.LOG]
    assert [line.webhook for line in lines(ledger)] == [""]
    assert take(ledger) == []


def test_dead_messages_are_replayed_under_their_id(ledger: LedgerUnderTest) -> None:
    ids = [ledger.operations.test_alert(name) for name in ("nina", "otto")]
    messages = take(ledger)
    ledger.age(3 * DAY_S)
    for message in messages[:1]:
        assert fail(ledger, message)
    deliver(ledger, messages[1])

    assert ledger.operations.replay_alerts(None, limit=10, by=BY) == ids[:1]
    (again,) = take(ledger)
    assert (again.delivery_id, again.tries) == (messages[0].delivery_id, 1)
    assert not fail(ledger, again), "its days begin again"
    action = ledger.operations.actions(limit=1)[0]
    assert (action.action, action.subject, action.by) == ("alerts.replay", "1 alerts", BY)


def test_named_alerts_are_replayed_whatever_became_of_them(ledger: LedgerUnderTest) -> None:
    told, untold = (ledger.operations.test_alert(name) for name in ("nina", "otto"))
    (message, _) = take(ledger, Channel.LOG)
    ledger.alerts.keep([AlertOutcome(message.delivery_id)], dead_after_s=DAY_S)

    assert ledger.operations.replay_alerts([told, untold, 987], limit=10, by=BY) == [told, untold]
    assert [d.alert.alert_id for d in take(ledger)] == [told, untold]
    assert ledger.operations.replay_alerts([987], limit=10, by=BY) == []


def test_alerts_are_listed_by_organisation_and_id(ledger: LedgerUnderTest) -> None:
    test_id = ledger.operations.test_alert("nina")
    ledger.operations.pause(FREEZE, by=BY)
    look(ledger)

    assert [line.alert.org_id for line in ledger.operations.alerts(ORG, limit=10)] == [ORG]
    named = ledger.operations.alerts(ids=[test_id], limit=10)
    assert [line.alert.alert_id for line in named] == [test_id]
    assert len(ledger.operations.alerts(limit=1)) == 1
    holding = ledger.operations.alerts(only_holding=True, limit=10)
    assert [line.alert.kind for line in holding] == [AlertKind.FROZEN]
