"""Workers beside clients that hold calls: no statement waits for one, and no two of them for each other."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import AttemptRef, CallKey
from callgate.domain.ledger import Locked, Reserved
from callgate.domain.reports import EndReason
from callgate.services.audit import audit
from tests.support.ledger_under_test import (
    LEASE_S,
    REAPER,
    LedgerUnderTest,
    a_loss,
    a_reserve,
    a_success,
    an_answer,
    holding,
    open_postgres,
)
from tests.support.logins import a_client
from tests.support.open_transaction import OpenTransaction

LENGTH_S = 4.0
DEAD = "host:1:dead"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
def impatient(postgres_engine: Engine) -> Iterator[LedgerUnderTest]:
    """A ledger whose statements wait for a lock for half a second, and are tried again for one and a half."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, timeout_s=1.5)) as session:
        yield open_postgres(session)


STATEMENTS: dict[str, Callable[[LedgerUnderTest, AttemptRef, AttemptRef], object]] = {
    "reserve": lambda w, r, a: w.reserve(a_reserve(r.key), a_reserve(a.key)),
    "record": lambda w, r, a: w.record(an_answer(r)),
    "settle": lambda w, r, a: w.ledger.settle([a_success(a)]),
    "settle as lost": lambda w, r, a: w.ledger.settle([a_loss(r)]),
    "due": lambda w, r, a: w.due(),
    "sweep": lambda w, r, a: w.ledger.take_lost_messages(limit=10, queued_before=w.now()),
    "expire": lambda w, r, a: w.leases.expire(REAPER.worker_id),
    "release": lambda w, r, a: w.leases.release(DEAD),
    "renew": lambda w, r, a: w.leases.renew(DEAD, LENGTH_S),
    "purge": lambda w, r, a: w.purge(),
    "cancel": lambda w, r, a: w.operations.end([r.key], code=EndReason.CANCELLED, message="x"),
    "set budget": lambda w, r, a: w.set_budget(2_000),
    "audit": lambda w, r, a: w.operations.snapshot(),
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_no_statement_waits_for_what_a_client_holds(
    impatient: LedgerUnderTest, statement: str
) -> None:
    """Calls in every state are held, and a new one is being made: all of it goes on, or is left alone."""
    impatient.leases.renew(DEAD, LENGTH_S)
    impatient.leases.renew(REAPER.worker_id, 86_400)
    queued, done = impatient.queued("queued"), impatient.succeeded("done")
    (outcome,) = impatient.reserve(a_reserve(impatient.queued("running"), worker_id=f"{DEAD}/1"))
    assert isinstance(outcome, Reserved)
    answered, waiting = impatient.answered("answered"), impatient.waiting("waiting")
    impatient.age(LEASE_S + 1)
    with ExitStack() as held:
        for key in (queued, outcome.ref.key, answered.key, waiting.key, done.key):
            held.enter_context(impatient.holding(key))

        STATEMENTS[statement](impatient, outcome.ref, answered)


def lock_at_random(url: str, keys: list[CallKey], seed: int, is_over: threading.Event) -> None:
    """Hold three of the calls at a time, as hostile clients do."""
    rng = random.Random(seed)  # noqa: S311
    while not is_over.is_set():
        with ExitStack() as held:
            for key in rng.sample(keys, 3):
                held.enter_context(holding(url, key))
            is_over.wait(0.01)


def work_at_random(ledger: LedgerUnderTest, keys: list[CallKey], seed: int) -> None:
    """Claim, record, settle, take what is due, renew and release leases."""
    rng = random.Random(seed)  # noqa: S311
    for n in range(25):
        batch = rng.sample(keys, 8)
        claims = [a_reserve(k, 10, worker_id=f"host:{seed}:w/{n}") for k in batch]
        made = [o.ref for o in ledger.reserve(*claims) if isinstance(o, Reserved)]
        if made:
            ledger.record(*map(an_answer, made))
            ledger.ledger.settle([a_success(ref, 7) for ref in made])
        ledger.due()
        ledger.leases.renew(f"host:{seed}:w", LENGTH_S)
        ledger.leases.release(f"host:{rng.randrange(3)}:w")


def settle_the_rest(ledger: LedgerUnderTest, keys: list[CallKey]) -> None:
    """Post every attempt that is not posted yet."""
    for _ in range(10):
        for key in keys:
            view = ledger.view(key)
            if view.last is not None and not view.last.status.is_posted:
                with suppress(AssertionError):
                    ledger.settle(a_success(AttemptRef(key, view.last.attempt_id), 7))


def test_locks_that_clients_take_at_random_cause_no_deadlock_and_cost_nothing(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """Three workers meet locks that come and go. In the end every attempt is posted once."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    ledger.set_budget(100_000)
    keys = [ledger.queued(f"page {n}") for n in range(40)]
    with postgres_engine.connect() as connection:
        before = connection.scalar(text(DEADLOCKS))
    is_over = threading.Event()

    with ThreadPoolExecutor(5) as pool:
        locking = [pool.submit(lock_at_random, url, keys, seed, is_over) for seed in range(2)]
        try:
            for future in [pool.submit(work_at_random, ledger, keys, seed) for seed in range(3)]:
                future.result()
        finally:
            is_over.set()
        for future in locking:
            future.result()

    ledger.age(LEASE_S + 1)
    settle_the_rest(ledger, keys)
    assert audit(ledger.operations).is_clean
    begun = [view for view in map(ledger.view, keys) if view.attempt]
    assert ledger.figures() == (0, 7 * len(begun))
    assert {view.attempt for view in begun} == {1}
    with postgres_engine.connect() as connection:
        assert connection.scalar(text(DEADLOCKS)) == before


def test_a_tenant_cannot_hold_what_is_not_its_own(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """A cancellation that names others' calls locks none of them."""
    mine = ledger.queued("mine")
    url = postgres_engine.url.render_as_string(hide_password=False)
    with (
        closing(PostgresSession(url)) as owner,
        a_client(owner, "hostile") as its_url,
        create_engine(its_url, poolclass=NullPool).begin() as connection,
    ):
        its = PostgresOperations(OpenTransaction(connection))
        assert its.end([mine], code=EndReason.CANCELLED, message="x") == []
        (outcome,) = ledger.reserve(a_reserve(mine))
        assert not isinstance(outcome, Locked)
