"""Alerts in Postgres: cheap on a large ledger, raised by one of several sessions, and for workers only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.alerts import PostgresAlerts
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.alert_rules import AlertRules
from callgate.domain.alerts import Channel, LookTerms
from callgate.domain.errors import NotPermitted
from callgate.domain.reports import By
from tests.integration.test_figures import (
    ENDED_CALLS,
    MANY,
    PAST_BUDGETS,
    POSTED_ATTEMPTS,
    rows_read,
)
from tests.support.ledger_under_test import LIMIT, LedgerUnderTest, open_postgres
from tests.support.logins import a_login

OLD_DEATHS = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, call_type, provider, model,
    input_token_bound, attempt, attempt_id, error, end_reason)
SELECT gen_random_uuid(), 1, 'o', sha256('x'), 'dead', 't', 'p', 'm', 1, 1,
       callgate_uuid_floor_v1(now() - n * interval '2 hours'), '{}', 'x'
  FROM generate_series(1, :count) n"""
NOW = LookTerms(0.0, AlertRules(dead_letters_per_hour=1))
SESSIONS = 3
MAY = {WORKER: {"look", "take", "keep", "forget"}, DASHBOARD: {"list"}, CLIENT: set()}


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """A session of a worker."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        yield session


@pytest.fixture
def ledger(session: PostgresSession) -> LedgerUnderTest:
    """The ledger of the session."""
    return open_postgres(session)


def test_looking_does_not_read_what_has_ended(
    postgres_engine: Engine, session: PostgresSession, ledger: LedgerUnderTest
) -> None:
    """Calls that ended or died long ago, posted attempts and budgets of the past are many."""
    ledger.dead("just now")
    ledger.succeeded(posted_nano_usd=LIMIT // 2)
    with postgres_engine.begin() as connection:
        for statement in (ENDED_CALLS, OLD_DEATHS, POSTED_ATTEMPTS, PAST_BUDGETS):
            connection.execute(text(statement), {"count": MANY})
        # Else Postgres counts these rows some time later.
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    before = rows_read(session)

    assert PostgresAlerts(session).look(NOW) == 2
    assert rows_read(session) - before < 100


def test_of_workers_that_look_at_the_same_time_one_raises(
    postgres_engine: Engine, ledger: LedgerUnderTest
) -> None:
    ledger.succeeded(posted_nano_usd=LIMIT // 2)
    url = postgres_engine.url.render_as_string(hide_password=False)
    with ExitStack() as stack:
        sessions = [stack.enter_context(closing(PostgresSession(url))) for _ in range(SESSIONS)]
        workers = [PostgresAlerts(session) for session in sessions]
        with ThreadPoolExecutor(SESSIONS) as threads:
            raised = [n for _ in range(20) for n in threads.map(lambda w: w.look(NOW), workers)]
            taken = [
                len(found)
                for found in threads.map(
                    lambda w: w.take([Channel.WEBHOOK], limit=10, lease_s=60), workers
                )
            ]

    assert sum(raised) == 1
    assert sum(taken) == 1


def test_a_session_that_looks_delays_no_other(
    postgres_engine: Engine, ledger: LedgerUnderTest
) -> None:
    ledger.alerts.look(NOW)
    ledger.succeeded(posted_nano_usd=LIMIT // 2)
    with postgres_engine.begin() as other:
        other.execute(text("SELECT 1 FROM alert_watch FOR UPDATE"))
        assert ledger.alerts.look(NOW) == 0

    assert ledger.alerts.look(NOW) == 1


@pytest.mark.parametrize("role", [WORKER, DASHBOARD, CLIENT])
def test_workers_keep_alerts_and_the_dashboard_lists_them(
    session: PostgresSession, ledger: LedgerUnderTest, role: str
) -> None:
    """A test and a replay need the owner's login, as other changes of operators do."""
    ledger.operations.test_alert("nina")
    with a_login(session.url, role) as url, closing(PostgresSession(url, pool_size=1)) as own:
        alerts, operations = PostgresAlerts(own), PostgresOperations(own)
        steps: dict[str, Callable[[], object]] = {
            "look": lambda: alerts.look(NOW),
            "take": lambda: alerts.take([Channel.LOG], limit=10, lease_s=60),
            "keep": lambda: alerts.keep([], dead_after_s=1),
            "forget": lambda: alerts.forget(age_s=3_600, limit=1),
            "list": lambda: operations.alerts(limit=10),
            "test": lambda: operations.test_alert("somebody"),
            "replay": lambda: operations.replay_alerts([1], limit=1, by=By("somebody", "why")),
        }

        assert {name for name, step in steps.items() if is_permitted(step)} == MAY[role]


def is_permitted(step: Callable[[], object]) -> bool:
    try:
        step()
    except NotPermitted:
        return False
    return True
