"""The limit that the tests of this folder rely on."""

from __future__ import annotations

import resource
from collections.abc import Callable

from tests.security.conftest import WORKER_DATA_MAX_BYTES
from tests.support.deployment import Deployment, Process


def test_a_worker_does_its_work_within_its_memory(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """A hundred calls end, and the limit is in force."""
    process = worker()
    org = deployment.org()

    handles = deployment.client.submit_many([deployment.request(org) for _ in range(100)])

    assert len(list(deployment.client.as_completed(handles, timeout=60))) == 100
    soft, _ = resource.prlimit(process.pid, resource.RLIMIT_DATA)
    assert soft == WORKER_DATA_MAX_BYTES
    assert process.is_alive()
