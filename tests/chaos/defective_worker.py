"""A real worker process whose adapter of one protocol has a defect, to show that a trial notices it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from celery import Celery

import worker.main  # noqa: F401  # Imported by the fork server, so that forked workers need no imports.
from callgate.adapters.catalogue_file import load_catalogue
from callgate.domain.provider import ProviderReply
from config.settings import WorkerSettings
from worker.bootstrap import bootstrap
from worker.provider_adapters import providers_of
from worker.runtime import Runtime


class Defective:
    """An `LLMProviderPort` that sends each request some times, and changes the last reply."""

    def __init__(
        self,
        provider: Any,
        *,
        times: int = 1,
        change: Callable[[ProviderReply], ProviderReply] = lambda reply: reply,
    ) -> None:
        self._provider = provider
        self._times = times
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def complete(self, *args: Any, **options: Any) -> Any:
        answers = [await self._provider.complete(*args, **options) for _ in range(self._times)]
        is_reply = isinstance(answers[-1], ProviderReply)
        return self._change(answers[-1]) if is_reply else answers[-1]


def _with_output_counted_twice(reply: ProviderReply) -> ProviderReply:
    assert reply.usage is not None
    tokens = reply.usage.output_tokens + (reply.usage.reasoning_tokens or 0)
    return replace(reply, usage=reply.usage.model_copy(update={"output_tokens": tokens}))


DEFECTS: Mapping[str, Callable[[Any], Defective]] = {
    "sends_twice": partial(Defective, times=2),
    "drops_usage": partial(Defective, change=partial(replace, usage=None)),
    "counts_reasoning_twice": partial(Defective, change=_with_output_counted_twice),
    "drops_reasoning": partial(Defective, change=partial(replace, reasoning=())),
}


def main(defect: str, target: str) -> int:
    """Run a worker for both queues, with a defect in one of its providers."""
    from config.settings import load_worker_settings
    from worker.log_config import configure_logging
    from worker.main import QUEUES, run_worker

    settings = load_worker_settings()
    configure_logging(as_json=False)
    composition = partial(_compose, defect=defect, target=target)
    return run_worker(settings, QUEUES["all"], name="chaos", compose=composition)


def _compose(settings: WorkerSettings, app: Celery, *, defect: str, target: str) -> Runtime:
    providers = providers_of(settings, load_catalogue(settings.catalogue))
    return bootstrap(
        settings, app, providers={**providers, target: DEFECTS[defect](providers[target])}
    )
