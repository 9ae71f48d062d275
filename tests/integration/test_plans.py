"""Plans that are made while the ledger is small, and kept when it is not."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from callgate.domain.short_ids import read_short_id
from callgate.domain.unknown import UnknownFilter
from tests.support.ledger_under_test import LIMIT, ORG, a_reserve, a_success, open_postgres
from tests.support.tables import TRUNCATE

pytestmark = pytest.mark.usefixtures("nothing_is_known")
WAITING = 2_000
WAIT = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, attempt, wait_reason, requested_hold_nano_usd)
SELECT gen_random_uuid(), 1, :org, sha256('x'), 'waiting', now() + interval '1 hour', 'extraction', 'sim', 'sim-1', 1,
       0, 'budget_held', :hold
  FROM generate_series(1, :count)"""
READ = "SELECT sum(idx_tup_read) AS count FROM pg_stat_user_indexes WHERE indexrelname LIKE %(indexes)s"


@pytest.fixture(autouse=True)
def _no_deleted_rows(postgres_engine: Engine) -> None:
    with postgres_engine.begin() as connection:
        connection.execute(text(TRUNCATE))


def test_settling_does_not_read_what_else_is_due(postgres_engine: Engine) -> None:
    """Its session has planned that before, when nothing waited; now many calls do."""
    assert read_while_many_wait(postgres_engine, "ix_llm_call_due", org="other") < WAITING / 2


@pytest.mark.parametrize("hold", [1, LIMIT + 1])
def test_freed_headroom_is_not_offered_to_all_that_wait(postgres_engine: Engine, hold: int) -> None:
    """Whether all of them fit or none does."""
    read = read_while_many_wait(postgres_engine, "%requested_hold", org=ORG, hold=hold)

    assert 0 < read < WAITING / 2


def read_while_many_wait(engine: Engine, indexes: str, **what: object) -> int:
    """How many entries of some indexes one settlement reads."""
    url = engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        ledger = open_postgres(session)
        ledger.succeeded("first")
        with engine.begin() as connection:
            connection.execute(text(WAIT), {"count": WAITING, "hold": None, **what})
        ref = ledger.answered("second")
        before = _read(session, indexes)
        ledger.settle(a_success(ref))
        return _read(session, indexes) - before


def _read(session: PostgresSession, indexes: str) -> int:
    """Entries that were read so far, by this session to its last statement."""
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(READ, {"indexes": indexes})[0][0])


MANY_ATTEMPTS = """INSERT INTO ai_call_log (attempt_id, call_id, generation, attempt, org_id, input_hash, call_type,
    provider, model, status, hold_nano_usd, posted_nano_usd, posted_at, budget_ids, queue_ms, worker_id, error_json)
SELECT uuidv7(), gen_random_uuid(), 1, 1, 'o', sha256('x'), 't', 'p', 'm', 'succeeded', 5, 5, now(), '{}', 0, 'w',
       repeat('x', 200) FROM generate_series(1, :count)"""
READ_ALONG = """SELECT sum(seq_tup_read) AS count FROM pg_stat_user_tables
 WHERE relname LIKE 'ai\\_call\\_log\\_____\\___'"""


def test_looking_for_unknown_bills_does_not_read_the_known_ones(postgres_engine: Engine) -> None:
    """Operators and their doctor look often; the log is long, and such bills are few."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        ledger = open_postgres(session)
        ref = ledger.lost()
        with postgres_engine.begin() as connection:
            connection.execute(text(MANY_ATTEMPTS), {"count": WAITING})
        session.rows("SELECT pg_stat_force_next_flush()", {})
        before = session.rows(READ_ALONG, {})[0].count

        (bill,) = ledger.operations.unknown_bills(UnknownFilter(provider="openai"), limit=10)

        session.rows("SELECT pg_stat_force_next_flush()", {})
        assert bill.attempt_id == ref.attempt_id
        assert session.rows(READ_ALONG, {})[0][0] - before < WAITING / 2


MANY_UNTOLD = """WITH made AS (
    INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, call_type, provider, model, input_token_bound,
                          request, error, end_reason)
    SELECT gen_random_uuid(), 1, :org, sha256('x'), 'rejected', 't', 'p', 'm', 1, 'x', '{}', 'cancelled'
      FROM generate_series(1, :count) RETURNING call_id, org_id
), linked AS (
    INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, link)
    SELECT gen_random_uuid(), org_id, call_id, 1, 'created', '{}' FROM made
)
INSERT INTO undelivered_call SELECT call_id, 1, org_id, now() FROM made"""
TOUCHED = """SELECT sum(idx_tup_read + seq_tup_read) AS count FROM pg_stat_user_tables
  JOIN (SELECT relname AS name, sum(idx_tup_read) AS idx_tup_read FROM pg_stat_user_indexes GROUP BY 1) i
    ON name = relname
 WHERE relname = ANY (%(tables)s)"""


@pytest.mark.parametrize("ask", ["due", "sweep", "links", "links of one call"])
def test_nobody_wades_through_calls_that_wait_for_delivery(
    postgres_engine: Engine, ask: str
) -> None:
    """Recovery does not read them at all; delivery reads what it takes. The plans were made when there were none."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        ledger, now = open_postgres(session), datetime.now(UTC)
        key = ledger.rejected("early", link="{}")
        asks = {
            "due": lambda: ledger.due(),
            "sweep": lambda: ledger.ledger.take_lost_messages(limit=100, queued_before=now),
            "links": lambda: ledger.links(limit=10),
            "links of one call": lambda: ledger.links(keys=[key]),
        }
        key = ledger.rejected("early", link="{}")
        for first in asks.values():
            first()
        with postgres_engine.begin() as connection:
            connection.execute(text(MANY_UNTOLD), {"count": WAITING, "org": "other"})
        before = _touched(session)
        asks[ask]()

        assert _touched(session) - before < WAITING / 4


