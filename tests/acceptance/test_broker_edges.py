"""Other users of callgate's queues: stock workers, foreign ones, and broker users with few rights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
from redis import Redis

from callgate.adapters.broker.app import CALL_QUEUE
from callgate.domain.errors import ConfigurationError
from config.settings import WorkerSettings
from tests.support.command_line import answer_of
from tests.support.deployment import CHECKOUT, Deployment, Process, until, worker_argv
from worker.app import composed_app

pytestmark = pytest.mark.long
PATIENCE_S = 60.0
SECURITY = CHECKOUT / "docs" / "security.md"
LEASES = "SELECT count(*) AS workers FROM worker_lease WHERE expires_at > now()"


@pytest.fixture
def broker(deployment: Deployment) -> Iterator[Redis]:
    """The broker's administrator."""
    with Redis.from_url(deployment.services.broker_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def user_url(deployment: Deployment, broker: Redis) -> Iterator[str]:
    """The broker's URL for a user with just the rights that the documentation lists."""
    text = SECURITY.read_text()
    (rights,) = re.findall(
        r"^ACL SETUSER callgate on >password (.*?)```", text, re.MULTILINE | re.DOTALL
    )
    broker.execute_command("ACL", "SETUSER", "callgate", "on", ">pass/word", *rights.split())
    broker.execute_command("ACL", "LOG", "RESET")
    parts = urlsplit(deployment.services.broker_url)
    yield f"redis://callgate:pass%2Fword@127.0.0.1:{parts.port}{parts.path}"
    broker.execute_command("ACL", "DELUSER", "callgate")


def doctor(deployment: Deployment, **changes: str) -> dict[str, str]:
    """The doctor's line for each check."""
    checks = answer_of(lambda: deployment.open_client(**changes), "doctor", codes=(0, 1))
    return {check["name"]: f"{check['status']} {check['sentence']}" for check in checks}


@pytest.mark.parametrize("app", ["tests.support.client_app"])
def test_a_stock_worker_does_not_start_on_our_app(deployment: Deployment, app: str) -> None:
    """It would lose every message. One line says what to start instead."""
    deployment.stop_workers()
    handle = deployment.client.submit(deployment.request(deployment.org()))

    stock = deployment.python("stock", ["-m", "celery", "-A", app, "worker", "-c", "1"])

    assert stock.wait(PATIENCE_S) == 1
    assert "`callgate worker`" in stock.output()
    assert "Traceback" not in stock.output()
    deployment.ensure_worker()
    assert handle.get(timeout=PATIENCE_S).text == "ok"


@pytest.fixture
def stranger(deployment: Deployment) -> Iterator[Process]:
    """A worker of another app on the call queue, which drops its messages; stopped after the test."""
    deployment.stop_workers()
    app = [
        "-m",
        "celery",
        "-A",
        "tests.support.foreign_worker",
        "worker",
        "-P",
        "solo",
        "-l",
        "INFO",
    ]
    process = deployment.python("stranger", [*app, "-Q", CALL_QUEUE, "-n", "stranger@host"])
    try:
        yield process.until_it_says("ready.")
    finally:
        process.kill()


def test_a_foreign_consumer_is_reported_and_its_losses_are_swept(
    deployment: Deployment, stranger: Process
) -> None:
    """By the doctor and in the log. The calls whose messages it takes end while it runs, a lone one too."""
    org = deployment.org()
    handles = deployment.client.submit_many([deployment.request(org) for _ in range(5)])
    stranger.until_it_says("unregistered task")

    worker = deployment.worker().until_it_says("foreign_consumer.found")
    told = doctor(deployment)["consumers"]

    assert "stranger@host" in worker.output()
    assert told.startswith("fail ")
    assert f"stranger@host ({CALL_QUEUE})" in told
    assert "callgate@" not in told
    assert [handle.get(timeout=PATIENCE_S).text for handle in handles] == ["ok"] * 5
    for _ in range(3):
        handle = deployment.client.submit(deployment.request(org))
        assert handle.get(timeout=PATIENCE_S).text == "ok"
    assert deployment.provider.counts().total == 8
    assert stranger.is_alive()
    deployment.stop_workers()


def test_the_listed_rights_are_enough(
    deployment: Deployment, broker: Redis, user_url: str, tmp_path: Path
) -> None:
    """The broker refuses no command of a client, a worker, a doctor, or for links."""
    from tests.support.pipeline import build_app

    deployment.stop_workers()
    worker = deployment.worker(CALLGATE_BROKER_URL=user_url)
    pipeline = build_app(user_url)
    with deployment.open_client(broker_url=user_url) as client:
        org = deployment.org()
        link = pipeline.tasks["pipeline.store"].s("document")
        handle = client.submit(deployment.request(org), link=link)
        assert handle.get(timeout=PATIENCE_S).text == "ok"
        assert client.budgets(org) == client.budgets(org)
        until(lambda: broker.llen("pipeline") == 1)
        assert client.celery_app.control.ping(timeout=5, limit=1)
    # A worker that was killed before counts as alive until its lease ends.
    until(lambda: deployment.rows(LEASES)[0].workers == 1)
    found = doctor(deployment, broker_url=user_url)

    refused = broker.execute_command("ACL", "LOG")
    assert not refused, refused
    assert worker.stop() == 0
    checks = {check: found[check] for check in ("broker", "rights", "consumers")}
    assert all(told.startswith("ok ") for told in checks.values()), checks
    broker.delete("pipeline")


def test_a_refused_command_is_named(deployment: Deployment, broker: Redis, user_url: str) -> None:
    """The worker does not start, with one line; the doctor names it if a client needs it."""
    broker.execute_command("ACL", "SETUSER", "callgate", "-blmpop")

    worker = deployment.start("refused", worker_argv(), CALLGATE_BROKER_URL=user_url)

    assert worker.wait(PATIENCE_S) == 2
    (line,) = worker.output().strip().splitlines()
    assert "may not run BLMPOP" in line
    assert "docs/security.md" in line
    assert "pass" not in line
    told = doctor(deployment, broker_url=user_url)["rights"]
    assert told.startswith("ok ")
    assert broker.exists(CALL_QUEUE) == 0


@pytest.mark.parametrize("command", ["lpush", "sadd"])
def test_a_refused_command_of_clients_is_named_by_worker_and_doctor(
    deployment: Deployment, broker: Redis, user_url: str, command: str
) -> None:
    """In the words of the worker process that the test above starts."""
    broker.execute_command("ACL", "SETUSER", "callgate", f"-{command}")
    settings = WorkerSettings(database_url="postgresql://", broker_url=user_url)

    with pytest.raises(ConfigurationError) as refused:
        composed_app(settings, lambda *_: Mock())
    told = doctor(deployment, broker_url=user_url)["rights"]

    assert told.startswith(f"fail the user of CALLGATE_BROKER_URL may not run {command.upper()}")
    assert f"may not run {command.upper()}" in str(refused.value)
    assert "docs/security.md" in str(refused.value)
    assert "pass" not in str(refused.value)
    assert broker.exists(CALL_QUEUE) == 0
