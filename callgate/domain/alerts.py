"""
Alerts: conditions that somebody should know of, raised once for all processes, and the messages about them.

An alert is a fact in the ledger. A *state* is resolved when its condition has gone; anything else only happens. Both
are told to the log and to a webhook, at least once each. See `docs/alerts.md`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from callgate.domain.alert_rules import AlertRules


class AlertKind(StrEnum):
    """What is alerted."""

    BUDGET_THRESHOLD = "budget_threshold"
    BREAKER_OPEN = "breaker_open"
    KEY_BLOCKED = "key_blocked"
    DEAD_LETTERS = "dead_letters"
    UNKNOWN_MONEY = "unknown_money"
    DRIFT = "drift"
    LEASE_LOST = "lease_lost"
    WORKERS_DIFFER = "workers_differ"
    QUEUE_AGE = "queue_age"
    FROZEN = "frozen"
    TEST = "test"


STATES = (
    AlertKind.BREAKER_OPEN,
    AlertKind.KEY_BLOCKED,
    AlertKind.DEAD_LETTERS,
    AlertKind.FROZEN,
    AlertKind.UNKNOWN_MONEY,
    AlertKind.DRIFT,
    AlertKind.QUEUE_AGE,
    AlertKind.WORKERS_DIFFER,
)
"""Kinds whose alerts are resolved."""
RAISED_AGAIN_S = 300.0
"""A condition that comes and goes is raised again at the earliest so long after it was resolved."""
FIGURES_AGE_MAX_S = 120.0
"""Older figures of the ledger raise and resolve nothing."""
WAITING_MAX = 1_000
"""Waiting calls that are read of each budget that is nearly used up."""
FORGOTTEN_AFTER_S = 90 * 86_400.0
"""Alerts are deleted after so long, those of states that still hold excepted."""
FIRST_WAIT_S = 5.0
WAIT_MAX_S = 3_600.0


class Channel(StrEnum):
    """Where messages go."""

    LOG = "log"
    WEBHOOK = "webhook"


class AlertEvent(StrEnum):
    """What a message says."""

    RAISED = "raised"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """One fact."""

    alert_id: int
    kind: AlertKind
    org_id: str
    """Empty: it concerns no single organisation."""
    subject: str
    detail: dict[str, Any]
    at: datetime
    resolved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AlertLine:
    """An alert as operators list it."""

    alert: Alert
    webhook: str
    """`dead`, `pending` or `delivered`; empty: there is no message to the webhook."""
    tries: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class AlertDelivery:
    """A message to send now."""

    delivery_id: UUID
    event: AlertEvent
    channel: Channel
    tries: int
    """Which try this is, from 1 on."""
    alert: Alert


@dataclass(frozen=True, slots=True)
class AlertOutcome:
    """How a try ended."""

    delivery_id: UUID
    failure: str | None = None
    again_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LookTerms:
    """When to look, and for what."""

    interval_s: float
    rules: AlertRules = field(default_factory=AlertRules)


class AlertsPort(Protocol):
    """The alerts of the ledger, as workers keep them; `LedgerUnavailable` as in `callgate.domain.ports`."""

    def look(self, terms: LookTerms) -> int:
        """
        Raise what is to be alerted, and resolve what has gone, unless somebody did so less than an interval ago.

        Returns:
            How many alerts were raised.
        """

    def take(
        self, channels: Sequence[Channel], *, limit: int, lease_s: float
    ) -> list[AlertDelivery]:
        """Take messages that are due. Nobody else takes them for `lease_s`; without an outcome they are due again."""

    def keep(self, outcomes: Sequence[AlertOutcome], *, dead_after_s: float) -> list[UUID]:
        """
        Store how tries ended.

        Returns:
            The messages that are dead now: they have failed for too long.
        """

    def forget(self, *, age_s: float, limit: int) -> int:
        """Delete old alerts, at most `limit`, except those of states that still hold."""


class WebhookPort(Protocol):
    """Sends a message to the operator's URL."""

    async def send(self, message_id: str, body: bytes) -> None:
        """
        Post one message, within a bounded time.

        Raises:
            WebhookFailed: It was not accepted, or that is not known.
        """

    async def aclose(self) -> None:
        """Close the connections."""


def again_s(tries: int, jitter: float, asked_s: float | None = None) -> float:
    """
    How long to wait after a failed try: 5 s, doubled each time up to an hour; `jitter` from 0 to 1 shortens it.

    It is at least as long as the receiver asked for, but never longer than an hour.
    """
    wait_s = min(WAIT_MAX_S, FIRST_WAIT_S * 2.0 ** min(tries - 1, 20))
    return max(wait_s * (1 - jitter / 2), min(asked_s or 0.0, WAIT_MAX_S))


def message_id(delivery: AlertDelivery) -> str:
    """The id of a message; a receiver that has seen it can ignore the message."""
    return f"msg_{delivery.delivery_id.hex}"


def body(delivery: AlertDelivery, words: str, remedy: str) -> bytes:
    """The body of a webhook message. A receiver must not depend on the order of messages: `data` has both times."""
    alert = delivery.alert
    is_resolved = delivery.event is AlertEvent.RESOLVED
    told_at = alert.resolved_at if is_resolved and alert.resolved_at else alert.at
    data = {
        "alert_id": alert.alert_id,
        "kind": alert.kind.value,
        "org_id": alert.org_id or None,
        "subject": alert.subject,
        "message": words,
        "todo": remedy,
        "at": alert.at.isoformat(),
        "resolved_at": alert.resolved_at.isoformat() if alert.resolved_at else None,
        "detail": alert.detail,
    }
    message = {
        "type": f"alert.{delivery.event.value}",
        "timestamp": told_at.isoformat(),
        "data": data,
    }
    return json.dumps(message, ensure_ascii=False).encode()
