"""A process says whether it lives and whether it can work, and why not: real processes, real outages."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, until, worker_argv
from tests.support.frozen_loop_worker import BLOCKED_S
from tests.support.health import PATIENCE_S, Asked, an_asked_worker
from tests.support.valkey import Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A broker of its own, which a test may stop."""
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def asked(deployment: Deployment, valkey: Valkey) -> Iterator[Asked]:
    """A worker that can work."""
    worker = an_asked_worker(deployment, worker_argv(), CALLGATE_BROKER_URL=valkey.url)
    worker.until_ready()
    yield worker
    worker.process.kill()


def needs_key(deployment: Deployment) -> str:
    """The path of a catalogue whose provider needs a key."""
    text = Path(deployment.environ["CALLGATE_CATALOGUE"]).read_text()
    file = deployment.folder / "needs-key.toml"
    file.write_text(text.replace("needs_key = false", "needs_key = true"))
    return str(file)


def test_without_its_broker_a_worker_lives_and_is_not_ready(asked: Asked, valkey: Valkey) -> None:
    """The broker is frozen, which is worse than gone: connections stay open."""
    assert valkey._process is not None
    valkey._process.send(signal.SIGSTOP)
    asked.until_it_lacks("broker")
    live, _ = asked.ask("/live")
    valkey._process.send(signal.SIGCONT)
    asked.until_ready()

    assert live == 200
    until(lambda: "readiness.regained" in asked.process.output(), PATIENCE_S)
    assert asked.process.output().count("readiness.lost") == 1


def test_without_its_ledger_a_worker_lives_and_is_not_ready(
    asked: Asked, deployment: Deployment
) -> None:
    deployment.services.postgres.suspend()
    try:
        asked.until_it_lacks("ledger", "lease")
        live, _ = asked.ask("/live")
    finally:
        deployment.services.postgres.resume()
    asked.until_ready()

    assert live == 200


def test_a_worker_without_any_key_is_not_ready_until_it_has_one(
    deployment: Deployment, valkey: Valkey
) -> None:
    """The folder may be mounted later than the worker starts; no restart is needed."""
    folder = deployment.folder / "keys"
    changes = {
        "CALLGATE_BROKER_URL": valkey.url,
        "CALLGATE_CATALOGUE": needs_key(deployment),
        "CALLGATE_WORKER__CREDENTIALS_DIR": str(folder),
    }
    worker = an_asked_worker(deployment, worker_argv(), **changes)
    until(lambda: worker.faults() == {"credentials"}, PATIENCE_S, worker.process.output)
    missing = worker.reason("credentials")
    folder.mkdir()
    until(lambda: "empty" in worker.reason("credentials"), PATIENCE_S)
    (folder / "sim").write_text("a-key\n")
    worker.until_ready()
    worker.process.kill()

    assert "the secrets folder cannot be read (No such file or directory)" in missing


def test_the_key_of_one_organisation_is_enough_to_work(
    deployment: Deployment, valkey: Valkey
) -> None:
    folder = deployment.folder / "keys-of-acme"
    folder.mkdir()
    (folder / "sim.acme").write_text("a-key\n")
    worker = an_asked_worker(
        deployment,
        worker_argv(),
        CALLGATE_BROKER_URL=valkey.url,
        CALLGATE_CATALOGUE=needs_key(deployment),
        CALLGATE_WORKER__CREDENTIALS_DIR=str(folder),
    )

    worker.until_ready()
    worker.process.kill()


def test_a_log_worker_needs_no_key(deployment: Deployment, valkey: Valkey) -> None:
    worker = an_asked_worker(
        deployment,
        [*worker_argv(), "--queues", "log"],
        CALLGATE_BROKER_URL=valkey.url,
        CALLGATE_CATALOGUE=needs_key(deployment),
    )

    worker.until_ready()
    worker.process.kill()


def test_a_worker_whose_event_loop_is_frozen_is_not_live(
    deployment: Deployment, valkey: Valkey
) -> None:
    """Threads go on, the lease is renewed, and no call ends: only the loop's own beat shows it."""
    argv = [sys.executable, "-m", "tests.support.frozen_loop_worker"]
    worker = an_asked_worker(deployment, argv, CALLGATE_BROKER_URL=valkey.url)
    worker.until_ready()
    client = deployment.open_client(broker_url=valkey.url)
    handle = client.submit(deployment.request(deployment.org()))

    worker.until_it_lacks("event_loop")
    assert worker.faults() == {"event_loop"}
    until(lambda: worker.ask("/live")[0] == 503, PATIENCE_S, worker.process.output)
    until(lambda: worker.ask("/live")[0] == 200, BLOCKED_S + PATIENCE_S, worker.process.output)
    worker.process.kill()
    client.cancel(handle.task_id, "the test is over")
    client.close()
    deployment.end_open_calls()


def test_a_worker_that_stops_is_not_ready_while_its_calls_end(asked: Asked) -> None:
    asked.process.send(signal.SIGTERM)

    until(
        lambda: asked.faults() & {"shutdown", "intake", "no answer"} != set(),
        PATIENCE_S,
        asked.process.output,
    )
