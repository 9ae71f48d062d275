"""Batches that meet at breakers: one order of locks, so none waits for another in a circle."""

from __future__ import annotations

import threading
from contextlib import closing

from sqlalchemy import Engine, text

from callgate.db.session import PostgresSession
from callgate.domain.ledger import Reserved, ReserveOutcome
from tests.contract.harness import a_reserve, open_postgres

ROUNDS = 3
MODELS = 30
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


def test_two_batches_make_the_same_breakers(postgres_engine: Engine) -> None:
    """Calls to models nobody has called yet, in opposite orders: all are claimed, without a deadlock."""
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

    with postgres_engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))
        deadlocks = connection.execute(text(DEADLOCKS)).scalar_one()
    assert [type(outcome) for outcome in outcomes] == [Reserved] * (2 * ROUNDS * MODELS)
    assert deadlocks == 0
