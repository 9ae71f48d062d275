"""Reports of a long history read sums and indexes: the log is long, and a report looks at little of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres import audit as postgres_audit
from callgate.adapters.postgres.cost_series import PostgresCostSeries
from callgate.adapters.postgres.dead_letters import PostgresEndedCalls
from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.worker_lines import PostgresWorkers
from callgate.domain.calls import CallState
from callgate.domain.cost_series import Grid, Step
from callgate.domain.reports import CallFilter
from callgate.domain.sums import CostFilter
from callgate.services.audit import audit
from devkit.seed.history import Plan, seed
from devkit.servers.embedded import DevServers
from tests.support.statistics import count_all, forgotten
from tests.support.tables import EMPTY

PLAN = Plan(rows=24_000, calls=6_000, days=12, orgs=12)
ORG = "org-0001"
ROWS_READ = """
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) AS count FROM pg_stat_user_tables
 WHERE relname LIKE %(tables)s"""
DEAD = CallFilter(state=CallState.DEAD)
BERLIN, IN_UTC = Grid(Step.DAY, "Europe/Berlin"), Grid(Step.DAY, "UTC")
LOG, CALLS = "ai\\_call\\_log%", "llm\\_call"
COUNT_CALLS = "SELECT count(*) AS n FROM llm_call"
Ask = Callable[[PostgresOperations], object]


@pytest.fixture(scope="module")
def session(services: DevServers) -> Iterator[PostgresSession]:
    """A ledger with a history that is proven, in a session that keeps its plans."""
    engine = create_engine(services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"BEGIN; {EMPTY}; COMMIT")
    with (
        forgotten(engine),
        closing(PostgresSession(services.database_url, pool_size=1)) as session,
    ):
        seed(engine, PLAN)
        assert audit(PostgresOperations(session)).is_clean
        # Else what is read of an index alone depends on when Postgres cleans up.
        count_all(engine)
        yield session
    with engine.connect() as connection:
        connection.exec_driver_sql(f"BEGIN; {EMPTY}; COMMIT")


def read_of(session: PostgresSession, tables: str, ask: Ask) -> int:
    """How many rows of some tables a question reads."""
    before = _read(session, tables)
    ask(PostgresOperations(session))
    return _read(session, tables) - before


def _read(session: PostgresSession, tables: str) -> int:
    session.rows("SELECT pg_stat_force_next_flush()", {})
    return int(session.rows(ROWS_READ, {"tables": tables})[0][0])


@pytest.mark.parametrize(
    "ask",
    [
        lambda o: o.costs(),
        lambda o: o.costs(CostFilter(org_id=ORG)),
        lambda o: o.costs(CostFilter(org_id=ORG, since=datetime.now(UTC) - timedelta(days=3))),
        lambda o: o.snapshot(),
    ],
    ids=["costs", "costs of one", "costs of three days", "the figures of the audit"],
)
def test_no_report_reads_the_log(session: PostgresSession, ask: Ask) -> None:
    """Sums stand for it; only what is not posted is looked up."""
    assert read_of(session, LOG, ask) == 0


def test_parts_of_an_audit_are_the_whole(
    session: PostgresSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small they are; each reads only its own rows."""
    operations = PostgresOperations(session)
    whole = operations.snapshot()
    tables = ("budget", "budget\\_sum", "day\\_sum", "sum\\_seal")
    read = {table: read_of(session, table, lambda o: o.snapshot()) for table in tables}
    monkeypatch.setattr(postgres_audit, "BUDGETS_AT_ONCE", 20)
    monkeypatch.setattr(postgres_audit, "PAGES_AT_ONCE", 7)
    monkeypatch.setattr(postgres_audit, "DAYS_AT_ONCE", 1)

    assert replace(operations.snapshot(), at=whole.at) == whole
    assert sum(whole.calls_by_state.values()) == session.rows(COUNT_CALLS, {})[0].n
    for table in tables:
        assert read_of(session, table, lambda o: o.snapshot()) <= read[table] * 1.1 + 10


def test_an_organisation_reads_its_own_sums(session: PostgresSession) -> None:
    """By index: those of others are not read."""
    (row,) = session.rows("SELECT count(*) AS n FROM day_sum WHERE org_id = %(o)s", {"o": ORG})
    (every,) = session.rows("SELECT count(*) AS n FROM day_sum", {})

    read = read_of(session, "day\\_sum", lambda o: o.costs(CostFilter(org_id="org-0012")))

    assert 0 < row.n < every.n
    assert read < every.n / 4


def test_an_audit_reads_what_is_not_sealed(session: PostgresSession) -> None:
    """Of a proven ledger hardly anything; with everything each row about once, and each call a few times."""
    (rows,) = session.rows("SELECT count(*) AS n FROM ai_call_log", {})
    (calls,) = session.rows(COUNT_CALLS, {})

    assert read_of(session, LOG, audit) < rows.n / 10
    everything = read_of(session, LOG, lambda o: audit(o, everything=True))
    assert rows.n <= everything < 1.5 * rows.n
    assert read_of(session, CALLS, lambda o: audit(o, everything=True)) < 5 * calls.n


