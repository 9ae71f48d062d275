"""The memory limit of the workers in this folder's tests."""

from __future__ import annotations

import resource
from collections.abc import Callable

from tests.security.conftest import WORKER_DATA_MAX_BYTES
from tests.support.deployment import Deployment, Process


def test_a_worker_runs_within_the_memory_limit(
    deployment: Deployment, worker: Callable[..., Process]
) -> None:
    """A hundred calls end with the limit in force."""
    process = worker()
    org = deployment.org()

    handles = deployment.client.submit_many([deployment.request(org) for _ in range(100)])

    assert len(list(deployment.client.as_completed(handles, timeout=60))) == 100
    soft, _ = resource.prlimit(process.pid, resource.RLIMIT_DATA)
    assert soft == WORKER_DATA_MAX_BYTES
    assert process.is_alive()
