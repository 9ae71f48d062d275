"""The alerts of one worker process: how they are composed, and the loop that keeps them. No error ends it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from callgate.adapters.postgres.alerts import PostgresAlerts
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.standard_webhook import StandardWebhook
from callgate.domain.alert_rules import AlertRules
from callgate.domain.alerts import AlertDelivery, AlertsPort, WebhookPort, message_id
from callgate.domain.errors import LedgerUnavailable, WebhookFailed
from callgate.domain.metric_ports import FiguresPort
from callgate.services.alerts import AlertService, body_of
from config.settings import WorkerOptions

log = structlog.get_logger(__name__)

PAUSE_S = 1.0
"""Between two queries for messages of one worker."""
LEASE_TIMEOUTS = 2
"""A worker has so many timeouts to send what it took, and to store what came of it."""


@dataclass(frozen=True, slots=True)
class AlertLoop:
    """Looks, logs and sends."""

    service: AlertService
    webhook: WebhookPort | None
    interval_s: float

    @classmethod
    def of(
        cls,
        options: WorkerOptions,
        rules: AlertRules,
        *,
        session: PostgresSession,
        figures: FiguresPort,
        jitter: Callable[[], float],
        alerts: AlertsPort | None = None,
    ) -> AlertLoop:
        """Compose; `alerts` replaces those of the session."""
        timeout_s = options.alert_timeout_s
        webhook = None
        if url := options.alert_webhook_url:
            webhook = StandardWebhook(
                url.get_secret_value(), options.alert_webhook_keys, timeout_s=timeout_s
            )
        service = AlertService(
            alerts=alerts or PostgresAlerts(session),
            figures=figures,
            rules=rules,
            jitter=jitter,
            interval_s=options.alert_interval_s,
            lease_s=LEASE_TIMEOUTS * timeout_s,
            orgs_max=options.metrics_orgs_max,
            has_webhook=webhook is not None,
        )
        return cls(service, webhook, options.alert_interval_s)

    async def run(self) -> None:
        """Keep alerts until this is cancelled."""
        look_at = 0.0
        try:
            while True:
                is_due = time.monotonic() >= look_at
                if is_due:
                    look_at = time.monotonic() + _jittered(self.interval_s)
                if not await self.run_once(look=is_due):
                    await asyncio.sleep(_jittered(PAUSE_S))
        finally:
            if self.webhook is not None:
                await self.webhook.aclose()

    async def run_once(self, *, look: bool) -> int:
        """Look if it is time, tell what is due; return how many messages were sent."""
        try:
            if look:
                await asyncio.to_thread(self.service.look)
            taken = await asyncio.to_thread(self.service.take)
            if taken and self.webhook is not None:
                failures = await asyncio.gather(*(_try(self.webhook, d) for d in taken))
                await asyncio.to_thread(self.service.keep, list(zip(taken, failures, strict=True)))
        except LedgerUnavailable as exc:
            log.warning("alerts.ledger_unavailable", reason=str(exc))
            return 0
        except Exception:
            # No call depends on alerts. What was not stored is due again.
            log.exception("alerts.loop_failed")
            return 0
        return len(taken)


async def _try(webhook: WebhookPort, delivery: AlertDelivery) -> WebhookFailed | None:
    """Send one message; return why it failed."""
    try:
        await webhook.send(message_id(delivery), body_of(delivery))
    except WebhookFailed as exc:
        return exc
    return None


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
