"""
Make up a year of plausible history in an empty, migrated ledger: for measurements at scale, never for production.

Organisations are of very different sizes, days of very different calls. Every call has its rows, every row its budgets,
and the sums are filled as an upgrade fills them. So an audit of it is clean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine

DAY = Path(__file__).with_name("day.sql")
LIMIT_NANO_USD = 10**15
BUDGETS = """
CREATE TEMP TABLE made_budget AS SELECT DISTINCT org_id, NULL::bigint AS day_id, NULL::bigint AS month_id
  FROM (SELECT 'org-' || lpad(n::text, 4, '0') AS org_id FROM generate_series(1, {orgs}) n) o;
"""
BUDGETS_OF_A_DAY = """
WITH made AS (
    INSERT INTO budget (org_id, scope, "window", starts_at, ends_at, limit_nano_usd)
    SELECT org_id, 'org', '{window}', p.starts_at, p.ends_at, {limit}
      FROM made_budget CROSS JOIN LATERAL callgate_period_v1('{window}', 'UTC', '{day}') p
    RETURNING id, org_id)
UPDATE made_budget b SET {window}_id = made.id FROM made WHERE made.org_id = b.org_id
"""
LATER_PARTITIONS = "SELECT callgate_make_partitions_v1('{day}', 1)"
SUM_UP = "SELECT callgate_correct_sums_v1('{day}')"
FOLD = "SELECT callgate_fold_sums_v1(50000)"
SPENT = """
UPDATE budget b SET spent_nano_usd = s.posted
  FROM (SELECT budget_id, sum(posted_nano_usd) AS posted FROM budget_sum GROUP BY 1) s WHERE s.budget_id = b.id
"""
TABLES = (
    "llm_call",
    "submission",
    "ai_call_log",
    "budget",
    "attempt_delta",
    "quarter_sum",
    "day_sum",
    "budget_sum",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much history to make."""

    rows: int = 10_000_000
    """Of the log, about."""
    calls: int = 1_000_000
    days: int = 365
    orgs: int = 60
    dead_share: float = 0.02

    def day_sizes(self) -> list[int]:
        """How many calls each day has: less at weekends, and more towards the end."""
        weights = [
            (0.35 if day % 7 in (5, 6) else 1.0) * (0.6 + 0.8 * day / self.days)
            for day in range(self.days)
        ]
        return [max(1, math.floor(self.calls * weight / sum(weights))) for weight in weights]


def seed(engine: Engine, plan: Plan, *, progress: Callable[[str], None] = lambda _: None) -> None:
    """
    Fill an empty ledger.

    Raises:
        ValueError: The ledger has calls.
    """
    with engine.connect() as connection:
        if connection.exec_driver_sql("SELECT count(*) FROM llm_call").scalar():
            raise ValueError("only an empty ledger is seeded")
        connection.exec_driver_sql("SET synchronous_commit = off; SET timezone = 'UTC'")
        connection.exec_driver_sql("SELECT setseed(0.42)")
        connection.exec_driver_sql(BUDGETS.format(orgs=plan.orgs))
        for number, (day, calls) in enumerate(_days(plan)):
            _make_day(connection, plan, day, calls, is_first=number == 0)
            if number % 30 == 29:
                progress(f"{number + 1} of {plan.days} days")
        for back in (1, 0):
            day = datetime.now(UTC).date() - timedelta(days=back)
            connection.exec_driver_sql(SUM_UP.format(day=day))
        while connection.exec_driver_sql(FOLD).scalar():
            pass
        connection.exec_driver_sql(SPENT)
        for table in TABLES:
            connection.exec_driver_sql(f"VACUUM (ANALYZE) {table}")


def _days(plan: Plan) -> Iterator[tuple[date, int]]:
    first = datetime.now(UTC).date() - timedelta(days=plan.days)
    for number, calls in enumerate(plan.day_sizes()):
        yield first + timedelta(days=number), calls


def _make_day(connection: Connection, plan: Plan, day: date, calls: int, *, is_first: bool) -> None:
    if is_first or day.day == 1:
        connection.exec_driver_sql(LATER_PARTITIONS.format(day=day))
        _budgets(connection, "month", day)
    _budgets(connection, "day", day)
    values = {
        "day": str(day),
        "calls": str(calls),
        "orgs": str(plan.orgs),
        "attempts_mean": str(max(1, round(plan.rows / plan.calls))),
        "dead_share": str(plan.dead_share),
    }
    statements = DAY.read_text("utf-8")
    for name, value in values.items():
        statements = statements.replace(f"{{{name}}}", value)
    connection.exec_driver_sql(f"BEGIN; {statements.replace('%', '%%')} COMMIT")
    # Attempts of the evening go on after midnight, so the day before is complete now.
    connection.exec_driver_sql(SUM_UP.format(day=day - timedelta(days=1)))
    while connection.exec_driver_sql(FOLD).scalar():
        pass


def _budgets(connection: Connection, window: str, day: date) -> None:
    statement = BUDGETS_OF_A_DAY.format(window=window, day=day, limit=LIMIT_NANO_USD)
    connection.exec_driver_sql(statement)
