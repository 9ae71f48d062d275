"""One deployment per file, as in the acceptance tests, and workers with limited memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.conftest import deployment, provider, standing
from tests.support.deployment import Deployment, Process
from tests.support.openai_attempts import no_proxies

__all__ = ["deployment", "no_proxies", "provider", "standing", "worker"]

WORKER_DATA_MAX_BYTES = 1024 * 2**20
"""The limit of a worker's heap: about six times what a busy worker needs."""


@pytest.fixture
def worker(deployment: Deployment) -> Iterator[Callable[..., Process]]:
    """Starts workers with limited memory; `changes` are variables of their environment."""

    def start(**changes: str) -> Process:
        process = deployment.worker(**changes)
        limit = (WORKER_DATA_MAX_BYTES, WORKER_DATA_MAX_BYTES)
        resource.prlimit(process.pid, resource.RLIMIT_DATA, limit)
        return process

    yield start
    deployment.stop_workers()
