"""
A client whose calls are answered in memory, by a script.

    client = MemoryClient()
    client.script.reply("Paris")
    assert client.submit(request).get().text == "Paris"

It is the real client, over the product's own services and memory adapters: the same gates, identity, budgets, retries,
breakers, log and errors. There are no servers, and no time is slept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from celery.result import AsyncResult
from pydantic import SecretStr

from callgate.adapters.broker.result_backend import LedgerResultBackend
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.memory.budget_cache import MemoryBudgetCache
from callgate.client import Client
from callgate.domain.budgets import CALL_TYPE_SCOPE, NANO_PER_USD, ORG_SCOPE, Window
from callgate.domain.calls import CallKey
from callgate.domain.catalogue import Catalogue
from callgate.domain.ledger import Submitted
from callgate.domain.requests import LLMRequest
from callgate.services.tracing import NO_TRACING, Tracing
from callgate.settings import ClientSettings
from callgate.submitter import Submitter
from callgate.testing.interrupted import InterruptedLedger
from callgate.testing.links import AppliedLinks, LinkCall
from callgate.testing.record import (
    AttemptRecord,
    SubmissionRecord,
    attempts_in,
    submissions_in,
)
from callgate.testing.script import Script
from callgate.testing.world import World

DEFAULT_BUDGET_USD = Decimal(1000)
POLL_MAX_S = 3_600.0
"""A pause ends as soon as a call has ended, so it can be long."""
NOWHERE = SecretStr("redis://127.0.0.1:1/0")
NO_DATABASE = SecretStr("postgresql://nobody@127.0.0.1:1/none")


class MemoryClient(Client):
    """The client of a test. `script` says what the provider answers."""

    def __init__(
        self,
        *,
        catalogue: Catalogue | Path | str | None = None,
        script: Script | None = None,
        default_budget_usd: Decimal | float | None = DEFAULT_BUDGET_USD,
        begins_at: datetime | None = None,
        runs_at_submit: bool = True,
    ) -> None:
        """
        Compose a client with a ledger, a worker and a provider of its own.

        Args:
            catalogue: The catalogue, or its file; None: OpenAI with default limits.
            default_budget_usd: The budget per day of an organisation without one; None: its calls are rejected.
            begins_at: The time at which the test begins, aware; None: now.
            runs_at_submit: A call runs as soon as it is submitted, as far as it takes no time. False: it runs when
                somebody waits for it, or with `run` and `advance`.
        """
        if not isinstance(catalogue, Catalogue):
            catalogue = load_catalogue(None if catalogue is None else Path(catalogue))
        self.script = script or Script()
        self._runs_at_submit = runs_at_submit
        limit = default_budget_usd
        self._world = world = World(
            catalogue,
            self.script,
            begins_at=begins_at or datetime.now(UTC),
            default_limit_nano_usd=None if limit is None else _nano_usd(limit),
        )
        self._interrupted = InterruptedLedger(world.ledger)
        super().__init__(
            # Not from the environment: a test must not depend on it.
            ClientSettings.model_construct(
                database_url=NO_DATABASE, broker_url=NOWHERE, poll_max_s=POLL_MAX_S
            ),
            ledger=self._interrupted,
            operations=world.ledger,
            retention=world.ledger,
            ended=world.ledger.ended_calls,
            redrives=world.ledger.redrives,
            queue=world.queue,
            catalogue=catalogue,
            clock=_TestClock(world),
        )
        # Figures that are a moment old would make assertions about them wrong.
        self._budget_cache = MemoryBudgetCache(ttl_s=0.0, monotonic=world.timeline.monotonic)
        self._result_backend = _ResultBackend(self)

    @property
    def submitted(self) -> list[SubmissionRecord]:
        """Every submission that was accepted, in order."""
        return submissions_in(self._world.ledger.tables)

    @property
    def sent(self) -> list[LLMRequest]:
        """Every request that the provider got, in order: one per attempt."""
        return [sent.request for sent in self._world.provider.sent]

    @property
    def links(self) -> list[LinkCall]:
        """Every link that was published, in order."""
        return list(self._links.calls)

    @property
    def cost_usd(self) -> Decimal:
        """What was posted for all attempts."""
        return sum((attempt.cost_usd for attempt in self.attempts()), Decimal(0))

    @property
    def now(self) -> datetime:
        """The time of the test."""
        return self._world.timeline.now()

    def attempts(self, task_id: str | None = None) -> list[AttemptRecord]:
        """Every attempt, or those of one call, as the log has them."""
        return attempts_in(self._world.ledger.tables, task_id)

    def set_budget(
        self,
        org_id: str,
        usd: Decimal | float,
        *,
        call_type: str | None = None,
        per: Literal["day", "month"] = "day",
    ) -> None:
        """Set a budget of an organisation, or of one of its call types."""
        scope = ORG_SCOPE if call_type is None else CALL_TYPE_SCOPE + call_type
        self.operations.set_budget(org_id, scope, Window(per), _nano_usd(usd))

    def run(self) -> None:
        """
        Let time pass until every call has ended, and its links were applied.

        Raises:
            NothingHappens: A call never ends.
            UnscriptedRequest: The script does not say what a request gets.
        """
        self._world.run()

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass, and do what falls due in them."""
        self._world.advance(seconds)

    def interrupt_ledger(self, times: int = 1) -> None:
        """Let the next statements of this client raise LedgerUnavailable. The worker is not affected."""
        self._interrupted.outages = times

    def verify(self) -> None:
        """
        Raise what the code under test may have swallowed.

        Raises:
            AssertionError: A request had no rule, or a link that was applied has raised.
        """
        if requests := self.script.unscripted:
            raise AssertionError(
                f"{len(requests)} requests had no rule; the first: {requests[0]!r}"
            )
        for call in self._links.calls:
            if call.error is not None:
                raise AssertionError(f"the link {call.task} raised {call.error!r}") from call.error

    def redrive(self, keys: Sequence[CallKey]) -> tuple[list[Submitted], dict[CallKey, str]]:
        """Redrive dead calls now; see `Client.redrive`."""
        answers = super().redrive(keys)
        self._work_after_submission()
        return answers

    def close(self) -> None:
        """End what still runs. What was recorded can still be read."""
        self._world.timeline.close()
        super().close()

    def _work_after_submission(self) -> None:
        if self._runs_at_submit:
            self._world.work()

    def _compose_submitter(self, tracing: Tracing) -> Submitter:
        self._links = AppliedLinks(self._celery_app, timeout_s=self.settings.broker_timeout_s)
        self._world.links = self._links
        return _Submitter(self, tracing)


