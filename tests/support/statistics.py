"""What Postgres knows of the tables when it plans: its statistics, which describe how they were at some time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

from tests.support.ledger_under_test import ORG
from tests.support.many_calls import WAIT, WORK
from tests.support.tables import TRUNCATE

COUNTS = (1, 20, 300, 3_000, 8_000)
WAITS = ("rate_limited", "concurrency_limited")
FORGET = """
SELECT pg_clear_relation_stats('public', c.relname), pg_clear_attribute_stats('public', c.relname, a.attname, false)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'i', 'p')"""
UNDER_WAY = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"


@contextmanager
def forgotten(engine: Engine) -> Iterator[None]:
    """Statistics are forgotten first, and Postgres takes none meanwhile by itself."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET autovacuum = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
        try:
            while connection.exec_driver_sql(UNDER_WAY).scalar_one():
                connection.exec_driver_sql("SELECT pg_sleep(0.05)")
            connection.exec_driver_sql(FORGET)
            yield
        finally:
            connection.exec_driver_sql("ALTER SYSTEM RESET autovacuum")
            connection.exec_driver_sql("SELECT pg_reload_conf()")


def count_all(engine: Engine) -> None:
    """Let Postgres know each table as it is, and which pages need no look."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")


def take_statistics(engine: Engine, rng: random.Random) -> None:
    """Let Postgres know a table of any calls, and empty it."""
    with engine.begin() as connection:
        for org in rng.sample([ORG, "bolt", "nova", "x", "y"], rng.randint(1, 5)):
            for state in rng.sample(["running", "queued", "waiting"], rng.randint(1, 3)):
                row = {"org": org, "state": state, "hold": None, "count": rng.choice(COUNTS)}
                connection.execute(text(WORK), row)
            for wait in rng.sample(WAITS, rng.randint(0, 2)):
                rows = {"org": org, "wait": wait, "count": rng.choice(COUNTS[:-1])}
                connection.execute(text(WAIT), rows)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    with engine.begin() as connection:
        connection.execute(text(TRUNCATE))
