# ruff: noqa: S608 - every statement is ours, or an attack of ours
"""
A hostile client asks what the planner believes of rows that it may not see.

ANALYZE keeps samples of all rows, whosever they are. Postgres shows what it makes of them in EXPLAIN and, before it
looks at privileges, in the plans that it logs to any session that sets `debug_print_plan`. Bisecting estimates reads
any value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from psycopg2 import Error
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.leases import PostgresLeases
from callgate.adapters.postgres.roles import DASHBOARD
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.reports import (
    UnprocessableMessage,
)
from devkit.servers.embedded import DevServers
from tests.support.ledger_under_test import LINK, a_submission, a_success, an_answer, open_postgres
from tests.support.logins import a_client, a_login, owner_url
from tests.support.partitions import month, partition_of
from tests.support.tables import EMPTY, TRUNCATE

PROMPT = b'{"org_id":"theirs","messages":["Jane Doe, 4 May 1971"]}'
LIMIT_NANO_USD = 777_123_456_789
PLANNED = re.compile(r"(?:rows=|cost=|plan_rows |total_cost )([\d.]+)")

MANY_BUDGETS = f"""
INSERT INTO budget (org_id, scope, "window", starts_at, ends_at, limit_nano_usd, spent_nano_usd)
SELECT 'theirs', 'org', 'day', d, d + interval '1 day', {LIMIT_NANO_USD}, n
  FROM generate_series(1, 100) n, LATERAL (SELECT timestamptz '2024-01-01' + n * interval '1 day') x(d)
"""
MANY_SUMS = """
INSERT INTO day_sum (day, org_id, call_type, provider, model, kind, outcome, attempts, posted_nano_usd)
SELECT current_date - n, 'theirs', 't', 'p', 'm', 'first', 'failed', n, n FROM generate_series(1, 100) n
"""
DEAD = """
INSERT INTO llm_call (
    call_id, generation, org_id, input_hash, state, call_type, provider, model, input_token_bound, error,
    end_reason)
SELECT gen_random_uuid(), 1, %(org)s, sha256('x'), 'dead', 't', 'p', 'm', 1, '{{}}', 'e'
  FROM generate_series(1, %(count)s);
UPDATE llm_call SET {column} = %(value)s WHERE org_id = %(org)s AND {column} IS NOT DISTINCT FROM
    CASE '{column}' WHEN 'call_type' THEN 't' WHEN 'provider' THEN 'p' WHEN 'model' THEN 'm' END AND state = 'dead'
"""
RELATIONS = """
SELECT c.relname, array_agg(quote_ident(a.attname)) AS columns, array_agg(format_type(a.atttypid, a.atttypmod)) AS types
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
 GROUP BY c.relname
"""


@pytest.fixture(scope="module")
def owner(services: DevServers) -> Iterator[PostgresSession]:
    """The owner's session; every table holds many rows of "theirs", and Postgres has counted and sampled them."""
    with closing(PostgresSession(services.database_url)) as session:
        session.rows(TRUNCATE, {})
        ledger = open_postgres(session)
        for statement in (MANY_BUDGETS, MANY_SUMS):
            session.rows(statement, {})
        new = [theirs(f"call {n}", link=LINK, idempotency_key=f"key {n}") for n in range(100)]
        refs = [ledger.claim(answer.key) for answer in ledger.submit(*new)]
        ledger.record(*(an_answer(ref, reply=PROMPT) for ref in refs))
        ledger.settle(*map(a_success, refs))
        for n in range(20):
            ledger.operations.keep_unprocessable(
                UnprocessableMessage("q", f"reason {n % 3}", PROMPT)
            )
            PostgresLeases(session).renew(f"worker {n}", 60)
        session.rows(
            "INSERT INTO tenant_login SELECT 'x', 'org ' || n FROM generate_series(1, 20) n", {}
        )
        session.rows("ANALYZE", {})
        yield session
        session.rows(EMPTY, {})


@pytest.fixture
def attacker(owner: PostgresSession) -> Iterator[Any]:
    """The driver's connection of a client that acts for "mine", and has Postgres say all it will say."""
    with a_client(owner, "mine") as url, talkative(url) as connection:
        yield connection


@pytest.fixture
def dashboard(owner: PostgresSession) -> Iterator[Any]:
    """The same of a login that reads all but bodies."""
    with a_login(owner_url(owner), DASHBOARD) as url, talkative(url) as connection:
        yield connection


