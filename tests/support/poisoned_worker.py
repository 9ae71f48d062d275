"""
A worker like `callgate worker`, with a provider and a tokenizer that kill their process at certain texts.

    python -m tests.support.poisoned_worker            the worker
    python -m tests.support.poisoned_worker alone      its child process for quarantined calls
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from functools import partial
from uuid import UUID

from celery import Celery

import worker.bootstrap
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.ports import LLMProviderPort
from callgate.domain.provider import Failure, ProviderReply, TokenBound
from callgate.domain.requests import LLMRequest
from config.settings import WorkerSettings, load_worker_settings
from worker.bootstrap import bootstrap
from worker.isolated import serve
from worker.log_config import configure_logging
from worker.main import QUEUES, run_worker
from worker.provider_adapters import providers_of
from worker.runtime import Runtime

POISON = "this text kills the process that sends it"
UNCOUNTABLE = "this text kills the process that counts its tokens"
ARGV = (sys.executable, "-m", "tests.support.poisoned_worker")
ALONE = "alone"


class Deadly:
    """A provider adapter with a fatal bug."""

    def __init__(self, provider: LLMProviderPort) -> None:
        self._provider = provider

    async def complete(
        self, request: LLMRequest, *, attempt_id: UUID, timeout_s: float
    ) -> ProviderReply | Failure:
        """Kill the process like the out-of-memory killer, or forward the request."""
        _die_if(POISON, request)
        return await self._provider.complete(request, attempt_id=attempt_id, timeout_s=timeout_s)

    def credential(self, org_id: str) -> str:
        """Return no key."""
        return ""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._provider.aclose()


class DeadlyEstimator(TokenEstimator):
    """A tokenizer with a fatal bug, before the call is claimed."""

    def counting(self, request: LLMRequest, stop_above: int) -> Generator[None, None, TokenBound]:
        """Kill the process, or count."""
        _die_if(UNCOUNTABLE, request)
        return super().counting(request, stop_above)


def _die_if(text: str, request: LLMRequest) -> None:
    if any(text in message.content for message in request.messages):
        os.kill(os.getpid(), signal.SIGKILL)


def compose(settings: WorkerSettings, app: Celery, *, is_alone: bool) -> Runtime:
    """Compose a worker with the deadly providers."""
    real = providers_of(settings, load_catalogue(settings.catalogue))
    deadly = {name: Deadly(provider) for name, provider in real.items()}
    children = None if is_alone else (*ARGV, ALONE)
    return bootstrap(settings, app, providers=deadly, quarantine_argv=children)


def main() -> int:
    """Run a worker, or its child process."""
    settings = load_worker_settings()
    configure_logging(as_json=False)
    worker.bootstrap.TokenEstimator = DeadlyEstimator  # type: ignore[misc]
    if sys.argv[1:] == [ALONE]:
        serve(settings, partial(compose, is_alone=True))
        return 0
    return run_worker(settings, QUEUES["all"], compose=partial(compose, is_alone=False))


if __name__ == "__main__":
    sys.exit(main())
