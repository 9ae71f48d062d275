"""A long line of calls that cannot run costs little: what is read does not grow with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.pauses import PauseKey
from callgate.domain.reports import By
from tests.contract.concurrency_steps import allow, in_line
from tests.contract.flow_steps import released, sent, succeeds
from tests.support.ledger_under_test import ORG, open_postgres

pytestmark = pytest.mark.usefixtures("statistics")
SHORT, LONG = 200, 10_000
BY = By("ann", "they leak")
FILL = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, attempt, wait_reason, wait_until, is_in_line)
SELECT gen_random_uuid(), 1, :org, sha256('x'), 'waiting', now() + interval '1 hour', 'extraction', 'leaky', 'm-1',
       1, 0, 'concurrency_limited', now() + interval '1 hour', true
  FROM generate_series(1, :count)"""
READ = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'llm_call'"


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """One connection, whose plans were made when nothing waited."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        yield session


@pytest.mark.parametrize(
    "key",
    [
        PauseKey(),
        PauseKey(org_id=ORG),
        PauseKey(call_type="extraction"),
        PauseKey(provider="leaky"),
        PauseKey(model="m-1"),
    ],
    ids=str,
)
def test_paused_calls_in_line_are_not_read(
    session: PostgresSession, postgres_engine: Engine, key: PauseKey
) -> None:
    """Neither by a settlement that frees a place nor by the due query, however many they are."""
    ledger = open_postgres(session)
    allow(ledger, {"": 3})
    refs = [sent(ledger, f"runs {n}", call_type="summary") for n in range(3)]
    (waiting,) = in_line(ledger, "waits", call_type="summary")
    ledger.operations.pause(key, by=BY)
    read = []
    for count in (SHORT, LONG - SHORT):
        with postgres_engine.begin() as connection:
            connection.execute(text(FILL), {"org": ORG, "count": count})
        read.append(_read_by(session, partial(succeeds, ledger, refs.pop())))
        read.append(_read_by(session, partial(released, ledger)))

    is_covered = key in (PauseKey(), PauseKey(org_id=ORG))
    assert (ledger.view(waiting).wait_reason is None) is not is_covered
    assert max(read[2:]) < max(read[:2]) + LONG / 20


def _read_by(session: PostgresSession, do: Callable[[], object]) -> int:
    before = _read(session)
    do()
    return _read(session) - before


def _read(session: PostgresSession) -> int:
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(READ, {})[0][0] or 0)
