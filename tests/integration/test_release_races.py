"""Budgets and the calls that wait for them, while other transactions are open: what one session cannot show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection, Engine, text

from callgate.adapters.postgres.ledger import PostgresLedger
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.calls import AttemptStatus, CallState
from callgate.domain.ledger import DueKind
from callgate.domain.requests import OnBudget
from tests.support.ledger_under_test import (
    LIMIT,
    ORG,
    LedgerUnderTest,
    a_loss,
    a_reserve,
    a_submission,
    a_success,
    an_answer,
)
from tests.support.open_transaction import OpenTransaction
from tests.support.waiting import until

MANY_WHO_WAIT = """
WITH budgets AS (
    INSERT INTO budget (org_id, scope, "window", timezone, starts_at, ends_at, limit_nano_usd)
    SELECT 'org' || i, 'org', 'day', 'UTC', p.starts_at, p.ends_at, 10
      FROM generate_series(1, 150) i CROSS JOIN callgate_period_v1('day', 'UTC', now()) p
)
INSERT INTO llm_call (call_id, generation, org_id, input_hash, call_type, provider, model, state, due_at,
                      input_token_bound, request, requested_hold_nano_usd, wait_reason)
SELECT gen_random_uuid(), 1, 'org' || i, sha256(i::text::bytea), 'type', 'openai', 'model', 'waiting',
       now() + interval '1 hour', 1, 'body', 5, 'budget_held'
  FROM generate_series(1, 150) i"""
SETS_A_LIMIT = """SELECT count(*) FROM pg_stat_activity
 WHERE wait_event_type = 'Lock' AND query LIKE '%set_budget_v1%' AND pid <> pg_backend_pid()"""


@contextmanager
def transaction(engine: Engine) -> Iterator[tuple[PostgresSession, Connection]]:
    """A session whose statements are all part of one transaction, which is committed at the end."""
    with engine.begin() as connection:
        yield OpenTransaction(connection), connection


def test_who_is_joined_while_room_is_freed_hears_of_it(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """The release skips it because it is locked, and its own timer is the end of the day: a sweep finds it."""
    lost = ledger.running("lost", LIMIT)
    ledger.settle(a_loss(lost, LIMIT, next_state=CallState.DEAD))
    patient = ledger.queued("patient")
    ledger.reserve(a_reserve(patient, 200, on_budget=OnBudget.WAIT))
    ledger.record(an_answer(lost))

    with transaction(postgres_engine) as (session, _):
        PostgresLedger(session).submit([a_submission("patient")])
        (settled,) = ledger.settle(a_success(lost, 50, expected_status=AttemptStatus.UNKNOWN))

    assert not settled.has_freed_waiters
    ledger.ledger.take_lost_messages(limit=100, queued_before=ledger.now() - timedelta(hours=1))
    assert ledger.due_kinds() == [(DueKind.PUBLISH, patient)]


def test_a_limit_set_while_the_period_rolls_over_holds(
    ledger: LedgerUnderTest,
    postgres_engine: Engine,
) -> None:
    """Begun before midnight, it comes after a claim of after midnight: the new period was made with the old limit."""
    claimed = a_reserve(ledger.queued())
    with postgres_engine.begin() as connection:
        connection.execute(text("UPDATE budget SET ends_at = now() + interval '0.5 s'"))
    with ThreadPoolExecutor(1) as pool, transaction(postgres_engine) as (setting, begun):
        begun.execute(text("SELECT now()"))
        time.sleep(0.6)
        with transaction(postgres_engine) as (claiming, _):
            PostgresLedger(claiming).reserve([claimed])
            operations = PostgresOperations(setting)
            limit = pool.submit(operations.set_budget, ORG, ORG_SCOPE, Window.DAY, 5, "UTC")
            with postgres_engine.connect() as watcher:
                until(lambda: bool(watcher.scalar(text(SETS_A_LIMIT))))
        limit.result()

    (newest,) = ledger.operations.budgets(ORG)
    assert (newest.limit_nano_usd, newest.reserved_nano_usd) == (5, 100)


def test_a_sweep_releases_for_a_hundred_organisations_and_in_the_end_for_all(
    ledger: LedgerUnderTest, postgres_engine: Engine
) -> None:
    """A sweep that released for thousands at once would run out of time, and find no lost message ever again."""
    with postgres_engine.begin() as connection:
        connection.execute(text(MANY_WHO_WAIT))

    def sweep() -> int:
        ledger.ledger.take_lost_messages(limit=100, queued_before=ledger.now() - timedelta(hours=1))
        with postgres_engine.connect() as connection:
            return int(
                connection.scalar(text("SELECT count(*) FROM llm_call WHERE due_at <= now()"))
            )

    assert sweep() == 100
    assert max(sweep() for _ in range(30)) == 150
