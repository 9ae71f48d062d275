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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import structlog
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
from callgate.adapters.postgres.url import login_secret
from callgate.adapters.redis_budget_cache import RedisBudgetCache
from callgate.adapters.token_estimator import TokenEstimator
from callgate.domain.budgets import BudgetFigures
from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.catalogue import Catalogue
from callgate.domain.errors import BrokerUnavailable, CallNotFound, InvalidRequest, WaitTimeout
from callgate.domain.ledger import SubmitOutcome, Submitted
from callgate.domain.operator_ports import OperationsPort, RetentionPort
from callgate.domain.ports import LedgerPort, QueuePort
from callgate.domain.reports import EndReason
from callgate.domain.requests import LLMRequest, LLMResult
from callgate.services.dead_letters import RedriveService
from callgate.services.results import error_of, result_of
from callgate.services.submit import SubmitService
from callgate.settings import ClientSettings, load_settings

if TYPE_CHECKING:
    from celery import Celery
    from celery.canvas import Signature
    from celery.result import AsyncResult

log = structlog.get_logger(__name__)

POLL_MIN_S = 0.005
READ_BATCH_MAX = 1_000


@dataclass(frozen=True)
class Handle:
    """One submission's claim on a result."""

    key: CallKey
    collapsed: bool
    """True if it joined or replayed an existing call: no call of its own was started."""
    _client: Client = field(repr=False, compare=False)
    _schema: type[BaseModel] | None = field(default=None, repr=False, compare=False)

    @property
    def task_id(self) -> str:
        """The Celery task id; `client.handle(task_id)` finds the call again in any process."""
        return self.key.task_id

    @property
    def state(self) -> CallState:
        """
        Where the call stands now.

        Raises:
            CallNotFound, LedgerUnavailable
        """
        (view,) = self._client._look([self], Bodies.NONE)
        return view.state

    def get(self, timeout: float | None = None) -> LLMResult:
        """
        Wait for the result.

        Args:
            timeout: Seconds; None waits until the call ends.

        Raises:
            WaitTimeout: The call is still open; it goes on.
            BudgetRefused, CallFailed, CallRejected, ResultPurged, ResultInvalid: It ended without a result.
            CallNotFound, LedgerUnavailable
        """
        for handle, view in self._client._ended([self], timeout):
            return handle._result(view)
        raise self._timeout(timeout)

    async def aget(self, timeout: float | None = None) -> LLMResult:
        """Wait for the result without blocking the event loop; see `get`."""
        async for handle, view in self._client._aended([self], timeout):
            return handle._result(view)
        raise self._timeout(timeout)

    def __await__(self) -> Any:
        return self.aget().__await__()

    @property
    def async_result(self) -> AsyncResult:
        """A Celery AsyncResult on callgate's app, whose result backend reads the ledger."""
        return self._client.celery_app.AsyncResult(
            self.task_id, backend=self._client._result_backend
        )

    def _result(self, view: CallView) -> LLMResult:
        if error := error_of(view):
            raise error
        good_endings = self._client.catalogue.good_endings(view.provider)
        return result_of(view, self._schema, good_endings=good_endings)

    def _timeout(self, timeout: float | None) -> WaitTimeout:
        return WaitTimeout(f"call {self.task_id} was still open after {timeout} s; it goes on")


