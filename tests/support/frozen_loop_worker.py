"""A worker like `callgate worker`, with a provider whose adapter blocks the event loop: a bug of the worst kind."""

from __future__ import annotations

import sys
import time
from uuid import UUID

from celery import Celery

import worker.health
from callgate.domain.provider import Failure, ProviderReply
from callgate.domain.requests import LLMRequest
from callgate.domain.retry import DEADLINE_BEFORE_SEND
from config.settings import WorkerSettings, load_worker_settings
from worker.bootstrap import bootstrap
from worker.log_config import configure_logging
from worker.main import QUEUES, run_worker
from worker.runtime import Runtime

BLOCKED_S = 15.0
FROZEN_S = 8.0


class Blocking:
    """A provider adapter that sleeps on the event loop."""

    async def complete(
        self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float
    ) -> ProviderReply | Failure:
        """Block everything for a while."""
        time.sleep(BLOCKED_S)  # noqa: ASYNC251 - the bug
        return DEADLINE_BEFORE_SEND

    def credential(self, org_id: str) -> str:
        """Return no key."""
        return ""

    async def aclose(self) -> None:
        """Nothing to close."""


def compose(settings: WorkerSettings, app: Celery) -> Runtime:
    """Compose a worker with the blocking provider."""
    return bootstrap(settings, app, providers={"sim": Blocking()})


if __name__ == "__main__":
    worker.health.FROZEN_S = FROZEN_S
    configure_logging(as_json=False)
    sys.exit(run_worker(load_worker_settings(), QUEUES["all"], compose=compose))
