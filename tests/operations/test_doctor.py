"""The doctor beside real workers: all well, none there, one frozen, and two with different catalogues."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.command_line import answer_of
from tests.support.deployment import Deployment, until

PATIENCE_S = 60.0


def doctor(deployment: Deployment, *names: str) -> list[str]:
    """Status and sentence of these findings."""
    found = {f["name"]: f for f in answer_of(deployment.open_client, "doctor", codes=(0, 1))}
    assert all(bool(f["todo"]) == (f["status"] != "ok") for f in found.values())
    return [f"{found[name]['status']} {found[name]['sentence']}" for name in names]


def test_a_worker_that_runs_is_seen_with_its_queues(deployment: Deployment) -> None:
    deployment.stop_workers()
    deployment.worker()
    deployment.client.submit(deployment.request(deployment.org())).get(timeout=PATIENCE_S)
    # Workers that other tests have killed are alive until their leases run out, and silent for an hour after that.
    until(lambda: " 1 alive" in doctor(deployment, "workers")[0], PATIENCE_S)

    workers, consumers, backlog = doctor(deployment, "workers", "consumers", "backlog")

    assert workers.partition(";")[0] in (
        "ok 1 alive, all of one version, settings and catalogue",
        "warn 1 alive",
    )
    assert "by queue: callgate.call 1, callgate.call.express 1, callgate.log 1" in consumers
    assert backlog.startswith("ok 0 calls are queued")


def test_calls_that_wait_for_a_stopped_worker_fail_the_doctor(deployment: Deployment) -> None:
    deployment.stop_workers()
    handle = deployment.client.submit(deployment.request(deployment.org()))
    until(lambda: "none is alive" in doctor(deployment, "workers")[0], PATIENCE_S)

    workers, consumers = doctor(deployment, "workers", "consumers")

    assert workers.startswith("fail none is alive, and 1 calls wait for one")
    assert consumers == "warn no Celery worker answered within 1 s"
    deployment.ensure_worker()
    assert handle.get(timeout=PATIENCE_S).text == "ok"


def test_a_frozen_worker_is_named(deployment: Deployment) -> None:
    deployment.stop_workers()
    worker = deployment.worker()
    until(lambda: " 1 alive" in doctor(deployment, "workers")[0], PATIENCE_S)
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        handle = deployment.client.submit(deployment.request(deployment.org()))
        until(lambda: "none is alive" in doctor(deployment, "workers")[0], PATIENCE_S)
        (workers,) = doctor(deployment, "workers")
    finally:
        os.kill(worker.pid, signal.SIGCONT)

    assert workers.startswith("fail none is alive, and 1 calls wait for one; silent")
    assert f":{worker.pid}:" in workers
    assert handle.get(timeout=PATIENCE_S).text == "ok"


def test_two_workers_with_different_catalogues_are_named(
    deployment: Deployment, tmp_path: Path
) -> None:
    catalogue = Path(deployment.environ["CALLGATE_CATALOGUE"]).read_text()
    (other := tmp_path / "other.toml").write_text(
        catalogue.replace("deadline_s = 15", "deadline_s = 16")
    )
    deployment.stop_workers()
    first = deployment.worker()
    second = deployment.worker(CALLGATE_CATALOGUE=str(other))
    # Those that other tests have killed are alive until their leases run out.
    until(lambda: doctor(deployment, "workers")[0].startswith("warn 2 alive"), PATIENCE_S)

    (workers,) = doctor(deployment, "workers")

    assert "catalogue of " in workers
    assert f":{first.pid}:" in workers
    assert f":{second.pid}:" in workers
    deployment.stop_workers()
