"""
Look for what is to be alerted, and tell the log and the webhook, at least once each.

Every worker runs this on behalf of all, and none is special: the ledger raises an alert once, and hands each message to
one worker at a time. A message whose worker is killed before it has stored the outcome is sent again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from callgate.domain.alert_rules import AlertRules
from callgate.domain.alert_words import todo_of, words_of
from callgate.domain.alerts import (
    FIGURES_AGE_MAX_S,
    FORGOTTEN_AFTER_S,
    AlertDelivery,
    AlertEvent,
    AlertOutcome,
    AlertsPort,
    Channel,
    LookTerms,
    again_s,
    body,
)
from callgate.domain.catalogue import DAY_S
from callgate.domain.errors import WebhookFailed
from callgate.domain.metric_ports import FiguresPort
from callgate.event_log import event_log

log = event_log(__name__)

MESSAGES_MAX = 10
"""Messages that are taken, and sent, at once."""
FORGOTTEN_MAX = 1_000


class AlertService:
    """One per worker; one thread at a time runs it."""

    def __init__(
        self,
        *,
        alerts: AlertsPort,
        figures: FiguresPort,
        rules: AlertRules,
        jitter: Callable[[], float],
        interval_s: float,
        lease_s: float,
        orgs_max: int,
        has_webhook: bool,
    ) -> None:
        """
        Compose.

        Args:
            interval_s: Between two looks of all workers together.
            lease_s: How long the worker has to send what it has taken.
            orgs_max: See `FiguresPort.read_figures`; the same as for metrics, because the figures are shared.
        """
        self._alerts = alerts
        self._figures = figures
        self._terms = LookTerms(interval_s, rules)
        self._jitter = jitter
        self._lease_s = lease_s
        self._orgs_max = orgs_max
        self._channels = (Channel.LOG, Channel.WEBHOOK) if has_webhook else (Channel.LOG,)

    def look(self) -> None:
        """
        Raise and resolve alerts, if no worker did so lately, and delete old ones.

        Raises:
            LedgerUnavailable
        """
        figures_s = min(self._terms.interval_s, FIGURES_AGE_MAX_S / 2)
        self._figures.read_figures(interval_s=figures_s, orgs_max=self._orgs_max)
        self._alerts.look(self._terms)
        self._alerts.forget(age_s=FORGOTTEN_AFTER_S, limit=FORGOTTEN_MAX)

    def take(self) -> list[AlertDelivery]:
        """
        Log what is to be logged, and return what is to be sent.

        Raises:
            LedgerUnavailable: What was logged may be logged again.
        """
        taken = self._alerts.take(self._channels, limit=MESSAGES_MAX, lease_s=self._lease_s)
        logged = [delivery for delivery in taken if delivery.channel is Channel.LOG]
        for delivery in logged:
            _log(delivery)
        if logged:
            self._keep([AlertOutcome(delivery.delivery_id) for delivery in logged])
        return [delivery for delivery in taken if delivery.channel is Channel.WEBHOOK]

    def keep(self, tried: Sequence[tuple[AlertDelivery, WebhookFailed | None]]) -> None:
        """
        Store how tries to send ended; a failure says why.

        Raises:
            LedgerUnavailable: The messages are sent again.
        """
        dead = self._keep([self._outcome(delivery, failure) for delivery, failure in tried])
        for delivery, failure in tried:
            alert, why = delivery.alert, failure and str(failure)
            if delivery.delivery_id in dead:
                log.error(
                    "alert.abandoned", alert_id=alert.alert_id, kind=alert.kind.value, reason=why
                )
            elif why:
                log.warning(
                    "alert.deferred", alert_id=alert.alert_id, kind=alert.kind.value, reason=why
                )

    def _outcome(self, delivery: AlertDelivery, failure: WebhookFailed | None) -> AlertOutcome:
        if failure is None:
            return AlertOutcome(delivery.delivery_id)
        wait_s = again_s(delivery.tries, self._jitter(), failure.retry_after_s)
        return AlertOutcome(delivery.delivery_id, str(failure), wait_s)

    def _keep(self, outcomes: Sequence[AlertOutcome]) -> set[object]:
        dead_after_s = self._terms.rules.dead_after_days * DAY_S
        return set(self._alerts.keep(outcomes, dead_after_s=dead_after_s))


def body_of(delivery: AlertDelivery) -> bytes:
    """The body of a webhook message."""
    return body(delivery, words_of(delivery.alert), todo_of(delivery.alert))


def _log(delivery: AlertDelivery) -> None:
    alert = delivery.alert
    if delivery.event is AlertEvent.RESOLVED:
        log.info(
            "alert.resolved",
            alert_id=alert.alert_id,
            kind=alert.kind.value,
            org_id=alert.org_id,
            subject=alert.subject,
        )
        return
    log.warning(
        "alert.raised",
        alert_id=alert.alert_id,
        kind=alert.kind.value,
        org_id=alert.org_id,
        subject=alert.subject,
        message=words_of(alert),
        detail=json.dumps(alert.detail),
        todo=todo_of(alert),
    )
