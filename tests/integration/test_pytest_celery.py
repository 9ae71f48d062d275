"""callgate under pytest-celery: a broker node and a worker node, killed and restarted by its own means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_celery import (
    CeleryBrokerCluster,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBroker,
)

from callgate import Client
from devkit.servers.embedded import DevServers
from devkit.simulator.simulator import Kind, Rule, Simulator, Step
from tests.support.deployment import Deployment, until
from tests.support.process_nodes import ValkeyNode, WorkerNode
from tests.support.short_leases import SHORT_LEASE

pytestmark = pytest.mark.long
PATIENCE_S = 40.0


@pytest.fixture
def deployment(services: DevServers, tmp_path: Path) -> Iterator[Deployment]:
    """A database and a provider; its ledger must pass the audit in the end."""
    with Simulator() as provider, Deployment(services, provider, tmp_path) as deployment:
        yield deployment
        deployment.assert_audit_is_clean()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisTestBroker]:
    """This test's own broker."""
    node = RedisTestBroker(ValkeyNode(tmp_path))
    yield node
    node.teardown()


@pytest.fixture
def client(deployment: Deployment, broker: RedisTestBroker) -> Iterator[Client]:
    """A client on this test's broker."""
    with deployment.open_client(broker_url=broker.container.url) as client:
        yield client


@pytest.fixture
def setup(
    deployment: Deployment, broker: RedisTestBroker, client: Client, tmp_path: Path
) -> Iterator[CeleryTestSetup]:
    """Both nodes, ready: the worker answers a ping."""
    assert broker.ready()
    environ = {
        **deployment.environ,
        **SHORT_LEASE,
        "CALLGATE_BROKER_URL": broker.container.url,
    }
    worker = CeleryTestWorker(WorkerNode(tmp_path, environ), None)
    setup = CeleryTestSetup(
        CeleryWorkerCluster(worker), CeleryBrokerCluster(broker), None, client.celery_app
    )
    assert setup.ready(control=True)
    yield setup
    worker.teardown()


def ask(deployment: Deployment, client: Client) -> str:
    """Make one call and wait for its answer."""
    request = deployment.request(deployment.org())
    return client.submit(request).get(timeout=PATIENCE_S).text


def test_a_killed_worker_is_restarted(
    setup: CeleryTestSetup, deployment: Deployment, client: Client
) -> None:
    """Killed during a call and started again, it answers the call in a second attempt."""
    deployment.provider.script([Rule(reply=[Step(kind=Kind.HANG), Step(text="after all")])])
    request = deployment.request(deployment.org(), call_type="brief")
    handle = client.submit(request)
    until(lambda: deployment.provider.counts().in_flight == 1)

    setup.worker.kill()
    assert setup.worker.container.status == "exited"
    setup.worker.restart()

    result = handle.get(timeout=PATIENCE_S)
    assert (result.text, result.attempts) == ("after all", 2)


def test_a_worker_answers_survives_its_broker_and_stops(
    setup: CeleryTestSetup, deployment: Deployment, client: Client
) -> None:
    """The same worker answers a ping, runs what was submitted while its broker was away, and ends with SIGTERM."""
    (answer,) = client.celery_app.control.ping(timeout=5, limit=1)
    ((name, pong),) = answer.items()
    assert name.startswith("node@")
    assert pong == {"ok": "pong"}

    assert ask(deployment, client) == "ok"
    setup.broker.kill()
    handle = client.submit(deployment.request(deployment.org()))
    setup.broker.restart()
    assert handle.get(timeout=PATIENCE_S).text == "ok"
    assert ask(deployment, client) == "ok"
    assert setup.worker.container.status == "running"

    setup.worker.kill(signal="SIGTERM")
    setup.worker.assert_log_exists("Warm shutdown")
    assert setup.worker.container.status == "exited"