class Client:
    """
    Submits calls to a callgate ledger. One per process; safe to share between threads, and with forked children.

    Errors: InvalidRequest (a gate said no), LedgerUnavailable (not known to be accepted; submit again).
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
        """Compose a client; every port can be replaced. Connects to nothing yet."""
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
            estimator=TokenEstimator(self.catalogue),
            costs=CostCalculator(self.catalogue),
            validator=JsonSchemaValidator(),
            catalogue=self.catalogue,
            now=lambda: datetime.now(UTC),
        )
        self._redrive = RedriveService(self.ledger, self._submit)

    @property
    def celery_app(self) -> Celery:
        """The app that publishes calls and reads their results; nobody's current app."""
        return in_this_process(self._celery_app)

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
    ) -> Handle:
        """
        Submit one call; identical calls of an organisation collapse into one.

        Args:
            link: Published when the call succeeds, at least once, with `{task_id, state}` as its first argument and the
                submission's id as its task id; for duplicates too.
            link_error: The same for a call that ends dead or rejected.
            idempotency_key: The caller's name for this intent; using it for another request is an error.
            force: Run anew although the call succeeded or is dead.

        Raises:
            InvalidRequest: A gate said no, or a link cannot be kept; nothing was stored.
            LedgerUnavailable: Not known to be accepted; submitting again is safe.
        """
        submission = self._submit.prepare(
            request,
            idempotency_key=idempotency_key,
            link=self._links.text(link, link_error),
            force=force,
        )
        (answer,) = answers = self._submit.store([submission])
        self._publish(answers)
        self._submit.check([submission], answers)
        return self._handle(answer, request)

    def submit_many(
        self,
        requests: Iterable[LLMRequest],
        *,
        link: Signature | None = None,
        link_error: Signature | None = None,
        force: bool = False,
    ) -> list[Handle]:
        """
        Submit calls, one statement per thousand, duplicates collapsed.

        All gates are asked before anything is stored: one request that a gate refuses, and nothing is submitted. Links
        are those of every submission; see `submit`.
        """
        text = self._links.text(link, link_error)
        asked = list(requests)
        prepared = [self._submit.prepare(r, link=text, force=force) for r in asked]
        answers = self._submit.store(prepared)
        self._publish(answers)
        self._submit.check(prepared, answers)
        return [self._handle(answer, r) for answer, r in zip(answers, asked, strict=True)]

    async def asubmit(self, request: LLMRequest, **options: Any) -> Handle:
        """Submit one call without blocking the event loop; see `submit`."""
        return await asyncio.to_thread(lambda: self.submit(request, **options))

    async def asubmit_many(self, requests: Sequence[LLMRequest], **options: Any) -> list[Handle]:
        """Submit calls without blocking the event loop; see `submit_many`."""
        return await asyncio.to_thread(lambda: self.submit_many(requests, **options))

    def handle(self, task_id: str, schema: type[BaseModel] | None = None) -> Handle:
        """
        Find a call again by its task id, in any process.

        Raises:
            InvalidRequest: It is no task id of callgate.
        """
        try:
            return Handle(CallKey.from_task_id(task_id), True, self, schema)
        except ValueError as exc:
            raise InvalidRequest(f"{task_id!r} is no callgate task id") from exc

    def as_completed(
        self, handles: Iterable[Handle], timeout: float | None = None
    ) -> Iterator[Handle]:
        """
        Yield handles as their calls end, succeeded or not; `get` of each then answers at once.

        Raises:
            WaitTimeout: Some were still open after `timeout` seconds.
        """
        waiting = list(handles)
        done = 0
        for handle, _ in self._ended(waiting, timeout):
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
        async for handle, _ in self._aended(waiting, timeout):
            done += 1
            yield handle
        if done < len(waiting):
            raise WaitTimeout(f"{len(waiting) - done} of {len(waiting)} calls still open")

    def redrive(self, keys: Sequence[CallKey]) -> tuple[list[Submitted], dict[CallKey, str]]:
        """Give dead calls another generation, and publish them; see `RedriveService.redrive`."""
        submitted, refused = self._redrive.redrive(keys)
        self._publish(submitted)
        return submitted, refused

    def budgets(self, org_id: str) -> list[BudgetFigures]:
        """An organisation's budgets, at most `budget_cache_ttl_s` behind; `operations.budgets` is never behind."""
        return self._budget_cache.get(org_id, self.operations.budgets)

    def cancel(self, task_id: str, reason: str) -> bool:
        """Cancel a call that is queued or waiting; True if it was. One that runs is paid already."""
        key = self.handle(task_id).key
        return bool(self.operations.end([key], code=EndReason.CANCELLED, message=reason))

    def close(self) -> None:
        """Close all connections."""
        self._session.close()
        self._budget_cache.close()
        self.celery_app.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _handle(self, answer: Submitted, request: LLMRequest) -> Handle:
        collapsed = answer.outcome is not SubmitOutcome.CREATED
        return Handle(answer.key, collapsed, self, request.response_model)

    def _publish(self, answers: Sequence[Submitted]) -> None:
        created = [a.key for a in answers if a.outcome is SubmitOutcome.CREATED]
        try:
            if created:
                self.queue.publish_calls(created)
        except BrokerUnavailable as exc:
            # They are accepted all the same: a sweep publishes them when the broker is back.
            log.warning("submission.publish_failed", count=len(created), reason=str(exc))

    def _look(self, handles: Sequence[Handle], bodies: Bodies) -> list[CallView]:
        views: list[CallView] = []
        for start in range(0, len(handles), READ_BATCH_MAX):
            keys = [h.key for h in handles[start : start + READ_BATCH_MAX]]
            for key, view in zip(keys, self.ledger.read(keys, bodies), strict=True):
                if view is None:
                    raise CallNotFound(f"the ledger knows no call {key.task_id}")
                views.append(view)
        return views

    def _ended(
        self, handles: Sequence[Handle], timeout: float | None
    ) -> Iterator[tuple[Handle, CallView]]:
        waiting, pauses = list(handles), _Pauses(self.settings.poll_max_s, timeout)
        while waiting:
            ended, waiting = self._split(waiting)
            yield from ended
            if waiting:
                if (pause_s := pauses.next(has_news=bool(ended))) is None:
                    return
                time.sleep(pause_s)

    async def _aended(
        self, handles: Sequence[Handle], timeout: float | None
    ) -> AsyncIterator[tuple[Handle, CallView]]:
        waiting, pauses = list(handles), _Pauses(self.settings.poll_max_s, timeout)
        while waiting:
            ended, waiting = await asyncio.to_thread(self._split, waiting)
            for pair in ended:
                yield pair
            if waiting:
                if (pause_s := pauses.next(has_news=bool(ended))) is None:
                    return
                await asyncio.sleep(pause_s)

    def _split(
        self, handles: Sequence[Handle]
    ) -> tuple[list[tuple[Handle, CallView]], list[Handle]]:
        pairs = list(zip(handles, self._look(handles, Bodies.REPLY), strict=True))
        ended = [(h, v) for h, v in pairs if not v.state.is_open]
        return ended, [h for h, v in pairs if v.state.is_open]


class _Pauses:
    """Growing pauses between looks, short again after news, until the caller's patience ends."""

    def __init__(self, longest_s: float, timeout: float | None) -> None:
        self._longest_s = longest_s
        self._pause_s = POLL_MIN_S
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def next(self, *, has_news: bool) -> float | None:
        """Seconds to wait now, or None if patience has ended."""
        pause_s = POLL_MIN_S if has_news else self._pause_s
        self._pause_s = min(pause_s * 1.5, self._longest_s)
        if self._deadline is None:
            return pause_s
        left_s = self._deadline - time.monotonic()
        return min(pause_s, left_s) if left_s > 0 else None
