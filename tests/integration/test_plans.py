"""Plans that are made while the ledger is small, and kept when it is not."""

from __future__ import annotations

from contextlib import closing

from sqlalchemy import Engine, text

from callgate.db.session import PostgresSession
from tests.contract.harness import a_success, open_postgres

WAITING = 2_000
WAIT = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, attempt)
SELECT gen_random_uuid(), 1, 'other', '', 'waiting', now() + interval '1 hour', 'chat', 'sim', 'sim-1', 1, 0
  FROM generate_series(1, :count)"""
READ = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'ix_llm_call_due'"


def test_settling_does_not_read_what_else_is_due(postgres_engine: Engine) -> None:
    """Its session has planned that before, when nothing waited; now many calls do."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        ledger = open_postgres(session)
        ledger.succeeded("first")
        with postgres_engine.begin() as connection:
            connection.execute(text(WAIT), {"count": WAITING})
        ref = ledger.answered("second")
        before = _read(session)

        ledger.settle(a_success(ref))

        assert _read(session) - before < WAITING / 2


def _read(session: PostgresSession) -> int:
    """Entries of the index of what is due that were read so far, by this session to its last statement."""
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(READ, {})[0].idx_tup_read)