@pytest.mark.parametrize(
    "which",
    [
        CallFilter(),
        CallFilter(org_id=ORG),
        CallFilter(org_id="org-0012"),
        CallFilter(state=CallState.DEAD),
        CallFilter(state=CallState.WAITING),
        CallFilter(since=datetime.now(UTC) - timedelta(days=2)),
    ],
    ids=["all", "large", "small", "dead", "waiting", "lately"],
)
def test_a_list_of_calls_reads_little(session: PostgresSession, which: CallFilter) -> None:
    """Of those that are listed the newest, by index, though there are thousands."""
    assert read_of(session, CALLS, lambda o: o.calls(which, limit=5)) < PLAN.calls / 3


def lately(days: int) -> CostFilter:
    """The last days."""
    now = datetime.now(UTC)
    return CostFilter(since=now - timedelta(days=days), until=now)


@pytest.mark.parametrize(
    ("ask", "table", "share"),
    [
        (lambda s: PostgresCostSeries(s).cost_lines(lately(3), ("model",), limit=9), "day", 1 / 2),
        (lambda s: PostgresCostSeries(s).cost_series(lately(3), BERLIN, "model"), "quarter", 1 / 2),
        (lambda s: PostgresCostSeries(s).cost_series(lately(9), IN_UTC, "model"), "quarter", 0),
        (
            lambda s: PostgresCostSeries(s).cost_series(
                replace(lately(9), org_id="org-0012"), BERLIN, "model"
            ),
            "quarter",
            1 / 4,
        ),
    ],
    ids=["lines", "days of a zone", "days in UTC", "days of one organisation"],
)
def test_costs_over_time_read_the_sums_of_that_time(
    session: PostgresSession, ask: Callable[[PostgresSession], object], table: str, share: float
) -> None:
    """By index; and never the log."""
    (every,) = session.rows(f"SELECT count(*) AS n FROM {table}_sum", {})  # noqa: S608
    before = _read(session, LOG)

    read = read_of(session, f"{table}\\_sum", lambda _: ask(session))

    assert read <= every.n * share
    assert _read(session, LOG) == before


@pytest.mark.parametrize(
    "which",
    [DEAD, replace(DEAD, org_id=ORG), replace(DEAD, since=datetime.now(UTC) - timedelta(days=3))],
    ids=["all", "large", "lately"],
)
def test_groups_of_dead_letters_read_dead_letters(
    session: PostgresSession, which: CallFilter
) -> None:
    """Of the calls only those, each a few times; of the log their attempts."""
    (dead,) = session.rows(
        "SELECT count(*) AS n, sum(attempt) AS attempts FROM llm_call WHERE state = 'dead'", {}
    )
    ended = PostgresEndedCalls(session)
    groups = ended.end_groups(which)

    calls = read_of(session, CALLS, lambda _: ended.end_groups(which))
    rows = read_of(session, LOG, lambda _: ended.end_groups(which))

    assert 0 < sum(group.count for group in groups) <= dead.n
    assert calls < 4 * dead.n + 10 * len(groups)
    assert rows <= dead.attempts


MANY_DEAD = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, call_type, provider, model,
    input_token_bound, error, error_fingerprint, end_reason, created_at)
SELECT gen_random_uuid(), 1, 'flooded', sha256('x'), 'dead', 't', 'p', 'm', 1, '{}', 'flood', 'a',
       now() - n * interval '1 s' FROM generate_series(1, %(count)s) n"""


def test_a_page_of_a_group_reads_a_page(session: PostgresSession) -> None:
    """Not the group; wherever the page begins."""
    ended, which = PostgresEndedCalls(session), replace(DEAD, error_fingerprint="flood")
    session.rows(MANY_DEAD, {"count": 2_000})
    try:
        place = ended.ended_calls(which, limit=1_000)[-1].place

        for after in (None, place):
            ask = partial(ended.ended_calls, which, after=after, limit=5)
            assert read_of(session, CALLS, lambda _: ask()) < 100  # noqa: B023 - asked at once
    finally:
        session.rows("DELETE FROM llm_call WHERE org_id = 'flooded'", {})


def test_workers_are_counted_without_reading_the_log(session: PostgresSession) -> None:
    """Only what is not posted; and only open calls."""
    workers = PostgresWorkers(session)

    for ask in (workers.worker_lines, workers.open_lines, workers.quarantined):
        assert read_of(session, LOG, lambda _: ask()) == 0  # noqa: B023 - asked at once
        assert read_of(session, CALLS, lambda _: ask()) == 0  # noqa: B023