class _TestClock:
    """`ClientClock` by the time of the test."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.now = world.timeline.now
        self.monotonic = world.timeline.monotonic
        self.jitter = world.timeline.jitter

    def pause(self, seconds: float) -> None:
        """Let time pass until a call ends."""
        self._world.wait(seconds)

    async def apause(self, seconds: float) -> None:
        """The same. Links run in a thread, where they may block."""
        await asyncio.to_thread(self._world.wait, seconds)


class _Submitter(Submitter):
    """Runs what was submitted."""

    def __init__(self, client: MemoryClient, tracing: Tracing = NO_TRACING) -> None:
        super().__init__(client._submit, client._links, tracing, client._clock)
        self._work = client._work_after_submission

    def submit(
        self, requests: Sequence[LLMRequest], idempotency_key: str | None = None, **options: Any
    ) -> list[Submitted]:
        """Store a batch, and run it."""
        answers = super().submit(requests, idempotency_key, **options)
        self._work()
        return answers

    async def asubmit(
        self,
        requests: Sequence[LLMRequest],
        idempotency_key: str | None,
        options: Mapping[str, Any],
    ) -> list[Submitted]:
        """Store a batch, and run it in a thread."""
        answers = await super().asubmit(requests, idempotency_key, options)
        await asyncio.to_thread(self._work)
        return answers


class _ResultBackend(LedgerResultBackend):
    """Lets the time of the test pass where Celery would poll."""

    def __init__(self, client: MemoryClient) -> None:
        super().__init__(client._celery_app, client.ledger, client.catalogue)
        self._client = client

    def wait_for_pending(
        self, result: AsyncResult, timeout: float | None = None, **options: Any
    ) -> Any:
        """Wait for a result; see Celery's own."""
        handle = self._client.handle(result.id)
        for _ in self._client._results.ended([handle], timeout):
            pass
        return super().wait_for_pending(result, timeout=0.001, **options)


def _nano_usd(usd: Decimal | float) -> int:
    return int(Decimal(str(usd)) * NANO_PER_USD)
