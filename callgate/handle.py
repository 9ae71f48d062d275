"""Handles: what `submit` returns, and how a pipeline waits for the results."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from callgate.client_clock import ClientClock
from callgate.domain.calls import Bodies, CallKey, CallState, CallView
from callgate.domain.errors import CallNotFound, WaitTimeout
from callgate.domain.requests import LLMResult
from callgate.services.results import error_of, result_of

if TYPE_CHECKING:
    from celery.result import AsyncResult

POLL_MIN_S = 0.005
READ_BATCH_MAX = 1_000


@dataclass(frozen=True)
class Handle:
    """A submission, and access to its result."""

    key: CallKey
    collapsed: bool
    """True if the submission joined or replayed an existing call, and so started none of its own."""
    _results: ResultReader = field(repr=False, compare=False)
    _schema: type[BaseModel] | None = field(default=None, repr=False, compare=False)

    @property
    def task_id(self) -> str:
        """The Celery task id; `client.handle(task_id)` finds the call again in any process."""
        return self.key.task_id

    @property
    def state(self) -> CallState:
        """
        The state of the call now.

        Raises:
            CallNotFound, LedgerUnavailable
        """
        (view,) = self._results.read([self], Bodies.NONE)
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
        for handle, view in self._results.ended([self], timeout):
            return handle._result(view)
        raise self._timeout(timeout)

    async def aget(self, timeout: float | None = None) -> LLMResult:
        """Wait for the result without blocking the event loop; see `get`."""
        async for handle, view in self._results.aended([self], timeout):
            return handle._result(view)
        raise self._timeout(timeout)

    def __await__(self) -> Generator[Any, None, LLMResult]:
        return self.aget().__await__()

    @property
    def async_result(self) -> AsyncResult:
        """A Celery AsyncResult on callgate's app, whose result backend reads the ledger."""
        return self._results.async_result(self.task_id)

    def _result(self, view: CallView) -> LLMResult:
        if error := error_of(view):
            raise error
        good_endings = self._results.good_endings(view.provider)
        return result_of(view, self._schema, good_endings=good_endings)

    def _timeout(self, timeout: float | None) -> WaitTimeout:
        return WaitTimeout(f"call {self.task_id} was still open after {timeout} s; it goes on")


class ResultReader:
    """Reads the calls of handles, and polls until they have ended."""

    def __init__(
        self,
        *,
        read: Callable[[Sequence[CallKey], Bodies], Iterable[CallView | None]],
        good_endings: Callable[[str], Collection[str]],
        async_result: Callable[[str], AsyncResult],
        poll_max_s: float,
        clock: ClientClock,
    ) -> None:
        self._read = read
        self.good_endings = good_endings
        self.async_result = async_result
        self._poll_max_s = poll_max_s
        self._clock = clock

    def read(self, handles: Sequence[Handle], bodies: Bodies) -> list[CallView]:
        """
        Read the calls of handles, in their order.

        Raises:
            CallNotFound, LedgerUnavailable
        """
        views: list[CallView] = []
        for start in range(0, len(handles), READ_BATCH_MAX):
            keys = [h.key for h in handles[start : start + READ_BATCH_MAX]]
            for key, view in zip(keys, self._read(keys, bodies), strict=True):
                if view is None:
                    raise CallNotFound(f"the ledger has no call {key.task_id}")
                views.append(view)
        return views

    def ended(
        self, handles: Sequence[Handle], timeout: float | None
    ) -> Iterator[tuple[Handle, CallView]]:
        """Yield handles as their calls end, until all have ended or the timeout has passed."""
        waiting, pauses = list(handles), _Pauses(self._poll_max_s, timeout, self._clock)
        while waiting:
            ended, waiting = self._split(waiting)
            yield from ended
            if waiting:
                if (pause_s := pauses.next(has_news=bool(ended))) is None:
                    return
                self._clock.pause(pause_s)

    async def aended(
        self, handles: Sequence[Handle], timeout: float | None
    ) -> AsyncIterator[tuple[Handle, CallView]]:
        """Like `ended`, without blocking the event loop."""
        waiting, pauses = list(handles), _Pauses(self._poll_max_s, timeout, self._clock)
        while waiting:
            ended, waiting = await asyncio.to_thread(self._split, waiting)
            for pair in ended:
                yield pair
            if waiting:
                if (pause_s := pauses.next(has_news=bool(ended))) is None:
                    return
                await self._clock.apause(pause_s)

    def _split(
        self, handles: Sequence[Handle]
    ) -> tuple[list[tuple[Handle, CallView]], list[Handle]]:
        pairs = list(zip(handles, self.read(handles, Bodies.REPLY), strict=True))
        ended = [(h, v) for h, v in pairs if not v.state.is_open]
        return ended, [h for h, v in pairs if v.state.is_open]


class _Pauses:
    """Growing pauses between two polls, short again after a call has ended."""

    def __init__(self, longest_s: float, timeout: float | None, clock: ClientClock) -> None:
        self._clock = clock
        self._longest_s = longest_s
        self._pause_s = POLL_MIN_S
        self._deadline = None if timeout is None else self._clock.monotonic() + timeout

    def next(self, *, has_news: bool) -> float | None:
        """Seconds to wait now; None if the timeout has passed."""
        pause_s = POLL_MIN_S if has_news else self._pause_s
        self._pause_s = min(pause_s * 1.5, self._longest_s)
        if self._deadline is None:
            return pause_s
        left_s = self._deadline - self._clock.monotonic()
        return min(pause_s, left_s) if left_s > 0 else None
