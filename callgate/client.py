"""
The client: submit calls, wait for results. Synchronous, with an `a...` twin of everything that waits.

    client = Client.from_env()
    handle = client.submit(LLMRequest(...), link=store.s(document_id))
    result = handle.get(timeout=60)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel

from callgate.adapters.broker.app import build_app, in_this_process
from callgate.adapters.broker.links import Links
from callgate.adapters.broker.queue import CeleryQueue
from callgate.adapters.broker.result_backend import LedgerResultBackend
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.json_schema_validator import JsonSchemaValidator
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.retention import PostgresRetention
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.tenants import PostgresTenants
from callgate.adapters.postgres.url import login_secret
from callgate.adapters.redis_budget_cache import RedisBudgetCache
from callgate.adapters.system_clock import SystemClock
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.budgets import BudgetFigures
from callgate.domain.calls import CallKey
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import InvalidRequest, WaitTimeout
from callgate.domain.estimates import Candidate, Estimate
from callgate.domain.ledger import SubmitOutcome, Submitted
from callgate.domain.open_calls import OnBusy
from callgate.domain.operator_ports import OperationsPort, RetentionPort
from callgate.domain.ports import LedgerPort, QueuePort
from callgate.domain.requests import LLMRequest
from callgate.domain.turns import Priority
from callgate.handle import Handle, ResultReader
from callgate.services.acceptance import BUSY_TIMEOUT_S, Acceptance
from callgate.services.bills import BillService
from callgate.services.calls import CallService, key_of_task
from callgate.services.dead_letters import DeadLetterService
from callgate.services.estimates import EstimateService
from callgate.services.providers import ProviderCheckService
from callgate.services.purge import PurgeService
from callgate.services.submit import SubmissionOptions, SubmitService
from callgate.services.tenants import TenantService
from callgate.settings import ClientSettings, load_settings

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature

__all__ = ["Client", "Handle"]
CLOCK = SystemClock()
OnBusyWord = Literal["raise", "wait"]


class Client:
    """
    Submits calls to a callgate ledger. One per process; safe to share between threads, and with forked children.

    Errors: InvalidRequest (a gate refused the request), LedgerUnavailable (not known to be accepted; submit again).
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        ledger: LedgerPort | None = None,
        operations: OperationsPort | None = None,
        retention: RetentionPort | None = None,
        queue: QueuePort | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        """Compose a client; every port can be replaced. Nothing is connected yet."""
        self.settings = settings
        self.catalogue = catalogue or load_catalogue(settings.catalogue)
        self._celery_app = build_app(
            settings.broker_url.get_secret_value(),
            timeout_s=settings.broker_timeout_s,
            prefix=settings.broker_prefix,
        )
        self._session = PostgresSession(
            settings.database_url.get_secret_value(), timeout_s=settings.ledger_timeout_s
        )
        self.ledger = ledger or PostgresLedger(self._session)
        self.operations = operations or PostgresOperations(self._session)
        self.retention = retention or PostgresRetention(self._session)
        self.queue = queue or CeleryQueue(self._celery_app, timeout_s=settings.broker_timeout_s)
        self._links = Links(self._celery_app, timeout_s=settings.broker_timeout_s)
        self._budget_cache = RedisBudgetCache(
            (settings.cache_url or settings.broker_url).get_secret_value(),
            login=login_secret(settings.database_url.get_secret_value()),
            ttl_s=settings.budget_cache_ttl_s,
            prefix=settings.broker_prefix,
        )
        self._result_backend = LedgerResultBackend(self._celery_app, self.ledger, self.catalogue)
        self._submit = SubmitService(
            ledger=self.ledger,
            queue=self.queue,
            estimator=TokenEstimator(self.catalogue),
            costs=CostCalculator(self.catalogue),
            validator=JsonSchemaValidator(),
            catalogue=self.catalogue,
            now=lambda: datetime.now(UTC),
        )
        self.dead_letters = DeadLetterService(
            ledger=self.ledger, operations=self.operations, submits=self._submit, sleep=time.sleep
        )
        self.calls = CallService(self.ledger, self.operations)
        self.estimates = EstimateService(self._submit, self.operations, self.catalogue)
        self.bills = BillService(self.operations)
        self.purges = PurgeService(self.retention, self.operations, self.catalogue.retention)
        self.tenants = TenantService(PostgresTenants(self._session))
        self._results = self._result_reader()

    @property
    def celery_app(self) -> Celery:
        """The app that publishes calls and reads their results. It is never Celery's current app."""
        return in_this_process(self._celery_app)

    @property
    def provider_checks(self) -> ProviderCheckService:
        """Tries providers with ordinary calls."""
        return ProviderCheckService(
            submits=self._submit, ledger=self.ledger, sleep=time.sleep, monotonic=CLOCK.monotonic
        )

    @classmethod
    def from_env(cls) -> Client:
        """
        Build a client from the `CALLGATE_*` variables of this process.

        Raises:
            ConfigurationError: A variable is missing, unknown or out of bounds.
        """
        return cls(load_settings(ClientSettings))

    def submit(
        self,
        request: LLMRequest,
        *,
        link: Signature | None = None,
        link_error: Signature | None = None,
        idempotency_key: str | None = None,
        force: bool = False,
        priority: Priority = Priority.NORMAL,
        start_before: datetime | None = None,
        on_busy: OnBusyWord = "raise",
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Handle:
        """
        Submit one call; identical calls of an organisation collapse into one.

        Args:
            link: Published at least once when the call succeeds, also for duplicates. Its first argument is
                `{task_id, state}`, its task id is the submission's id.
            link_error: The same for a call that ends dead or rejected.
            idempotency_key: The caller's name for this submission; using it for another request is an error.
            force: Run the call again although it succeeded or is dead.
            priority: Its class. A submission that joins a call that does not run yet raises it to the higher class.
            start_before: If it was not sent before this time, it is rejected with `deadline_passed`. Of several
                submissions of a call the latest time counts, and None is later than any.
            on_busy: What follows if the organisation has as many open calls as it may have: `raise`, or `wait` until
                some have ended. A submission that joins or replays a call is stored at once.
            busy_timeout_s: How long it waits with `wait`; never until `start_before`.

        Raises:
            InvalidRequest: A gate refused the request, or a link cannot be stored; nothing was stored.
            OrganisationBusy: There was no room; nothing was stored.
            OrganisationFrozen: An operator has frozen the organisation; nothing was stored.
            LedgerUnavailable: Not known to be accepted; submitting again is safe.
        """
        acceptance = self._acceptance(
            [request],
            idempotency_key,
            link=link,
            link_error=link_error,
            force=force,
            priority=priority,
            start_before=start_before,
            on_busy=on_busy,
            busy_timeout_s=busy_timeout_s,
        )
        (handle,) = self._handles(_accepted(acceptance), [request])
        return handle

    def submit_many(
        self,
        requests: Iterable[LLMRequest],
        *,
        link: Signature | None = None,
        link_error: Signature | None = None,
        force: bool = False,
        priority: Priority = Priority.NORMAL,
        start_before: datetime | None = None,
        on_busy: OnBusyWord = "raise",
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> list[Handle]:
        """
        Submit calls, a thousand per statement; duplicates collapse.

        If a gate refuses one request, nothing is stored. The options apply to every submission; see `submit`. With
        `wait`, calls are stored as room appears.

        Raises:
            OrganisationBusy: What there was room for is stored. Submitting all of them again is safe: those join.
        """
        batch = list(requests)
        acceptance = self._acceptance(
            batch,
            None,
            link=link,
            link_error=link_error,
            force=force,
            priority=priority,
            start_before=start_before,
            on_busy=on_busy,
            busy_timeout_s=busy_timeout_s,
        )
        return self._handles(_accepted(acceptance), batch)

    async def asubmit(
        self, request: LLMRequest, *, idempotency_key: str | None = None, **options: Any
    ) -> Handle:
        """Submit one call without blocking the event loop; see `submit`."""
        (handle,) = await self._asubmit([request], idempotency_key, options)
        return handle

    async def asubmit_many(self, requests: Sequence[LLMRequest], **options: Any) -> list[Handle]:
        """Submit calls without blocking the event loop; see `submit_many`."""
        return await self._asubmit(list(requests), None, options)

    def handle(self, task_id: str, schema: type[BaseModel] | None = None) -> Handle:
        """
        Find a call again by its task id, in any process.

        Raises:
            InvalidRequest: The text is not a task id of callgate.
        """
        return Handle(key_of_task(task_id), True, self._results, schema)

    def as_completed(
        self, handles: Iterable[Handle], timeout: float | None = None
    ) -> Iterator[Handle]:
        """
        Yield handles as their calls end, succeeded or not; then `get` answers at once.

        Raises:
            WaitTimeout: Calls were still open after `timeout` seconds.
        """
        waiting = list(handles)
        done = 0
        for handle, _ in self._results.ended(waiting, timeout):
            done += 1
            yield handle
        if done < len(waiting):
            raise WaitTimeout(f"{len(waiting) - done} of {len(waiting)} calls still open")

    async def aas_completed(
        self, handles: Iterable[Handle], timeout: float | None = None
    ) -> AsyncIterator[Handle]:
        """Yield handles as their calls end; see `as_completed`."""
        waiting = list(handles)
        done = 0
        async for handle, _ in self._results.aended(waiting, timeout):
            done += 1
            yield handle
        if done < len(waiting):
            raise WaitTimeout(f"{len(waiting) - done} of {len(waiting)} calls still open")

    def estimate(self, requests: Iterable[LLMRequest]) -> Estimate:
        """
        Say what requests may cost, before anything is run. Nothing is stored or sent.

        See `Estimate`. Raises `LedgerUnavailable` if the ledger did not answer.
        """
        return self.estimates.estimate(
            Candidate(number, request) for number, request in enumerate(requests, start=1)
        )

    def redrive(self, keys: Sequence[CallKey]) -> tuple[list[Submitted], dict[CallKey, str]]:
        """Redrive one batch of dead calls now; see `DeadLetterService.redrive`."""
        return self.dead_letters.redrive(keys)

    def budgets(self, org_id: str) -> list[BudgetFigures]:
        """An organisation's budgets, at most `budget_cache_ttl_s` old; `operations.budgets` is always current."""
        return self._budget_cache.get(org_id, self.operations.budgets)

    def cancel(self, task_id: str, reason: str) -> bool:
        """Cancel a queued or waiting call; True if it was cancelled. A running call is already paid."""
        return self.calls.cancel(key_of_task(task_id), reason)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()
        self._budget_cache.close()
        self.celery_app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _acceptance(
        self,
        requests: Sequence[LLMRequest],
        idempotency_key: str | None,
        /,
        *,
        link: Signature | None = None,
        link_error: Signature | None = None,
        force: bool = False,
        priority: Priority = Priority.NORMAL,
        start_before: datetime | None = None,
        on_busy: OnBusyWord = "raise",
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Acceptance:
        """Ask every gate; nothing is stored yet."""
        text = self._links.text(link, link_error)
        batch = [
            self._submit.prepare(
                request,
                idempotency_key=idempotency_key,
                link=text,
                force=force,
                options=SubmissionOptions(priority, start_before),
            )
            for request in requests
        ]
        return self._submit.acceptance(batch, _on_busy(on_busy), busy_timeout_s)

    async def _asubmit(
        self,
        requests: Sequence[LLMRequest],
        idempotency_key: str | None,
        options: dict[str, Any],
    ) -> list[Handle]:
        """Submit without holding a thread while it waits for room."""
        acceptance = await asyncio.to_thread(
            lambda: self._acceptance(requests, idempotency_key, **options)
        )
        began = CLOCK.monotonic()
        while True:
            elapsed_s = CLOCK.monotonic() - began
            pause_s = await asyncio.to_thread(acceptance.step, elapsed_s, CLOCK.jitter())
            if pause_s is None:
                return self._handles(acceptance.answers, requests)
            await asyncio.sleep(pause_s)

    def _handles(
        self, answers: Sequence[Submitted], requests: Sequence[LLMRequest]
    ) -> list[Handle]:
        return [
            Handle(
                answer.key,
                answer.outcome is not SubmitOutcome.CREATED,
                self._results,
                request.response_model,
            )
            for answer, request in zip(answers, requests, strict=True)
        ]

    def _result_reader(self) -> ResultReader:
        def async_result(task_id: str) -> Any:
            return self.celery_app.AsyncResult(task_id, backend=self._result_backend)

        return ResultReader(
            read=lambda keys, bodies: self.ledger.read(keys, bodies),
            good_endings=lambda provider: self.catalogue.good_endings(provider),
            async_result=async_result,
            poll_max_s=self.settings.poll_max_s,
        )


def _accepted(acceptance: Acceptance) -> list[Submitted]:
    """Store a batch, in this thread."""
    began = CLOCK.monotonic()
    while True:
        pause_s = acceptance.step(CLOCK.monotonic() - began, CLOCK.jitter())
        if pause_s is None:
            return acceptance.answers
        time.sleep(pause_s)


def _on_busy(word: str) -> OnBusy:
    try:
        return OnBusy(word)
    except ValueError:
        raise InvalidRequest(f"on_busy is one of {', '.join(OnBusy)}") from None
