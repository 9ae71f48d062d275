"""Batches that meet at breakers: one order of locks, so none waits for another in a circle."""

from __future__ import annotations

import threading
from contextlib import closing

from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.breaker import Health
from callgate.domain.ledger import Reserved, ReserveOutcome
from tests.support.ledger_under_test import a_failure, a_reserve, an_answer, open_postgres

ROUNDS = 3
MODELS = 30
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


def deadlocks(engine: Engine) -> int:
    """How many there were in this database so far."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))
        return int(connection.execute(text(DEADLOCKS)).scalar_one())


def test_two_batches_make_the_same_breakers(postgres_engine: Engine) -> None:
    """Calls to models nobody has called yet, in opposite orders: all are claimed, without a deadlock."""
    before = deadlocks(postgres_engine)
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url)) as session:
        ledger = open_postgres(session)
        ledger.set_budget(1_000, org_id="other")
        batches = [
            [
                [
                    a_reserve(
                        ledger.queued(f"{round_no}-{n}", org_id=org, model=f"{round_no}-{n}"), 1
                    )
                    for n in order
                ]
                for org, order in (("acme", range(MODELS)), ("other", range(MODELS)[::-1]))
            ]
            for round_no in range(ROUNDS)
        ]
        outcomes: list[ReserveOutcome] = []
        start = threading.Barrier(2)

        def claim(side: int) -> None:
            for pair in batches:
                start.wait(30)
                outcomes.extend(ledger.reserve(*pair[side]))

        threads = [threading.Thread(target=claim, args=(side,)) for side in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert [type(outcome) for outcome in outcomes] == [Reserved] * (2 * ROUNDS * MODELS)
    assert deadlocks(postgres_engine) == before


def test_claims_and_failures_meet_at_the_same_breakers(postgres_engine: Engine) -> None:
    """Two organisations fail and claim at once, in opposite orders, own breakers open and close: no deadlock."""
    before = deadlocks(postgres_engine)
    url = postgres_engine.url.render_as_string(hide_password=False)
    orgs = ("acme", "other")
    with closing(PostgresSession(url)) as session:
        ledger = open_postgres(session)
        for org in orgs:
            ledger.set_budget(1_000_000, org_id=org)
        outcomes: list[ReserveOutcome] = []
        start = threading.Barrier(2)

        def work(side: int) -> None:
            order = range(MODELS)[:: 1 - 2 * side]
            for round_no in range(ROUNDS):
                keys = [
                    ledger.queued(f"{round_no}-{n}-{side}", org_id=org, model=f"m{n}")
                    for n in order
                    for org in orgs[:: 1 - 2 * side]
                ]
                start.wait(30)
                made = ledger.reserve(*(a_reserve(key, 1) for key in keys))
                outcomes.extend(made)
                refs = [one.ref for one in made if isinstance(one, Reserved)]
                ledger.record(*(an_answer(ref) for ref in refs))
                failed = [a_failure(r, health=Health.FAILED, failure_code="x") for r in refs]
                ledger.settle(*failed)

        threads = [threading.Thread(target=work, args=(side,)) for side in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert len(outcomes) == 2 * ROUNDS * MODELS * len(orgs)
    assert deadlocks(postgres_engine) == before
