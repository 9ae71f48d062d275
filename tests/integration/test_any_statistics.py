"""
What a call reads does not grow with calls that wait, whatever Postgres knows of the table of calls.

Its statistics describe how the table was when they were taken. Here that is anything: other organisations, other
states, before all rows went. Then thousands of calls wait, and one call is claimed, answered, settled and read.
(A submission counts the open calls of its organisation: `tests/integration/test_open_calls.py`.)
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallState
from callgate.domain.ledger import Reserved
from tests.support.ledger_under_test import (
    DAY_S,
    ORG,
    a_reserve,
    a_success,
    an_answer,
    open_postgres,
)
from tests.support.many_calls import WAIT
from tests.support.statistics import WAITS, forgotten, take_statistics

WAITING = 3_000
READ_MAX = WAITING / 4
FREED_MAX = 1_000
"""A settlement frees so many calls that wait for a place, if there is room."""
READ = """SELECT indexrelname AS name, idx_tup_read AS found
  FROM pg_stat_user_indexes WHERE relname IN ('llm_call', 'submission')"""
SEEDS = (7, 8, 11, 14, 19, 23, 32, 37)
"""With 11 and 32 claims read all rows, before orders named the index and joins were nested loops."""


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """One connection of the owner."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with forgotten(postgres_engine), closing(PostgresSession(url, pool_size=1)) as session:
        yield session


def read(session: PostgresSession) -> dict[str, int]:
    """Rows that were found by each index."""
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return {row.name: int(row.found) for row in session.rows(READ, {})}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_call_reads_no_call_that_waits(
    session: PostgresSession, postgres_engine: Engine, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - cases, not secrets
    take_statistics(postgres_engine, rng)
    ledger = open_postgres(session)
    ledger.leases.renew("host:1:w", DAY_S, 10)
    for name in ("first", "second"):
        ledger.queued(f"rival of {name}", org_id="bolt")
        ledger.reserve(a_reserve(ledger.queued(name), 1))
    with postgres_engine.begin() as connection:
        for org in (ORG, "bolt"):
            rows = {"org": org, "wait": rng.choice(WAITS), "count": WAITING}
            connection.execute(text(WAIT), rows)
    key = ledger.queued("third")
    before = read(session)

    (outcome,) = ledger.reserve(a_reserve(key, 1))
    claimed = read(session)
    assert excess(before, claimed) == {}

    assert isinstance(outcome, Reserved)
    ledger.record(an_answer(outcome.ref))
    ledger.settle(a_success(outcome.ref))
    assert ledger.state(key) is CallState.SUCCEEDED
    assert excess(claimed, read(session), FREED_MAX + READ_MAX) == {}


def excess(
    before: dict[str, int], after: dict[str, int], read_max: float = READ_MAX
) -> dict[str, int]:
    """The indexes that have given more rows than a call needs."""
    reads = {name: count - before[name] for name, count in after.items()}
    return {name: count for name, count in reads.items() if count > read_max}
