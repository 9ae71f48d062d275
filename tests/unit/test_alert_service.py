"""Alerts are logged and sent, and a message waits longer after each failure."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from callgate.domain.alert_rules import AlertRules
from callgate.domain.alerts import again_s
from callgate.domain.errors import WebhookFailed
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.services.alerts import AlertService
from tests.support.ledger_under_test import LIMIT, ORG, LedgerUnderTest, open_memory
from worker.alerts import AlertLoop

FREEZE = PauseKey(org_id=ORG, is_freeze=True)
BY = By("nina", "unpaid")


@dataclass
class Webhook:
    """`WebhookPort` that keeps what it was sent, and fails as long as it has failures."""

    failures: list[str] = field(default_factory=list)
    sent: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    async def send(self, message_id: str, body: bytes) -> None:
        self.sent.append((message_id, json.loads(body)))
        if self.failures:
            raise WebhookFailed(self.failures.pop(0))

    async def aclose(self) -> None:
        """Do nothing."""


def a_loop(ledger: LedgerUnderTest, webhook: Webhook | None) -> AlertLoop:
    """The loop of a worker, over a ledger in memory."""
    service = AlertService(
        alerts=ledger.alerts,
        figures=ledger.ledger_figures,
        rules=AlertRules(),
        jitter=lambda: 0.0,
        interval_s=1.0,
        lease_s=20.0,
        orgs_max=5,
        has_webhook=webhook is not None,
    )
    return AlertLoop(service, webhook, 1.0)


def run(loop: AlertLoop) -> int:
    """Look and tell once; return how many messages were sent."""
    return asyncio.run(loop.run_once(look=True))


@pytest.mark.parametrize(
    ("tries", "wait_s"), [(1, 5), (2, 10), (5, 80), (11, 3_600), (10_000, 3_600)]
)
def test_each_failure_doubles_the_wait_up_to_an_hour(tries: int, wait_s: float) -> None:
    assert again_s(tries, 0.0) == wait_s
    assert again_s(tries, 1.0) == wait_s / 2


@pytest.mark.parametrize(
    ("asked_s", "wait_s"), [(None, 5), (1.0, 5), (60.0, 60), (1e9, 3_600), (float("inf"), 3_600)]
)
def test_a_receiver_may_ask_for_a_longer_wait_up_to_an_hour(
    asked_s: float | None, wait_s: float
) -> None:
    assert again_s(1, 0.0, asked_s) == wait_s


def test_an_alert_is_logged_with_what_to_do() -> None:
    ledger = open_memory()
    ledger.succeeded(posted_nano_usd=LIMIT // 2)
    loop = a_loop(ledger, None)
    with capture_logs() as lines:
        run(loop)
        run(loop)

    (line,) = lines
    assert (line["event"], line["log_level"], line["kind"]) == (
        "alert.raised",
        "warning",
        "budget_threshold",
    )
    assert line["message"].startswith(f"50 % of the budget {ORG}/org/day are used")
    assert "budgets set" in line["todo"]
    assert json.loads(line["detail"])["percent"] == 50


def test_a_resolved_state_is_logged_and_sent() -> None:
    ledger, webhook = open_memory(), Webhook()
    loop = a_loop(ledger, webhook)
    with capture_logs() as lines:
        ledger.operations.pause(FREEZE, by=BY)
        assert run(loop) == 1
        ledger.operations.resume(FREEZE, by=BY)
        ledger.age(2)
        assert run(loop) == 1

    assert [line["event"] for line in lines] == ["alert.raised", "alert.resolved"]
    (first, raised), (second, resolved) = webhook.sent
    assert first != second
    assert (raised["type"], resolved["type"]) == ("alert.raised", "alert.resolved")
    assert raised["data"]["resolved_at"] is None  # type: ignore[index]
    assert resolved["timestamp"] == resolved["data"]["resolved_at"]  # type: ignore[index]


def test_a_refused_message_is_sent_again_until_it_is_dead() -> None:
    ledger, webhook = open_memory(), Webhook(["HTTP 500", "ConnectError"])
    loop = a_loop(ledger, webhook)
    ledger.operations.test_alert("nina")
    with capture_logs() as lines:
        run(loop)
        ledger.age(4)
        assert run(loop) == 0
        ledger.age(3 * 86_400)
        assert run(loop) == 1
        ledger.age(86_400)
        assert run(loop) == 0

    told = [(line["event"], line["reason"]) for line in lines if line["event"] != "alert.raised"]
    assert told == [("alert.deferred", "HTTP 500"), ("alert.abandoned", "ConnectError")]
    assert len({message_id for message_id, _ in webhook.sent}) == 1
