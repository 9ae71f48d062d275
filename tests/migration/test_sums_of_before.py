"""A ledger of 0.1.0 gets its sums: of its rows, of the months it dropped, and of what its processes still settle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Connection, text

from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.sums import CostFilter
from callgate.services.audit import audit
from tests.support.tables import open_connection
from worker.migrate import migrate

FIRST = "0001_create_the_ledger"
# The ids of attempts begin with their time, and are looked for from a time on: these come after any.
HISTORY = """
INSERT INTO budget (org_id, scope, "window", starts_at, ends_at, limit_nano_usd, spent_nano_usd, reserved_nano_usd)
VALUES ('acme', 'org', 'month', now() - interval '20 days', now() + interval '10 days', 1000, 300, 7);
WITH made AS (
    INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, attempt, attempt_id, call_type,
                          provider, model, input_token_bound, created_at)
    SELECT gen_random_uuid(), 1, 'acme', sha256('x'), CASE WHEN n = 4 THEN 'running' ELSE 'succeeded' END,
           CASE WHEN n = 4 THEN now() END, 1, overlay(gen_random_uuid()::text PLACING 'f' FROM 1 FOR 1)::uuid,
           'extraction', 'openai', 'gpt-4o-mini', 1,
           now() - n * interval '1 day'
      FROM generate_series(1, 4) n
    RETURNING *
), joined AS (
    INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, created_at)
    SELECT gen_random_uuid(), org_id, call_id, 1, 'replayed', created_at FROM made WHERE state = 'succeeded'
)
INSERT INTO ai_call_log (attempt_id, call_id, generation, attempt, org_id, input_hash, call_type, provider, model,
                         status, hold_nano_usd, posted_nano_usd, posted_at, budget_ids, queue_ms, worker_id, started_at,
                         finished_at, kind)
SELECT attempt_id, call_id, 1, 1, org_id, sha256('x'), call_type, provider, model,
       CASE state WHEN 'running' THEN 'answered' ELSE 'succeeded' END, CASE state WHEN 'running' THEN 7 ELSE 100 END,
       CASE state WHEN 'running' THEN NULL ELSE 60 END, CASE state WHEN 'running' THEN NULL ELSE created_at END,
       ARRAY[(SELECT max(id) FROM budget)], 0, 'w', created_at, created_at, 'call'
  FROM made;
INSERT INTO ai_call_log_archive (partition_name, ends_at, org_id, call_type, provider, model, status, budget_ids,
                                 attempts, posted_nano_usd,
                                 saved_nano_usd, input_tokens, cached_input_tokens, cache_write_tokens,
                                 output_tokens, reasoning_tokens)
SELECT 'ai_call_log_2026_01', date_trunc('month', now()) - interval '3 months', 'acme', 'triage', 'openai',
       'gpt-4o-mini', 'succeeded', ARRAY[(SELECT max(id) FROM budget)], 5, 120, 11, 50, 0, 0, 20, 0;
"""
SETTLE_BEFORE = """
SELECT s.applied FROM ai_call_log a CROSS JOIN LATERAL callgate_settle_v1(
    ARRAY[a.call_id], ARRAY[1], ARRAY[a.attempt_id], '{answered}', '{succeeded}', '{5}', '{succeeded}', '{0}', '{3}',
    '{0}', '{0}', '{2}', '{0}', '{list}', '{default}', ARRAY[NULL::text], ARRAY[NULL::text], '{alive}',
    ARRAY[NULL::text], '{""}') s
 WHERE a.status = 'answered' AND s.ord > 0
"""


@pytest.fixture
def ledger_before(empty_url: str) -> Iterator[tuple[str, Connection]]:
    """A ledger of 0.1.0 with some history, and a connection to it."""
    migrate(empty_url, FIRST)
    with open_connection(empty_url) as connection:
        connection.execute(text(HISTORY))
        connection.commit()
        yield empty_url, connection


def spent(session: PostgresSession) -> dict[str | None, int]:
    """What was spent by call type."""
    lines = PostgresOperations(session).costs(by=("call_type",))
    return {line.call_type: line.used.posted_nano_usd for line in lines}


def test_the_history_of_a_ledger_is_summed_up(ledger_before: tuple[str, Connection]) -> None:
    """Its rows day by day, with what duplicates saved; dropped months in the last quarter hour of theirs."""
    url, connection = ledger_before

    migrate(url)

    with closing(PostgresSession(url)) as session:
        operations = PostgresOperations(session)
        assert spent(session) == {"extraction": 180, "triage": 120}
        (line,) = operations.costs(CostFilter(call_type="extraction"))
        assert (line.gaps, line.used.collapsed, line.used.saved_nano_usd) == (0, 3, 180)
        assert audit(operations).is_clean
        assert audit(operations, everything=True).is_clean
    assert connection.scalar(text("SELECT attempts FROM dropped_month")) == 5


def test_days_that_are_not_summed_up_yet_are_said_to_be_missing(
    ledger_before: tuple[str, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that was interrupted; what a worker does then."""
    url, _ = ledger_before
    monkeypatch.setattr("worker.migrate._fill_sums", lambda engine: None)
    migrate(url)
    with closing(PostgresSession(url)) as session:
        operations = PostgresOperations(session)
        (line,) = operations.costs()
        assert line.gaps >= 4
        assert not audit(operations).is_clean

        while operations.fill_sums() is not None:
            operations.fold_sums(limit=1_000)

        assert spent(session) == {"extraction": 180, "triage": 120}
        assert audit(operations).is_clean


def test_what_processes_of_before_settle_is_in_the_sums(
    ledger_before: tuple[str, Connection],
) -> None:
    """They execute the function that they know, also before the days of before are summed up."""
    url, connection = ledger_before
    migrate(url)

    assert connection.scalar(text(SETTLE_BEFORE)) is True
    connection.commit()

    with closing(PostgresSession(url)) as session:
        assert spent(session) == {"extraction": 185, "triage": 120}
        assert audit(PostgresOperations(session)).is_clean


def test_processes_of_before_read_the_sums(ledger_before: tuple[str, Connection]) -> None:
    """In the columns that they know."""
    url, connection = ledger_before
    migrate(url)

    costs = connection.execute(text("SELECT * FROM callgate_costs_v1('acme')")).all()
    seen = connection.execute(text("SELECT * FROM callgate_audit_v1()")).one()
    calls = connection.execute(
        text("SELECT * FROM callgate_calls_v1(NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,9)")
    ).all()

    assert [(c.call_type, c.attempts, c.spent_nano_usd) for c in costs] == [
        ("extraction", 3, 180),
        ("triage", 5, 120),
    ]
    assert (seen.calls_with_missing_rows, seen.rows_without_call, seen.spent_nano_usd) == (
        0,
        0,
        300,
    )
    assert len(calls) == 4
