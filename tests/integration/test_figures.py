"""The figures of the ledger in Postgres: cheap on a large ledger, read by one session, and for two roles."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.figures import PostgresFigures
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain import metrics
from callgate.domain.errors import NotPermitted
from tests.support.ledger_under_test import LedgerUnderTest, open_postgres
from tests.support.logins import a_login

MANY = 3_000
ENDED_CALLS = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, call_type, provider, model,
    input_token_bound, attempt, attempt_id)
SELECT gen_random_uuid(), 1, 'o', sha256('x'), 'succeeded', 't', 'p', 'm', 1, 1, gen_random_uuid()
  FROM generate_series(1, :count)"""
POSTED_ATTEMPTS = """INSERT INTO ai_call_log (attempt_id, call_id, generation, attempt, org_id, input_hash, call_type,
    provider, model, status, hold_nano_usd, posted_nano_usd, posted_at, budget_ids, queue_ms, worker_id)
SELECT uuidv7(), gen_random_uuid(), 1, 1, 'o', sha256('x'), 't', 'p', 'm', 'succeeded', 5, 5, now(), '{}', 0, 'w'
  FROM generate_series(1, :count)"""
PAST_BUDGETS = """INSERT INTO budget (org_id, scope, "window", starts_at, ends_at, limit_nano_usd)
SELECT 'o', 'org', 'day', now() - (n + 10) * interval '1 day', now() - (n + 9) * interval '1 day', 1
  FROM generate_series(1, :count) n"""
ROWS_READ = """SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) AS count FROM pg_stat_user_tables
 WHERE relname = ANY (ARRAY['llm_call', 'budget']) OR relname LIKE 'ai\\_call\\_log\\_%%'"""


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """A session on a ledger with one of everything that figures count."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        yield session


@pytest.fixture
def ledger(session: PostgresSession) -> LedgerUnderTest:
    """The ledger of the session."""
    return open_postgres(session)


def rows_read(session: PostgresSession) -> int:
    """Rows that were read so far, by this session to its last statement."""
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(ROWS_READ, {})[0][0])


@pytest.mark.usefixtures("statistics")
def test_figures_do_not_read_what_has_ended(
    postgres_engine: Engine, session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Calls that ended, posted attempts and budgets of the past are many."""
    ledger.running("under way")
    ledger.queued("queued")
    ledger.lost("lost")
    with postgres_engine.begin() as connection:
        for statement in (ENDED_CALLS, POSTED_ATTEMPTS, PAST_BUDGETS):
            connection.execute(text(statement), {"count": MANY})
        # Else Postgres counts these rows some time later.
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    before = rows_read(session)

    found = PostgresFigures(session).read_figures(interval_s=0, orgs_max=5)

    assert rows_read(session) - before < 100
    values = {(figure.name, figure.labels): figure.value for figure in found.figures}
    assert values[metrics.CALLS.name, ("running", "")] == 1
    assert values[metrics.UNKNOWN_BILLS.name, ()] == 1


def test_a_session_that_reads_them_delays_no_other(
    postgres_engine: Engine, session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """The others get those that are there, however old."""
    figures = PostgresFigures(session)
    first = figures.read_figures(interval_s=0, orgs_max=5)
    ledger.queued()
    with postgres_engine.begin() as other:
        other.execute(text("SELECT 1 FROM ledger_figures FOR UPDATE"))
        began = time.monotonic()
        second = figures.read_figures(interval_s=0, orgs_max=5)
        assert time.monotonic() - began < 2

    third = figures.read_figures(interval_s=0, orgs_max=5)

    assert (second.read_at, second.figures) == (first.read_at, first.figures)
    assert third.read_at > first.read_at


@pytest.mark.parametrize(
    ("role", "is_allowed"), [(WORKER, True), (DASHBOARD, True), (CLIENT, False)]
)
def test_workers_and_dashboards_may_read_them(
    session: PostgresSession, role: str, is_allowed: bool
) -> None:
    with a_login(session.url, role) as url, closing(PostgresSession(url, pool_size=1)) as own:
        figures = PostgresFigures(own)
        if is_allowed:
            assert figures.read_figures(interval_s=0, orgs_max=5).figures
        else:
            with pytest.raises(NotPermitted):
                figures.read_figures(interval_s=0, orgs_max=5)


@pytest.mark.usefixtures("statistics")
def test_recent_ends_do_not_read_what_is_older(
    postgres_engine: Engine, session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """One organisation has many calls; a few of the newest are read."""
    ledger.dead()
    with postgres_engine.begin() as connection:
        connection.execute(text(ENDED_CALLS), {"count": MANY})
    before = rows_read(session)

    (end,) = ledger.operations.recent_ends(orgs_max=500, calls_max=20, age_s=3_600.0)

    assert (end.state, end.calls) == ("dead", 1)
    assert rows_read(session) - before < 100
