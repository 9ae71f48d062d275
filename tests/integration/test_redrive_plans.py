"""What redrives read of a large ledger, with plans that were made while it was small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallState
from callgate.domain.redrives import RedriveTerms
from callgate.domain.reports import CallFilter
from tests.contract.redrive_steps import dead, get, planned, redrives_of, released, started, take
from tests.support.ledger_under_test import LedgerUnderTest, open_postgres
from tests.support.tables import TRUNCATE

pytestmark = pytest.mark.usefixtures("statistics")
MANY = 20_000
ENDED = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, call_type, provider, model,
                      input_token_bound, attempt, attempt_id, error, end_reason, error_fingerprint, created_at)
SELECT gen_random_uuid(), 1, :org, sha256('x'), :state, 'extraction', 'sim', 'sim-1', 1, 1, gen_random_uuid(),
       CASE WHEN :state <> 'succeeded' THEN '{"code": "c"}' END, CASE WHEN :state <> 'succeeded' THEN 'c' END, 'other',
       now() - n * interval '1 s'
  FROM generate_series(1, :count) n"""
ATTEMPTS = """INSERT INTO ai_call_log (attempt_id, call_id, generation, attempt, org_id, input_hash, call_type,
    provider, model, status, hold_nano_usd, posted_nano_usd, posted_at, budget_ids, queue_ms, worker_id)
SELECT uuidv7(), gen_random_uuid(), 1, 1, 'o', sha256('x'), 't', 'p', 'm', 'succeeded', 5, 5, now(), '{}', 0, 'w'
  FROM generate_series(1, :count)"""
OTHER_REDRIVES = """WITH r AS (
    INSERT INTO redrive (id, selection, planned_by, state, ended_at, operator, reason, started_at)
    SELECT gen_random_uuid(), '{}', 'bob', 'done', now(), 'bob', 'why', now() FROM generate_series(1, 100) RETURNING id)
INSERT INTO redrive_call (redrive_id, number, call_id, generation, org_id, call_type, provider, model, state, outcome,
                          new_generation)
SELECT r.id, n, gen_random_uuid(), 1, 'o', 't', 'p', 'm', 'dead', 'succeeded', 2
  FROM r, generate_series(1, :count / 100) n"""
READ = """SELECT coalesce(sum(t.seq_tup_read), 0) + coalesce(sum(i.read), 0) FROM pg_stat_user_tables t
  LEFT JOIN (SELECT relname, sum(idx_tup_read) AS read FROM pg_stat_user_indexes GROUP BY 1) i USING (relname)
 WHERE t.relname ~ %(tables)s"""


@pytest.fixture
def small(postgres_engine: Engine) -> Iterator[tuple[LedgerUnderTest, PostgresSession]]:
    """A ledger on one connection that has seen a whole redrive while it was small."""
    with postgres_engine.begin() as connection:
        connection.execute(text(TRUNCATE))
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1, timeout_s=60)) as session:
        ledger = open_postgres(session)
        for n in range(6):
            contents = dead(ledger, f"early {n}")
            started(ledger)
            assert len(released(ledger, contents)) == 1
            ledger.age(2)
            take(ledger)
        yield ledger, session


def fill(engine: Engine) -> None:
    """Make the ledger large."""
    with engine.begin() as connection:
        for statement, values in (
            (ENDED, {"org": "acme", "state": "succeeded"}),
            (ENDED, {"org": "nova", "state": "dead"}),
            (ATTEMPTS, {}),
            (OTHER_REDRIVES, {}),
        ):
            connection.execute(text(statement), {"count": MANY, **values})


def read_by(session: PostgresSession, tables: str, work: Callable[[], object]) -> int:
    """How many entries of some tables and their indexes are read meanwhile, by this session."""

    def read() -> int:
        session.rows("SELECT pg_stat_force_next_flush()", {})
        return int(session.rows(READ, {"tables": tables})[0][0])

    before = read()
    work()
    return read() - before


def test_a_plan_reads_the_dead_calls_that_it_may_concern(
    postgres_engine: Engine, small: tuple[LedgerUnderTest, PostgresSession]
) -> None:
    """Not the calls that succeeded, nor those of others, nor what failed otherwise."""
    ledger, session = small
    dead(ledger, "a", "b")
    fill(postgres_engine)
    which = CallFilter(org_id="acme", state=CallState.DEAD)
    (fingerprint,) = {v.error_fingerprint for v in ledger.operations.dead_groups(which)}

    of_org = read_by(session, "^llm_call$", lambda: planned(ledger, which))
    of_kind = read_by(
        session,
        "^llm_call$",
        lambda: planned(ledger, CallFilter(state=CallState.DEAD, error_fingerprint=fingerprint)),
    )

    assert of_org < MANY / 20
    assert of_kind < MANY / 20


def test_a_step_reads_the_calls_of_its_redrive(
    postgres_engine: Engine, small: tuple[LedgerUnderTest, PostgresSession]
) -> None:
    """To price, to release, and to see what became of them: the others are not looked at."""
    ledger, session = small
    contents = dead(ledger, *(f"call {n}" for n in range(20)))
    fill(postgres_engine)
    which = CallFilter(org_id="acme", state=CallState.DEAD)

    pricing = read_by(session, "^(redrive_call|ai_call_log.*)$", lambda: planned(ledger, which))
    seen = started(ledger, which, terms=RedriveTerms(rate_per_min=60))
    releasing = read_by(session, "^(llm_call|submission)$", lambda: released(ledger, contents))
    ledger.age(20)
    watching = read_by(
        session, "^(redrive_call|llm_call|ai_call_log.*)$", lambda: released(ledger, contents)
    )

    assert get(ledger, seen.redrive_id).counts.released == 7
    for read in (pricing, releasing, watching):
        assert 0 < read < MANY / 20


def test_an_operators_list_reads_no_calls(
    postgres_engine: Engine, small: tuple[LedgerUnderTest, PostgresSession]
) -> None:
    """A redrive has its sums in its own row."""
    ledger, session = small
    fill(postgres_engine)
    read = read_by(session, "^redrive_call$", lambda: redrives_of(ledger).newest(limit=100))

    assert read == 0
