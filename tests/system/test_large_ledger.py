"""
A year of history: a million attempts, a hundred thousand calls. What is read to answer does not grow with it.

Rows and entries of indexes are counted, not seconds; `make test-large` measures seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from callgate.adapters.postgres.operations import PostgresOperations
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.calls import CallState
from callgate.domain.reports import CallFilter
from callgate.domain.sums import CostFilter
from callgate.services.audit import audit, prove_day
from devkit.seed.history import Plan, seed
from devkit.servers.embedded import DevServers
from tests.integration.test_large_plans import Ask, read_of
from tests.integration.test_long_ledger import READ_MORE_MAX, SAME, empty, engine_of, read_by

# Seeding takes about a minute of an idle core.
pytestmark = pytest.mark.timeout(900)
PLAN = Plan(rows=1_000_000, calls=100_000)
ORG = "org-0001"
LOG, CALLS, SUMS = "ai\\_call\\_log%", "llm\\_call", "day\\_sum"
NOW = datetime.now(UTC)
LISTS: dict[str, CallFilter] = {
    "all": CallFilter(),
    "of an organisation": CallFilter(org_id=ORG),
    "rejected": CallFilter(state=CallState.REJECTED),
    "of a model that is not there": CallFilter(model="none"),
    "with an unknown attempt": CallFilter(outcome="unknown"),
    "of a time": CallFilter(since=NOW - timedelta(days=200), until=NOW - timedelta(days=199)),
    "dead": CallFilter(state=CallState.DEAD),
    "dead of an organisation": CallFilter(state=CallState.DEAD, org_id=ORG),
    "waiting": CallFilter(state=CallState.WAITING),
}
COSTS: dict[str, Ask] = {
    "all": lambda o: o.costs(),
    "an organisation": lambda o: o.costs(CostFilter(org_id=ORG)),
    "a week": lambda o: o.costs(CostFilter(org_id=ORG, since=NOW - timedelta(days=7))),
}


@pytest.fixture(scope="module")
def session(services: DevServers) -> Iterator[PostgresSession]:
    """Empty first; `of_empty` brings the history."""
    empty(services)
    with closing(PostgresSession(services.database_url, timeout_s=60, pool_size=1)) as session:
        yield session
    empty(services)


@pytest.fixture(scope="module", autouse=True)
def of_empty(services: DevServers, session: PostgresSession) -> dict[str, int]:
    """What workers read of an empty ledger. Then it has a year of history, whose newest days are proven."""
    read = {name: read_by(session, ask) for name, ask in SAME.items()}
    empty(services)
    seed(engine_of(services), PLAN)
    operations = PostgresOperations(session)
    for day in operations.sum_days(everything=True)[-3:]:
        assert all(proof.is_clean for proof in prove_day(operations, day))
    return read


@pytest.mark.parametrize("name", SAME)
def test_workers_read_no_history(
    session: PostgresSession, of_empty: dict[str, int], name: str
) -> None:
    """A call costs what it costs on an empty ledger."""
    assert read_by(session, SAME[name]) <= of_empty[name] * READ_MORE_MAX + 10


@pytest.mark.parametrize("name", LISTS)
def test_a_list_reads_a_bounded_part(session: PostgresSession, name: str) -> None:
    """Of calls what was meant to be looked at, of the log the attempts of at most 1,500 of them."""

    def ask(operations: PostgresOperations) -> object:
        return operations.calls(LISTS[name], limit=20)

    assert read_of(session, CALLS, ask) < 35_000
    assert read_of(session, LOG, ask) < 1_500 * 20


def test_groups_read_dead_letters_only(session: PostgresSession) -> None:
    """Each once, and once more to look for a later generation."""
    dead = sum(group.count for group in PostgresOperations(session).dead_groups(CallFilter()))

    assert 0 < read_of(session, CALLS, lambda o: o.dead_groups(CallFilter())) <= 2 * dead
    assert read_of(session, LOG, lambda o: o.dead_groups(CallFilter())) == 0


@pytest.mark.parametrize("name", COSTS)
def test_costs_read_sums(session: PostgresSession, name: str) -> None:
    """Those of the days and the organisation that were asked for, and no attempt."""
    (sums,) = session.rows(
        "SELECT count(*) AS n, count(*) FILTER (WHERE org_id = %(org)s) AS of_one FROM day_sum",
        {"org": ORG},
    )

    assert read_of(session, LOG, COSTS[name]) == 0
    assert read_of(session, SUMS, COSTS[name]) <= (sums.n if name == "all" else sums.of_one)


def test_an_audit_reads_the_days_that_are_open(session: PostgresSession) -> None:
    """A day is proven from its own rows; the figures of budgets and calls need no attempt."""
    day = datetime.now(UTC).date() - timedelta(days=100)
    since = datetime(day.year, day.month, day.day, tzinfo=UTC)
    (rows,) = session.rows(
        "SELECT count(*) AS n FROM ai_call_log WHERE started_at >= %(a)s AND started_at < %(b)s",
        {"a": since, "b": since + timedelta(days=1)},
    )

    assert read_of(session, LOG, lambda o: o.snapshot()) == 0
    assert 0 < read_of(session, LOG, lambda o: list(prove_day(o, day))) < 4 * rows.n


def test_a_year_is_proven(session: PostgresSession) -> None:
    """All days, then none but those that go on."""
    operations = PostgresOperations(session)

    first, second = audit(operations), audit(operations)

    assert (first.is_clean, second.is_clean) == (True, True)
    assert first.days > PLAN.days - 10
    assert second.days <= 2
