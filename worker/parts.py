"""The parts that `worker.bootstrap` composes a process of, with what each has to close."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from callgate.domain.calls import AttemptRef
from callgate.services.ai_call_logger import AICallLogger
from callgate.services.delivery import DeliveryService
from callgate.services.llm_service import LLMService
from callgate.services.retrying_ledger import OutagePolicy
from config.settings import WorkerOptions
from worker.async_token_estimator import AsyncTokenEstimator
from worker.isolation.schema_checker import SchemaChecker


class Closable(Protocol):
    """A part with threads, processes or connections."""

    def close(self) -> None:
        """End them."""


def close_all(*parts: Closable) -> None:
    """Close parts in this order."""
    for part in parts:
        part.close()


def outage_policy_of(options: WorkerOptions, *, is_alone: bool) -> OutagePolicy:
    """
    How long calls wait for the ledger.

    A child process whose ledger connection fails while its worker's works must give up before it is killed as stuck:
    a kill counts as a lost worker against the call.
    """
    if is_alone:
        return OutagePolicy(
            grace_s=options.attempt_grace_s, give_up_after_s=options.attempt_grace_s / 3
        )
    return OutagePolicy(grace_s=options.attempt_grace_s)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What settles attempts and tells submitters."""

    call_logger: AICallLogger
    delivery: DeliveryService
    checker: SchemaChecker
    threads: ThreadPoolExecutor
    """Not the ledger's threads: a settlement may wait for an answer check, and claims and records must not."""

    async def settle_here(self, ref: AttemptRef) -> None:
        """Settle one attempt, off the event loop."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.threads, self.call_logger.settle, [ref])

    def close(self) -> None:
        self.checker.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Execution:
    """What executes calls."""

    llm: LLMService
    tokens: AsyncTokenEstimator
    threads: ThreadPoolExecutor

    def close(self) -> None:
        self.tokens.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