@contextmanager
def talkative(url: str) -> Iterator[Any]:
    """A connection that is told every plan."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("SET client_min_messages = log; SET debug_print_plan = on")
        driver: Any = connection.connection.driver_connection
        assert "PLANNEDSTMT" in said(driver, "SELECT 1")[1][0]
        yield driver
    engine.dispose()


def theirs(content: str, **changes: Any) -> Any:
    """A submission of the other organisation; all ask the same."""
    return a_submission(content, org_id="theirs", request=PROMPT, **changes)


def said(attacker: Any, statement: str) -> tuple[list[Any], list[str]]:
    """The rows of an answer, none if it was refused; and what Postgres said beside it."""
    attacker.notices.clear()
    rows = []
    with attacker.cursor() as cursor, suppress(Error):
        cursor.execute(statement)
        rows = cursor.fetchall()
    return rows, list(attacker.notices)


def told(attacker: Any, question: str) -> list[str]:
    """How many rows the planner expects, and what they cost."""
    rows, notices = said(attacker, f"EXPLAIN {question}")
    return PLANNED.findall("\n".join([*(line for (line,) in rows), *notices]))


def bisected(attacker: Any, question: Callable[[int], str], above: int) -> int:
    """The least number about which the planner believes what it believes about `above`."""
    nothing, low, high = told(attacker, question(above)), 0, above
    while low < high:
        middle = (low + high) // 2
        if told(attacker, question(middle)) == nothing:
            high = middle
        else:
            low = middle + 1
    return low


def test_a_limit_is_not_found_by_bisection(attacker: Any) -> None:
    """A number that is there often is a step in what the planner expects."""

    def question(number: int) -> str:
        return f"SELECT 1 FROM budget WHERE limit_nano_usd > {number}"

    assert bisected(attacker, question, above=10**13) == 0


@pytest.mark.parametrize("login", ["attacker", "dashboard"])
@pytest.mark.parametrize(
    ("table", "column"),
    [("llm_call", "request"), ("ai_call_log", "reply"), ("unprocessable_message", "raw")],
)
def test_a_body_is_not_found_by_bisection(
    request: pytest.FixtureRequest, login: str, table: str, column: str
) -> None:
    """Bytes are numbers too; nor by the dashboard, of whose tables other columns are estimated."""
    connection = request.getfixturevalue(login)

    def question(number: int) -> str:
        return f"SELECT 1 FROM {table} WHERE {column} > '\\x{number:0{2 * len(PROMPT)}x}'::bytea"

    assert bisected(connection, question, above=256 ** len(PROMPT) - 1) == 0


def test_no_column_of_no_table_is_told_of(attacker: Any, owner: PostgresSession) -> None:
    """Whatever is compared with whatever value that is there: the planner expects the same."""
    asked, leaks = 0, []
    for relation, columns, types in map(tuple, owner.rows(RELATIONS, {})):
        for column, type_ in zip(columns, types, strict=True):
            values = spread(owner, relation, column)
            for operator in ("<", "=", ">"):
                condition = f"SELECT 1 FROM {relation} WHERE {column} {operator}"
                questions = [f"{condition} {quoted(value)}::{type_}" for value in values]
                asked += len(questions) > 1
                if len({tuple(told(attacker, question)) for question in questions}) > 1:
                    leaks.append(f"{relation}.{column} {operator}")

    assert leaks == []
    assert asked > 100


def spread(owner: PostgresSession, relation: str, column: str) -> list[str]:
    """Up to three different values of a column."""
    three = "percentile_disc(ARRAY[0, 0.5, 1]) WITHIN GROUP"
    ((values,),) = owner.rows(f"SELECT {three} (ORDER BY {column}::text) FROM {relation}", {})
    return sorted({value for value in values or () if value is not None})


def quoted(value: str) -> str:
    """A literal."""
    return "'" + value.replace("'", "''") + "'"


@pytest.mark.parametrize("verb", ["UPDATE llm_call SET state = state", "DELETE FROM llm_call"])
def test_a_refused_write_tells_nothing_either(attacker: Any, verb: str) -> None:
    """It is planned like a read."""
    answers = [told(attacker, f"{verb} WHERE org_id = '{org}'") for org in ("theirs", "nobody")]

    assert answers[0] == answers[1]


READS = (
    "callgate_calls_v1('mine', NULL, NULL, NULL, 't', NULL, NULL, NULL, NULL, 10)",
    "callgate_dead_groups_v1(NULL, 't', NULL, NULL, NULL, NULL)",
    f"callgate_calls_v2('mine', NULL, NULL, NULL, NULL, 't', {', '.join(['NULL'] * 14)}, false, 10, true, 10)",
    "callgate_call_ids_v1(gen_random_uuid(), gen_random_uuid(), 10)",
    "callgate_views_v1(ARRAY[gen_random_uuid()], '{1}')",
    "callgate_attempts_of_call_v1(gen_random_uuid(), 1, 10)",
    "callgate_submissions_of_call_v1(gen_random_uuid(), 1, 10)",
    "callgate_costs_v1(NULL)",
    "callgate_costs_v2('mine', '-infinity', 'infinity', '{model}', NULL, 't', NULL, NULL, NULL, NULL, NULL)",
    "callgate_budgets_v1(NULL)",
    "callgate_spending_v1('{mine}', 30, 100)",
    "callgate_read_v2(ARRAY[gen_random_uuid()], '{1}', '{NULL}', 1000, true, 1)",
    "callgate_end_v1(ARRAY[gen_random_uuid()], '{1}', '{}', '{queued}')",
)


@pytest.mark.parametrize("function", READS, ids=lambda text: text.partition("(")[0])
def test_plans_inside_a_function_are_not_shown(attacker: Any, function: str) -> None:
    """Only that of the statement which calls it."""
    for _ in range(7):  # Some plans are made again until the sixth time.
        rows, notices = said(attacker, f"SELECT * FROM {function}")
        assert (rows, len(notices)) == ([], 1)
        assert "PLANNEDSTMT" in notices[0]


FILTERS = ("call_type", "provider", "model", "error_fingerprint")


@pytest.mark.parametrize("column", FILTERS)
def test_the_choice_of_a_plan_inside_a_function_tells_nothing(
    owner: PostgresSession, column: str
) -> None:
    """A client sets what plans cost, and sees in the counts of its own session which one was chosen."""
    guesses = ("what a rival has", "what nobody has")
    owner.rows("DELETE FROM llm_call WHERE org_id = 'third' OR state = 'dead'", {})
    have = [("theirs", guesses[0], 1_000), ("third", "something else", 300)]
    for org, value, count in (*have, *(("third", guess, 1) for guess in guesses)):
        owner.rows(DEAD.format(column=column), {"org": org, "value": value, "count": count})
    owner.rows("ANALYZE llm_call", {})

    with a_client(owner, "third") as url, talkative(url) as connection:
        said(connection, "SET enable_mergejoin = off; SET enable_bitmapscan = off")
        plans = {
            guess: [chosen(connection, column, guess, n) for n in range(-4, 12)]
            for guess in guesses
        }

    assert plans[guesses[0]] == plans[guesses[1]]
    assert len(set(plans[guesses[0]])) > 1


def chosen(connection: Any, column: str, value: str, power: int) -> tuple[int, ...]:
    """How the table was read, sequentially and by index, where a page from anywhere costs so much."""
    counts = "SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'llm_call'"
    filters = ", ".join(quoted(value) if c == column else "NULL" for c in FILTERS)
    said(connection, f"SET random_page_cost = {2**power}")
    before = said(connection, counts)[0] or [(0, 0)]
    rows, _ = said(
        connection, f"SELECT count FROM callgate_dead_groups_v1('third', {filters}, NULL)"
    )
    assert rows == [(1,)]
    return tuple(b - a for a, b in zip(before[0], said(connection, counts)[0][0], strict=True))


def test_every_table_is_planned_as_empty_for_clients(owner: PostgresSession) -> None:
    """Also a partition that is made later; and a view shows its reader what the tables would."""
    later = month(-5)
    owner.rows("SELECT callgate_make_partitions_v1(%(at)s, 1)", {"at": later})
    open_relations = owner.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND (relkind IN ('r', 'p') AND NOT relrowsecurity"
        "      OR relkind = 'v' AND coalesce('security_invoker=true' <> ALL (reloptions), true))",
        {},
    )
    readers = owner.rows(
        "SELECT DISTINCT polroles::regrole[]::text AS roles FROM pg_policy WHERE polcmd <> 'a'", {}
    )
    owner.rows(f"DROP TABLE {partition_of(later)}", {})

    assert [row.relname for row in open_relations] == []
    assert [row.roles for row in readers] == ["{callgate_dashboard}"]