def _touched(session: PostgresSession) -> int:
    """Rows and entries that were read so far of calls, and of what they have to tell."""
    session.rows("SELECT pg_stat_force_next_flush()", {})
    tables = {"tables": ["llm_call", "submission", "undelivered_call"]}
    return int(session.rows(TOUCHED, tables)[0][0])


PAUSED = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, attempt, wait_reason, wait_until)
SELECT gen_random_uuid(), 1, 'other', sha256('x'), 'waiting', now() + interval '1 hour', 'extraction', 'sim', 'sim-1',
       1, 0, 'paused', now() + interval '1 hour'
  FROM generate_series(1, :count)"""


def test_calls_that_stay_paused_are_not_read(postgres_engine: Engine) -> None:
    """The due query looks every second for calls that no pause covers any more, and reads only those."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        ledger = open_postgres(session)
        by = By("ann", "they leak")
        ledger.operations.pause(PauseKey(org_id="other"), by=by)
        ledger.operations.pause(PauseKey(org_id=ORG), by=by)
        ledger.due()
        with postgres_engine.begin() as connection:
            connection.execute(text(PAUSED), {"count": WAITING})
        key = ledger.queued("mine")
        ledger.reserve(a_reserve(key))
        before = _read(session, "ix_llm_call%")

        ledger.operations.resume(PauseKey(org_id=ORG), by=by)

        assert [due.key for due in ledger.due(expire=False)] == [key]
        assert 0 < _read(session, "ix_llm_call%") - before < WAITING / 2


MANY_CALLS = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider,
                      model, input_token_bound, attempt)
SELECT (CASE WHEN n <= 3 THEN 'abcdef00' ELSE left(md5(n::text), 8) END || substr(md5(n::text), 9))::uuid, 1,
       'o', sha256('x'), 'queued', now() + interval '1 hour', 'extraction', 'sim', 'sim-1', 1, 0
  FROM generate_series(1, :count) n"""


def test_a_short_id_is_found_along_the_primary_key(postgres_engine: Engine) -> None:
    """The other calls are not read. The plan was made when there were none."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        ledger, short = open_postgres(session), read_short_id("abcdef00")

        def ask() -> int:
            return len(ledger.operations.call_ids(short.first, short.last, limit=10))

        assert [ask() for _ in range(7)] == [0] * 7
        with postgres_engine.begin() as connection:
            connection.execute(text(MANY_CALLS), {"count": WAITING})
        before = _read(session, "%llm_call%"), _touched(session)

        assert ask() == 3
        assert _read(session, "%llm_call%") - before[0] <= 10
        assert _touched(session) - before[1] <= 20


INDEXED = """SELECT coalesce(sum(idx_tup_read), 0) AS count FROM pg_stat_user_indexes
 WHERE relname LIKE 'ai\\_call\\_log\\_____\\___'"""


@pytest.mark.parametrize("org_id", ["o", "nobody"])
def test_history_is_read_by_index_and_only_the_newest_part(
    postgres_engine: Engine, org_id: str
) -> None:
    """Whether the organisation has most of the log or nothing of it. The plan was made when the log was empty."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        ledger = open_postgres(session)

        def ask() -> int:
            lines = ledger.operations.spending([org_id], days=30, attempts_max=100)
            return sum(line.attempts for line in lines)

        assert [ask() for _ in range(7)] == [0] * 7
        with postgres_engine.begin() as connection:
            connection.execute(text(MANY_ATTEMPTS), {"count": WAITING})
        session.rows("SELECT pg_stat_force_next_flush()", {})
        before = [session.rows(query, {})[0][0] for query in (READ_ALONG, INDEXED)]

        found = ask()

        session.rows("SELECT pg_stat_force_next_flush()", {})
        after = [session.rows(query, {})[0][0] for query in (READ_ALONG, INDEXED)]
        assert found == (100 if org_id == "o" else 0)
        assert after[0] == before[0]
        assert after[1] - before[1] <= 200
