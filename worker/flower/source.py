"""Where pages read from, and what they change: the ledger, with few threads and few connections."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from callgate.adapters.postgres.cost_series import PostgresCostSeries
from callgate.adapters.postgres.dead_letters import PostgresEndedCalls
from callgate.adapters.postgres.figures import PostgresFigures
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.overview import PostgresOverview
from callgate.adapters.postgres.redrives import PostgresRedrives
from callgate.adapters.postgres.roles import DASHBOARD
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.worker_lines import PostgresWorkers
from callgate.domain.cost_series import CostSeriesPort
from callgate.domain.dead_letters import EndedCallsPort
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.metric_ports import FiguresPort
from callgate.domain.operator_ports import OperationsPort
from callgate.domain.overview import OverviewPort
from callgate.domain.redrive_ports import RedrivesPort
from callgate.domain.worker_lines import WorkersPort
from config.settings import WorkerSettings

T = TypeVar("T")
THREADS_MAX = 4
"""Also connections, for reading and for changes each."""
WAITING_MAX = 64
"""Requests that wait for a thread or have one. More are refused at once."""


@dataclass(frozen=True)
class Ledger:
    """The ports that a page reads or changes through."""

    session: PostgresSession
    operations: OperationsPort
    figures: FiguresPort
    overview: OverviewPort
    ended: EndedCallsPort
    cost_series: CostSeriesPort
    workers: WorkersPort
    redrives: RedrivesPort

    @staticmethod
    def of(session: PostgresSession) -> Ledger:
        """Make the ports over a session."""
        return Ledger(
            session,
            PostgresOperations(session),
            PostgresFigures(session),
            overview=PostgresOverview(session),
            ended=PostgresEndedCalls(session),
            cost_series=PostgresCostSeries(session),
            workers=PostgresWorkers(session),
            redrives=PostgresRedrives(session),
        )


class Source:
    """
    The ledger for pages. Nothing connects before the first read.

    Reads have the rights of `callgate_dashboard` only, whatever login they use. Changes have those of their login.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        worker = settings.worker
        url = worker.flower_database_url or settings.database_url
        change_url = worker.flower_operator_url or url
        self._timeout_s = settings.ledger_timeout_s
        self._reading = Ledger.of(self._session(url.get_secret_value(), DASHBOARD))
        self._changing = Ledger.of(self._session(change_url.get_secret_value(), None))
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="pages")
        self._waiting = 0
        self._shared: dict[str, tuple[float, asyncio.Future[Any]]] = {}

    async def read(self, work: Callable[[Ledger], T]) -> T:
        """
        Run `work` in a thread, with the ledger as the dashboard sees it.

        Raises:
            LedgerUnavailable: Also if too many requests wait.
        """
        return await self._run(work, self._reading)

    async def read_shared(self, name: str, age_s: float, work: Callable[[Ledger], T]) -> T:
        """Like `read`; requests for the same `name` within `age_s` seconds share one reading. Errors are not kept."""
        began, reading = self._shared.get(name, (-math.inf, None))
        if reading is None or time.monotonic() - began > age_s or _has_failed(reading):
            reading = asyncio.ensure_future(self.read(work))
            self._shared[name] = (time.monotonic(), reading)
        # A browser that goes away cancels its own request, not the reading of the others.
        found: T = await asyncio.shield(reading)
        return found

    async def change(self, work: Callable[[Ledger], T]) -> T:
        """Run `work` in a thread, with the ledger as operators change it; errors as of `read`."""
        return await self._run(work, self._changing)

    def close(self) -> None:
        """Wait for nothing more, and close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for ledger in (self._reading, self._changing):
            ledger.session.close()

    def _session(self, url: str, role: str | None) -> PostgresSession:
        return PostgresSession(
            url, timeout_s=self._timeout_s, pool_size=THREADS_MAX, checks_schema=True, role=role
        )

    async def _run(self, work: Callable[[Ledger], T], ledger: Ledger) -> T:
        if self._waiting >= WAITING_MAX:
            raise LedgerUnavailable(f"{WAITING_MAX} requests for pages wait for the database")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, work, ledger)
        finally:
            self._waiting -= 1


def _has_failed(reading: asyncio.Future[Any]) -> bool:
    return reading.done() and (reading.cancelled() or reading.exception() is not None)
