"""What a call costs, and what workers do every few seconds, does not grow with the history of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import count

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.budgets import Window
from callgate.domain.reports import By
from callgate.services.audit import audit
from devkit.seed.history import Plan, seed
from devkit.servers.embedded import DevServers
from tests.contract.alert_steps import look
from tests.support.ledger_under_test import (
    LEASE_S,
    LedgerUnderTest,
    a_failure,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
    open_postgres,
)
from tests.support.statistics import forgotten
from tests.support.tables import EMPTY

PLAN = Plan(rows=20_000, calls=5_000, days=60, orgs=12)
ORG = "org-0001"
"""The largest of the history."""
READ = """
SELECT sum(n)::bigint AS counted FROM (
    SELECT seq_tup_read AS n FROM pg_stat_user_tables UNION ALL SELECT idx_tup_read FROM pg_stat_user_indexes) x"""
FOR_LISTS = """
SELECT coalesce(sum(idx_scan), 0)::bigint AS counted FROM pg_stat_user_indexes WHERE indexrelname IN (
    'ix_llm_call_created', 'ix_llm_call_stuck', 'ix_llm_call_stuck_org', 'ix_llm_call_reason',
    'ix_llm_call_fingerprint', 'ix_llm_call_dead_attempt', 'ix_llm_call_dead_group', 'ix_llm_call_discarded_group',
    'ix_llm_call_rejected_group')"""
"""Indexes of the lists of calls. They hold calls of all kinds, so a plan that walks along one may read all calls."""
READ_MORE_MAX = 1.6
"""Entries of rows that are gone already count too. Who reads the history reads fifty times as much."""
_numbers = count()
Ask = Callable[[LedgerUnderTest], object]


def lives(ledger: LedgerUnderTest, *, size: int, fails: bool = False) -> None:
    """Bring ten calls from submission to settlement, `size` at a time."""
    for _ in range(10 // size):
        batch = [a_submission(f"life {next(_numbers)}", org_id=ORG) for _ in range(size)]
        refs = [ledger.claim(answer.key) for answer in ledger.submit(*batch)]
        ledger.record(*(an_answer(ref) for ref in refs))
        ledger.settle(*((a_failure if fails else a_success)(ref) for ref in refs))


SAME: dict[str, Ask] = {
    "calls one by one": lambda x: lives(x, size=1),
    "calls in batches": lambda x: lives(x, size=10),
    "calls that fail": lambda x: lives(x, size=5, fails=True),
    "due": lambda x: x.due(),
    "sweep": lambda x: x.ledger.take_lost_messages(limit=100, queued_before=datetime.now(UTC)),
    "links": lambda x: x.links(),
    "a lease": lambda x: x.leases.renew("host:1:worker", LEASE_S),
    "expired leases": lambda x: x.leases.expire("host:9:reaper"),
}
"""Reads no more of a long ledger than of an empty one."""
LITTLE: dict[str, Ask] = {
    "sums": lambda x: x.sums.fold_sums(limit=1_000),
    "figures": lambda x: x.ledger_figures.current_figures(orgs_max=100),
    "alerts": lambda x: look(x),
    "budgets": lambda x: x.operations.budgets(ORG),
}
"""Reads something of each organisation."""


@pytest.fixture(scope="module")
def session(services: DevServers) -> Iterator[PostgresSession]:
    """Of a ledger that is empty first."""
    empty(services)
    with (
        forgotten(engine_of(services)),
        closing(PostgresSession(services.database_url, pool_size=1)) as session,
    ):
        yield session
    empty(services)


@pytest.fixture(scope="module")
def of_empty(services: DevServers, session: PostgresSession) -> dict[str, int]:
    """What is read of an empty ledger. Then it has a history."""
    read = {name: read_by(session, ask) for name, ask in SAME.items()}
    empty(services)
    seed(engine_of(services), PLAN)
    assert audit(PostgresOperations(session)).is_clean
    return read


@pytest.mark.parametrize("name", SAME)
def test_history_is_not_read(session: PostgresSession, of_empty: dict[str, int], name: str) -> None:
    """Rows and entries of all tables and indexes, with plans of before and with new ones."""
    with closing(PostgresSession(session.url, pool_size=1)) as new:
        for which in (session, new):
            assert read_by(which, SAME[name]) <= of_empty[name] * READ_MORE_MAX


def test_what_workers_do_uses_no_index_of_the_lists(
    session: PostgresSession, of_empty: dict[str, int]
) -> None:
    """What they do says nothing of generations, which these indexes ask for."""
    ledger = open_postgres(session)
    ledger.set_budget(1, org_id="poor")
    ledger.reserve(a_reserve(ledger.queued("waits for money", org_id="poor"), 1))
    before = _counted(session, FOR_LISTS)

    for ask in SAME.values():
        ask(ledger)

    assert _counted(session, FOR_LISTS) == before


@pytest.mark.usefixtures("of_empty")
@pytest.mark.parametrize("name", LITTLE)
def test_little_history_is_read(session: PostgresSession, services: DevServers, name: str) -> None:
    """Of each organisation the same, and a row for each day of its month, however long its history is."""
    open_postgres(session).sums.fold_sums(limit=10_000)
    with engine_of(services).connect() as connection:
        # Entries of attempts that other tests have ended are no history.
        connection.execute(text("VACUUM ai_call_log, llm_call"))

    assert read_by(session, LITTLE[name]) < PLAN.orgs * (20 + 31)


def read_by(session: PostgresSession, ask: Ask) -> int:
    """How many rows and entries of indexes are read, of all tables, once its plans are made."""
    ledger = open_postgres(session)
    for window in Window:
        # As those of the history.
        ledger.set_budget(10**15, org_id=ORG, window=window)
    ask(ledger)
    ledger.operations.set_breaker(
        "openai", "gpt-4o-mini", "", is_open=False, by=By("test", "it answers")
    )
    before = _counted(session, READ)
    ask(ledger)
    return _counted(session, READ) - before


def _counted(session: PostgresSession, statistics: str) -> int:
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(statistics, {})[0].counted)


def engine_of(services: DevServers) -> Engine:
    """Connections in autocommit."""
    return create_engine(services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


def empty(services: DevServers) -> None:
    """Empty the ledger."""
    with engine_of(services).connect() as connection:
        connection.exec_driver_sql(f"BEGIN; {EMPTY}; COMMIT")
