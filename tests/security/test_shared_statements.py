"""Statements that serve all organisations stay fast, whatever one organisation has put into the ledger."""

from __future__ import annotations

import statistics
import time

import pytest
from sqlalchemy import Engine, text

MANY_WAIT = """
INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, request, requested_hold_nano_usd, wait_reason, error)
SELECT gen_random_uuid(), 1, 'acme', decode(md5('a' || n) || md5('b' || n), 'hex'), 'waiting',
       now() + interval '1 h', 'type-' || n % :types, 'sim', 'sim-1', 1, 'x', 5, 'budget_held', '{}'
  FROM generate_series(1, :calls) n
"""
A_BUDGET = """
INSERT INTO budget (org_id, scope, "window", starts_at, ends_at, limit_nano_usd)
VALUES ('acme', 'org', 'day', now() - interval '1 h', now() + interval '1 h', 1000000)
"""
WAKE = "SELECT callgate_free_budget_waiters_v1(ARRAY['acme'])"
SWEEP = "SELECT count(*) FROM callgate_take_lost_messages_v2(200, now() - interval '1 h')"
TIMES = 5
SLOWER_MAX = 6.0
"""A statement that scanned everything would be a hundred times slower."""


@pytest.mark.parametrize(
    ("few", "many"),
    [
        pytest.param({"types": 60, "calls": 600}, {"types": 6_000, "calls": 6_000}, id="types"),
        pytest.param({"types": 2, "calls": 600}, {"types": 2, "calls": 60_000}, id="calls"),
    ],
)
def test_waiting_calls_of_one_organisation_slow_no_statement_down(
    postgres_engine: Engine, few: dict[str, int], many: dict[str, int]
) -> None:
    """However many calls wait for headroom, under however many call types."""
    before, after = [_seconds(postgres_engine, load) for load in (few, many)]

    assert {s: after[s] / before[s] for s in before if after[s] > SLOWER_MAX * before[s]} == {}


def _seconds(engine: Engine, load: dict[str, int]) -> dict[str, float]:
    """Seconds that each statement takes with that load. All changes are rolled back."""
    with engine.connect() as connection:
        connection.execute(text(A_BUDGET))
        connection.execute(text(MANY_WAIT), load)
        connection.execute(text("ANALYZE llm_call"))
        took = {}
        for statement in (WAKE, SWEEP):
            seconds = []
            for _ in range(TIMES):
                savepoint = connection.begin_nested()
                began = time.perf_counter()
                connection.execute(text(statement)).scalar_one()
                seconds.append(time.perf_counter() - began)
                savepoint.rollback()
            took[statement] = statistics.median(seconds)
        connection.rollback()
        return took
