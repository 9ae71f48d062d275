"""Pages of operators read little of many budgets with a long past, and of many calls that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from callgate.adapters.postgres.budget_reports import PostgresBudgetReports
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.budget_states import PERIODS_SHOWN, BudgetName
from callgate.domain.budgets import ORG_SCOPE, Window
from callgate.domain.pauses import PauseKey
from tests.support.tables import TRUNCATE

pytestmark = pytest.mark.usefixtures("nothing_is_known")
ORGS, DAYS, WAITING = 200, 60, 4_000
NAME = BudgetName("org-100", ORG_SCOPE, Window.DAY)
FILL = """
INSERT INTO budget (org_id, scope, "window", starts_at, ends_at, limit_nano_usd, spent_nano_usd)
SELECT 'org-' || lpad(o::text, 3, '0'), 'org', 'day', current_date - d, current_date - d + 1, 1000, o
  FROM generate_series(1, :orgs) o, generate_series(0, :days - 1) d ORDER BY d DESC, o;
INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, attempt, wait_reason, requested_hold_nano_usd)
SELECT gen_random_uuid(), 1, 'org-' || lpad((1 + n % :orgs)::text, 3, '0'), sha256('x'), 'waiting',
       now() + interval '1 hour', 'extraction', 'sim', 'sim-1', 1, 0, 'budget_held', 2000
  FROM generate_series(1, :waiting) n;
INSERT INTO quarter_sum (starts_at, org_id, call_type, provider, model, kind, outcome, posted_nano_usd)
SELECT callgate_quarter_v1(now()) - q * interval '15 min', 'org-' || lpad(o::text, 3, '0'), 'extraction', 'p', 'm',
       'first', 'succeeded', 1
  FROM generate_series(1, :orgs) o, generate_series(0, 99) q;
ANALYZE budget; ANALYZE llm_call; ANALYZE quarter_sum
"""
READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) AS count FROM pg_stat_user_tables
 WHERE relname = %(table)s"""
Ask = Callable[[PostgresBudgetReports], object]


@pytest.fixture
def session(postgres_engine: Engine) -> Iterator[PostgresSession]:
    """A session that has planned everything while the ledger was empty."""
    url = postgres_engine.url.render_as_string(hide_password=False)
    with closing(PostgresSession(url, pool_size=1)) as session:
        with postgres_engine.begin() as connection:
            connection.execute(text(TRUNCATE))
        for ask in ASKED:
            ask(PostgresBudgetReports(session))
        sizes = {"orgs": ORGS, "days": DAYS, "waiting": WAITING}
        for statement in FILL.split(";\n"):
            with postgres_engine.begin() as connection:
                known = {name: n for name, n in sizes.items() if f":{name}" in statement}
                connection.execute(text(statement), known)
        yield session
        with postgres_engine.begin() as connection:
            connection.execute(text(TRUNCATE))


ASKED: tuple[Ask, ...] = (
    lambda r: r.budgets_by_name(limit=10),
    lambda r: r.budgets_by_name(after=NAME, limit=10),
    lambda r: r.budgets_by_name(org_id=NAME.org_id, limit=10),
    lambda r: r.fullest_budgets(limit=10),
    lambda r: r.budget_state(NAME),
    lambda r: r.affected(PauseKey(org_id=NAME.org_id)),
)


def read_of(session: PostgresSession, table: str, ask: Ask) -> int:
    """How many rows of a table a question reads."""
    before = _read(session, table)
    ask(PostgresBudgetReports(session))
    return _read(session, table) - before


def _read(session: PostgresSession, table: str) -> int:
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(READ, {"table": table})[0][0])


def test_a_page_of_budgets_reads_itself_and_its_past(session: PostgresSession) -> None:
    """By index from name to name: of twelve thousand periods those that it shows."""
    shown = 10 * (PERIODS_SHOWN + 4)
    for ask in ASKED[:2]:
        assert 0 < read_of(session, "budget", ask) <= shown
    assert read_of(session, "budget", ASKED[2]) <= PERIODS_SHOWN + 4
    # The running periods are compared.
    assert read_of(session, "budget", ASKED[3]) <= ORGS + shown
    assert read_of(session, "budget", ASKED[4]) <= PERIODS_SHOWN + 4


def test_what_waits_and_what_was_spent_are_read_of_its_organisations(
    session: PostgresSession,
) -> None:
    """Not of the others."""
    each = WAITING // ORGS
    for ask, orgs in ((ASKED[0], 10), (ASKED[2], 1), (ASKED[3], 10), (ASKED[4], 1)):
        assert read_of(session, "llm_call", ask) <= orgs * each
        assert read_of(session, "quarter_sum", ask) <= orgs * 4
    assert read_of(session, "llm_call", ASKED[5]) <= each


def test_the_answers_are_right(session: PostgresSession) -> None:
    """Not only cheap."""
    reports = PostgresBudgetReports(session)

    (fullest, *_) = reports.fullest_budgets(limit=10)
    state = reports.budget_state(NAME)

    assert fullest.figures.org_id == f"org-{ORGS:03}"
    assert state is not None
    assert (state.lately_nano_usd, state.short.calls) == (4, WAITING // ORGS)
    assert [p.spent_nano_usd for p in state.past] == [100] * PERIODS_SHOWN
    assert reports.affected(PauseKey(org_id=NAME.org_id)).waiting == WAITING // ORGS
