"""A search for calls walks along an index, and looks at a bounded number of calls, whatever it asks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.call_pages import PageOf
from callgate.domain.calls import CallState
from callgate.domain.reports import CallFilter
from devkit.seed.history import Plan, seed
from devkit.servers.embedded import DevServers
from tests.support.statistics import count_all, forgotten
from tests.support.tables import EMPTY

PLAN = Plan(rows=9_000, calls=6_000, days=9, orgs=12, dead_share=0.3)
LOOKED_MAX = 200
PAGE = PageOf(20, looked_max=LOOKED_MAX)
OPEN = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
    input_token_bound, attempt, attempt_id, wait_reason, created_at)
SELECT gen_random_uuid(), 1, org_id, sha256('x'), s.state, now() + interval '1 hour', call_type, provider, model, 1, 1,
       gen_random_uuid(), CASE s.state WHEN 'waiting' THEN (ARRAY['retry', 'budget_held'])[1 + mod(n, 2)] END,
       now() - n * interval '5 min'
  FROM (SELECT c.org_id, c.call_type, c.provider, c.model, row_number() OVER () AS n
          FROM llm_call c ORDER BY c.created_at DESC LIMIT 1500) c
 CROSS JOIN (VALUES ('queued'), ('running'), ('waiting')) s(state)"""
TRACES = """UPDATE ai_call_log a SET trace_id = 't-' || mod(n, 300)
  FROM (SELECT attempt_id, row_number() OVER () AS n FROM ai_call_log) x WHERE x.attempt_id = a.attempt_id"""
READ = """SELECT coalesce(sum(seq_tup_read), 0) AS along, coalesce(sum(idx_tup_fetch), 0) AS by_index
  FROM pg_stat_user_tables WHERE relname LIKE %(tables)s"""
NOW = datetime.now(UTC)
ORGS = (None, "org-0001", "org-0012")
STATES = (None, *CallState)
NARROWED: dict[str, dict[str, object]] = {
    "nothing": {},
    "model": {"model": "gpt-4o-mini"},
    "a model that nobody uses": {"model": "none"},
    "type and provider": {"call_type": "extraction", "provider": "openai"},
    "reason": {"reason": "provider_error"},
    "wait reason": {"reason": "retry"},
    "a reason of nobody": {"reason": "cancelled"},
    "a fingerprint": {"error_fingerprint": "none"},
    "a period": {"since": NOW - timedelta(days=5), "until": NOW - timedelta(days=3)},
    "long ago": {"until": NOW - timedelta(days=400)},
    "trace": {"trace_id": "t-7"},
}


@pytest.fixture(scope="module")
def session(services: DevServers) -> Iterator[PostgresSession]:
    """A ledger with a history, in a session that keeps its plans."""
    engine = create_engine(services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"BEGIN; {EMPTY}; COMMIT")
    seed(engine, PLAN)
    with engine.connect() as connection:
        connection.exec_driver_sql(OPEN)
        connection.exec_driver_sql(TRACES)
    with (
        forgotten(engine),
        closing(PostgresSession(services.database_url, pool_size=1)) as session,
    ):
        count_all(engine)
        yield session
    with engine.connect() as connection:
        connection.exec_driver_sql(f"BEGIN; {EMPTY}; COMMIT")


def read(session: PostgresSession, tables: str) -> tuple[int, int]:
    """How many rows of some tables were read so far: along the table, and by index."""
    session.rows("SELECT pg_stat_force_next_flush()", {})
    (row,) = session.rows(READ, {"tables": tables})
    return int(row.along), int(row.by_index)


def cost_of(session: PostgresSession, which: CallFilter, page: PageOf) -> dict[str, int]:
    """What a page reads."""
    tables = {"calls": "llm\\_call", "attempts": "ai\\_call\\_log%"}
    before = {name: read(session, like) for name, like in tables.items()}
    found = PostgresOperations(session).call_page(which, page)
    after = {name: read(session, like) for name, like in tables.items()}
    return {
        "along": sum(after[name][0] - before[name][0] for name in tables),
        "calls": after["calls"][1] - before["calls"][1],
        "attempts": after["attempts"][1] - before["attempts"][1],
        "found": len(found.views),
    }


@pytest.mark.parametrize("narrowed", NARROWED)
def test_every_combination_of_filters_reads_by_index_and_little(
    session: PostgresSession, narrowed: str
) -> None:
    """What is found is read twice: found, and shown. Twice more if it has to be said where the search stopped."""
    too_much = {}
    for org_id, state in itertools.product(ORGS, STATES):
        which = CallFilter(org_id, state, **NARROWED[narrowed])  # type: ignore[arg-type]
        cost = cost_of(session, which, PAGE)
        of_open = 1_501 * 2 if state in (CallState.QUEUED, CallState.RUNNING) else 0
        if cost["along"] or cost["calls"] > 2 * LOOKED_MAX + 4 * PAGE.limit + of_open:
            too_much[org_id, state] = cost

    assert too_much == {}


@pytest.mark.parametrize("attempts", [{"kind": "repair"}, {"tier": "flex"}, {"outcome": "unknown"}])
def test_attempts_are_looked_up_call_by_call(
    session: PostgresSession, attempts: dict[str, str]
) -> None:
    """A call has one or two here."""
    cost = cost_of(session, CallFilter(**attempts), PAGE)  # type: ignore[arg-type]

    assert cost["along"] == 0
    assert cost["attempts"] <= 4 * LOOKED_MAX + 4 * PAGE.limit


def test_pages_far_back_cost_as_much_as_the_first(session: PostgresSession) -> None:
    """By their position: nothing before it is read again."""
    operations = PostgresOperations(session)
    position, costs = None, []
    for _ in range(12):
        page = PageOf(20, older_than=position)
        costs.append(cost_of(session, CallFilter(), page)["calls"])
        position = operations.call_page(CallFilter(), page).older

    assert max(costs) <= 2 * min(costs)


def test_a_count_stops_at_its_bound(
    session: PostgresSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it says that there are more."""
    monkeypatch.setattr("callgate.adapters.postgres.call_search.COUNTED_MAX", 500)
    before = read(session, "llm\\_call")

    count = PostgresOperations(session).count_calls(CallFilter())

    after = read(session, "llm\\_call")
    assert (count.calls, count.is_more) == (500, True)
    assert after[0] == before[0]
    assert after[1] - before[1] < 2 * 500


def test_one_call_is_read_by_its_key(session: PostgresSession) -> None:
    """Its attempts, submissions and generations too."""
    operations = PostgresOperations(session)
    (view,) = operations.calls(CallFilter(), limit=1)
    tables = ("llm\\_call", "ai\\_call\\_log%", "submission")
    before = [read(session, like) for like in tables]

    operations.call_history(view.key)

    after = [read(session, like) for like in tables]
    assert [now[0] for now in after] == [then[0] for then in before]
    assert sum(now[1] - then[1] for now, then in zip(after, before, strict=True)) < 50


def test_a_chart_reads_sums_and_no_calls(session: PostgresSession) -> None:
    """Of the organisation only, if one is named."""
    before = [read(session, like) for like in ("llm\\_call", "ai\\_call\\_log%")]
    which = CallFilter("org-0012", since=NOW - timedelta(days=9))

    chart = PostgresOperations(session).call_chart(which, NOW)

    assert chart.is_of_attempts
    assert chart.counts
    assert [read(session, like) for like in ("llm\\_call", "ai\\_call\\_log%")] == before
