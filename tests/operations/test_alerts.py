"""Real workers tell a real receiver what they should know: once for all of them, and whichever of them is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callgate.domain.alerts import AlertLine
from tests.support.deployment import Deployment, Process, until, until_equal
from tests.support.webhook_receiver import HOLD, SECRET, Receiver, a_receiver

PATIENCE_S = 60.0
INTERVAL_S = 1
TIMEOUT_S = 2
"""For a message. A worker that is killed with one in hand keeps it for twice as long."""


@pytest.fixture
def receiver(deployment: Deployment) -> Iterator[Receiver]:
    """A receiver of a deployment without workers, alerts, and budgets that would be alerted again."""
    deployment.stop_workers()
    deployment.rows("TRUNCATE alert, alert_delivery, alert_watch, worker_lease, breaker, budget")
    deployment.close_breaker()
    with a_receiver() as receiver:
        yield receiver
        deployment.stop_workers()


def settings(receiver: Receiver) -> dict[str, str]:
    """What a worker needs to tell it soon."""
    return {
        "CALLGATE_WORKER__ALERT_WEBHOOK_URL": receiver.url,
        "CALLGATE_WORKER__ALERT_WEBHOOK_SECRET": SECRET,
        "CALLGATE_WORKER__ALERT_TIMEOUT_S": str(TIMEOUT_S),
        "CALLGATE_WORKER__ALERT_INTERVAL_S": str(INTERVAL_S),
    }


def line(deployment: Deployment, alert_id: int) -> AlertLine:
    """An alert as operators see it."""
    (found,) = deployment.client.operations.alerts(ids=[alert_id], limit=1)
    return found


def alerts_of(deployment: Deployment, org: str) -> list[AlertLine]:
    """The alerts of an organisation, oldest first."""
    return deployment.client.operations.alerts(org, limit=100)[::-1]


def until_somebody_looks(deployment: Deployment, times: int) -> None:
    """Wait until workers have looked so many times more."""
    sql = "SELECT coalesce(max(looked_at)::text, '') FROM alert_watch"
    for _ in range(times):
        ((before,),) = deployment.rows(sql)
        until(lambda before=before: deployment.rows(sql) != [(before,)], PATIENCE_S)  # type: ignore[misc]


def until_delivered(deployment: Deployment, alert_id: int) -> AlertLine:
    """Wait until the webhook has accepted an alert."""
    until_equal("delivered", lambda: line(deployment, alert_id).webhook, PATIENCE_S)
    return line(deployment, alert_id)


def test_an_alert_is_sent_until_the_receiver_accepts_it(
    deployment: Deployment, receiver: Receiver
) -> None:
    """It fails, it redirects, the worker is killed between send and mark, and then it works."""
    # Budgets of tests before this one may be alerted too.
    receiver.script, receiver.scripted_kind = [503, 307, HOLD], "test"
    first = deployment.worker(**settings(receiver))
    alert_id = deployment.client.operations.test_alert("nina")

    until_equal(3, lambda: len(receiver.of(alert_id)), PATIENCE_S)
    first.kill()
    assert line(deployment, alert_id).webhook == "pending"
    second = deployment.worker(**settings(receiver))
    told = until_delivered(deployment, alert_id)

    messages = receiver.of(alert_id)
    assert len(messages) == told.tries == 4
    assert all(message.is_genuine() for message in messages)
    assert len({message.message_id for message in messages}) == 1
    assert {message.path for message in messages} == {"/alerts?token=in-the-url"}
    moments = [int(message.headers["webhook-timestamp"]) for message in messages]
    assert moments == sorted(moments)
    assert moments[0] < moments[-1]
    assert messages[0].data["message"] == "This is a test by nina."
    assert f"alert_id={alert_id}" in first.output()
    assert_no_secrets(deployment, first, second)


def assert_no_secrets(deployment: Deployment, *workers: Process) -> None:
    """Neither the key nor the URL is in logs or rows."""
    rows = deployment.rows(
        "SELECT to_json(a)::text || to_json(d)::text FROM alert a, alert_delivery d"
    )
    seen = "".join(worker.output() for worker in workers) + "".join(row for (row,) in rows)
    assert [word for word in (SECRET, SECRET[6:], "in-the-url") if word in seen] == []


def test_three_workers_alert_each_threshold_of_a_period_once(
    deployment: Deployment, receiver: Receiver
) -> None:
    workers = deployment.have_workers(3, **settings(receiver))
    org = deployment.org()
    deployment.client.submit(deployment.request(org)).get(timeout=PATIENCE_S)
    (attempt,) = deployment.attempts(org)
    cost = attempt.posted_nano_usd
    for percent in (50, 80, 100):
        # In the period that runs, so many percent are used from now on.
        deployment.limit(org, cost * 100 // percent)
        until(lambda p=percent: p in percents(alerts_of(deployment, org)), PATIENCE_S)  # type: ignore[misc]
    until_somebody_looks(deployment, 3)

    lines = alerts_of(deployment, org)
    assert percents(lines) == [50, 80, 100]
    for found in lines:
        alert_id = found.alert.alert_id
        until_delivered(deployment, alert_id)
        (message,) = receiver.of(alert_id)
        assert message.is_genuine()
        logged = [w for w in workers if "alert.raised" in w.output() and alert_id in raised(w)]
        assert len(logged) == 1


def percents(lines: list[AlertLine]) -> list[int]:
    """The thresholds of budgets that were alerted."""
    return [found.alert.detail["percent"] for found in lines]


def raised(worker: Process) -> list[int]:
    """The alerts that a worker has logged."""
    return [
        int(text.split("alert_id=")[1].split()[0])
        for text in worker.output().splitlines()
        if "alert.raised" in text
    ]


def test_a_killed_worker_is_alerted_by_another(deployment: Deployment, receiver: Receiver) -> None:
    lease = {"CALLGATE_WORKER__PROCESS_LEASE_S": "2"}
    killed = deployment.worker(**settings(receiver), **lease)
    deployment.worker(**settings(receiver), **lease)
    killed.kill()

    def told() -> list[str]:
        return [
            m.data["subject"] for m in list(receiver.received) if m.data["kind"] == "lease_lost"
        ]

    until(told, PATIENCE_S)
    assert [f":{killed.pid}:" in subject for subject in told()] == [True]
