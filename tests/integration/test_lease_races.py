"""Leases while calls move and statements stand still: what only a database with several sessions can show."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallState
from callgate.domain.errors import LedgerUnavailable
from callgate.domain.ledger import Reaper, Reserved
from tests.support.ledger_under_test import LEASE_S, LedgerUnderTest, a_loss, a_reserve
from tests.support.waiting import until

DEAD = "host:1:dead"


def test_a_call_that_moves_on_is_left_to_its_new_worker(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """The dead worker's attempt is being posted while its lease is released: what runs then is another's."""
    ledger.leases.renew(DEAD, 8)
    (old,) = ledger.reserve(a_reserve(ledger.queued(), worker_id=f"{DEAD}/1"))
    assert isinstance(old, Reserved)
    due_at = ledger.view(old.ref).due_at
    with postgres_engine.begin() as mover:
        mover.execute(text("SELECT 1 FROM llm_call FOR UPDATE"))
        ledger.leases.release(DEAD)
        mover.execute(
            text(
                "UPDATE ai_call_log SET status = 'unknown', posted_nano_usd = 0, posted_at = now()"
            )
        )
    ledger.leases.release(DEAD)

    assert ledger.view(old.ref).due_at == due_at
    with postgres_engine.connect() as watcher:
        assert watcher.scalar(text("SELECT count(*) FROM worker_lease")) == 0


def test_leases_are_released_while_their_calls_are_settled(ledger: LedgerUnderTest) -> None:
    """Releases and postings of the same calls meet in every order; nobody deadlocks, and every attempt is posted."""
    refs = []
    for n in range(40):
        (outcome,) = ledger.reserve(
            a_reserve(ledger.queued(f"page {n}"), 10, worker_id=f"host:{n % 4}:dead/{n}")
        )
        assert isinstance(outcome, Reserved)
        refs.append(outcome.ref)
    batches = [refs[start::3] for start in range(3)]

    with ThreadPoolExecutor(8) as pool:
        work: list[Future[Any]] = [
            *(
                pool.submit(ledger.settle, *[a_loss(ref, 10) for ref in reversed(b)])
                for b in batches
            ),
            *(pool.submit(ledger.leases.release, f"host:{n}:dead") for n in range(4)),
            pool.submit(ledger.due),
        ]
        for future in work:
            future.result()

    assert ledger.figures() == (0, 400)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop one process of Postgres, as a host that is suspended stops all of them."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("renewed", ["by nobody", "before it runs"])
def test_a_due_query_that_outlived_its_sender_calls_nothing_lost(
    ledger: LedgerUnderTest,
    postgres_engine: Engine,
    renewed: str,
) -> None:
    """Postgres stops with it in flight and runs it when it goes on, by the lease of then: no outage makes UNKNOWN."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    lease_s, reaper = 2.0, Reaper("host:2:judge", 60.0)
    ref, waiting = ledger.running("running"), ledger.waiting("waiting")
    ledger.leases.renew(reaper.worker_id, lease_s)
    ledger.age(LEASE_S + 1)
    ledger.leases.renew(reaper.worker_id, lease_s)
    with postgres_engine.begin() as connection:
        connection.execute(text("UPDATE worker_lease SET stable_since = now() - interval '1 hour'"))

    with closing(PostgresSession(url, timeout_s=0.3, pool_size=1)) as session:
        (row,) = session.rows("SELECT pg_backend_pid() AS pid", {})
        with stopped(row.pid):
            with pytest.raises(LedgerUnavailable):
                PostgresLedger(session).take_due(limit=100, reaper=reaper)
            time.sleep(lease_s / 2)
            if renewed == "before it runs":
                ledger.leases.renew(reaper.worker_id, lease_s)
        until(lambda: ledger.view(waiting.key).state is CallState.QUEUED)

    view = ledger.view(ref)
    assert (view.state, view.error) == (CallState.RUNNING, None)
    ledger.leases.renew(reaper.worker_id, lease_s)
    with postgres_engine.begin() as connection:
        connection.execute(text("UPDATE worker_lease SET stable_since = now() - interval '1 hour'"))
    (due,) = ledger.ledger.take_due(limit=100, reaper=reaper).items
    assert due.attempt_id == ref.attempt_id
