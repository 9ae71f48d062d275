"""
The client: submit calls, wait for results. Synchronous, with an `a...` twin of everything that waits.

    client = Client.from_env()
    handle = client.submit(LLMRequest(...), link=store.s(document_id))
    result = handle.get(timeout=60)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from callgate.adapters.broker.app import build_app, in_this_process
from callgate.adapters.broker.links import Links
from callgate.adapters.broker.queue import CeleryQueue
from callgate.adapters.broker.result_backend import LedgerResultBackend
from callgate.adapters.catalogue_file import load_catalogue
from callgate.adapters.cost_calculator import CostCalculator
from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.token_estimator import TokenEstimator, WithoutTokenizer
from callgate.budget_copies import budget_copies
from callgate.client_clock import SYSTEM_TIME, ClientClock
from callgate.domain.budgets import BudgetFigures
from callgate.domain.call_order import Priority
from callgate.domain.calls import CallKey
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import WaitTimeout
from callgate.domain.estimates import Candidate, Estimate
from callgate.domain.ledger import SubmitOutcome, Submitted
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.ports import LedgerPort, QueuePort
from callgate.domain.requests import LLMRequest
from callgate.handle import Handle, ResultReader
from callgate.replaced_ports import OperatorPorts
from callgate.schema_checks import SchemaChecks
from callgate.services.acceptance import BUSY_TIMEOUT_S
from callgate.services.call_details import key_of_task
from callgate.services.submit import SubmitService
from callgate.services.tracing import Tracing
from callgate.settings import ClientSettings, load_settings
from callgate.submitter import OnBusyWord, Submitter
from callgate.tracing import tracing_of

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature

    from callgate.domain.dead_letters import EndedCallsPort
    from callgate.domain.operator_ports import RetentionPort
    from callgate.domain.redrive_ports import RedrivesPort
    from callgate.operator_services import OperatorServices
    from callgate.services.bills import BillService
    from callgate.services.calls import CallService
    from callgate.services.dead_letters import DeadLetterService
    from callgate.services.discards import DiscardService
    from callgate.services.estimates import EstimateService
    from callgate.services.providers import ProviderCheckService
    from callgate.services.purge import PurgeService
    from callgate.services.redrives import RedriveService
    from callgate.services.tenants import TenantService

__all__ = ["Client", "Handle"]


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
        ended: EndedCallsPort | None = None,
        redrives: RedrivesPort | None = None,
        queue: QueuePort | None = None,
        catalogue: Catalogue | None = None,
        tracing: Tracing | None = None,
        clock: ClientClock = SYSTEM_TIME,
    ) -> None:
        """Compose a client; every port can be replaced. Nothing is connected yet."""
        self.settings = settings
        self._clock = clock
        self.catalogue = catalogue or load_catalogue(settings.catalogue)
        self._celery_app = build_app(
            settings.broker_url.get_secret_value(),
            timeout_s=settings.broker_timeout_s,
            prefix=settings.broker_prefix,
        )
        timeout_s, url = settings.ledger_timeout_s, settings.database_url.get_secret_value()
        self._session = PostgresSession(url, timeout_s=timeout_s, checks_schema=True)
        self.ledger = ledger or PostgresLedger(self._session)
        self.operations = operations or PostgresOperations(self._session)
        self.queue = queue or CeleryQueue(self._celery_app, timeout_s=settings.broker_timeout_s)
        self._budget_cache = budget_copies(settings)
        self._result_backend = LedgerResultBackend(self._celery_app, self.ledger, self.catalogue)
        self._submit = self._compose_submit(WithoutTokenizer.LEAVE)
        self._submitter = self._compose_submitter(tracing or tracing_of(settings))
        self._operator_ports = OperatorPorts(retention, ended, redrives)
        self._operators: OperatorServices | None = None
        self._results = self._result_reader()

    def _compose_submit(self, without: WithoutTokenizer) -> SubmitService:
        return SubmitService(
            ledger=self.ledger,
            queue=self.queue,
            estimator=TokenEstimator(self.catalogue, without),
            costs=CostCalculator(self.catalogue),
            validator=SchemaChecks(),
            catalogue=self.catalogue,
            now=self._clock.now,
        )

    def _compose_submitter(self, tracing: Tracing) -> Submitter:
        links = Links(self._celery_app, timeout_s=self.settings.broker_timeout_s)
        return Submitter(self._submit, links, tracing, self._clock)

    @property
    def celery_app(self) -> Celery:
        """The app that publishes calls and reads their results. It is never Celery's current app."""
        return in_this_process(self._celery_app)

    def _for_operators(self) -> OperatorServices:
        if self._operators is None:
            from callgate.operator_services import OperatorServices

            self._operators = OperatorServices(
                self.ledger,
                self.operations,
                self._submit,
                # A worst case, so no request counts as nothing.
                quotes=self._compose_submit(WithoutTokenizer.BOUND_WITHIN_LIMIT),
                session=self._session,
                ports=self._operator_ports,
                catalogue=self.catalogue,
                clock=self._clock,
            )
        return self._operators

    @property
    def dead_letters(self) -> DeadLetterService:
        """Redrives dead calls one batch at a time."""
        return self._for_operators().dead_letters

    @property
    def redrives(self) -> RedriveService:
        """Redrives as stored operations."""
        return self._for_operators().redrives

    @property
    def discards(self) -> DiscardService:
        """Discards dead calls."""
        return self._for_operators().discards

    @property
    def calls(self) -> CallService:
        """Shows and cancels calls."""
        return self._for_operators().calls

    @property
    def estimates(self) -> EstimateService:
        """Says what requests may cost."""
        return self._for_operators().estimates

    @property
    def bills(self) -> BillService:
        """Settles unknown bills."""
        return self._for_operators().bills

    @property
    def purges(self) -> PurgeService:
        """Removes texts."""
        return self._for_operators().purges

    @property
    def tenants(self) -> TenantService:
        """Says which organisations a login acts for."""
        return self._for_operators().tenants

    @property
    def provider_checks(self) -> ProviderCheckService:
        """Tries providers with ordinary calls."""
        return self._for_operators().provider_checks

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
            priority: Its class. A submission that joins an open call raises it to the higher class.
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
        answers = self._submitter.submit(
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
        (handle,) = self._handles(answers, [request])
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
        answers = self._submitter.submit(
            batch,
            link=link,
            link_error=link_error,
            force=force,
            priority=priority,
            start_before=start_before,
            on_busy=on_busy,
            busy_timeout_s=busy_timeout_s,
        )
        return self._handles(answers, batch)

    async def asubmit(
        self, request: LLMRequest, *, idempotency_key: str | None = None, **options: Any
    ) -> Handle:
        """Submit one call without blocking the event loop; see `submit`."""
        answers = await self._submitter.asubmit([request], idempotency_key, options)
        (handle,) = self._handles(answers, [request])
        return handle

    async def asubmit_many(self, requests: Sequence[LLMRequest], **options: Any) -> list[Handle]:
        """Submit calls without blocking the event loop; see `submit_many`."""
        batch = list(requests)
        return self._handles(await self._submitter.asubmit(batch, None, options), batch)

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
            clock=self._clock,
        )
