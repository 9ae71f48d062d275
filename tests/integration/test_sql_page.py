"""The page of SQL views is right: its queries run on a ledger with a history, with an analyst's login."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.roles import DASHBOARD, VIEWS
from devkit.seed.history import Plan, seed
from devkit.servers.embedded import DevServers
from devkit.servers.postgres import postgres_binary
from tests.support.logins import a_login
from tests.support.page_blocks import blocks_of, run_python
from tests.support.tables import EMPTY

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "sql.md"
PLAN = Plan(rows=3_000, calls=2_000, days=9, orgs=4, dead_share=0.1)
PSQL, DRIVER = "postgresql:", "postgresql+psycopg2:"
"""How a URL begins for psql, and for SQLAlchemy."""
QUERIES = [block.text for block in blocks_of(PAGE) if block.language == "sql"][1:]
SUMS = {
    "attempts": "SELECT sum(attempts) FROM call_without_bodies",
    "money": "SELECT sum(posted_nano_usd) FROM call_without_bodies",
    "tokens": "SELECT sum(input_tokens) + sum(output_tokens) FROM call_without_bodies",
}
ROWS = {
    "attempts": "SELECT count(*) FROM ai_call_log",
    "money": "SELECT sum(posted_nano_usd) FROM ai_call_log",
    "tokens": "SELECT sum(input_tokens) + sum(output_tokens) FROM ai_call_log",
}


@pytest.fixture(scope="module")
def analyst_url(services: DevServers) -> Iterator[str]:
    """An analyst's login to a ledger with a history."""
    engine = create_engine(services.database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(EMPTY)
    seed(engine, PLAN)
    with a_login(services.database_url, DASHBOARD) as url:
        yield url.replace(DRIVER, PSQL)
    with engine.connect() as connection:
        connection.exec_driver_sql(EMPTY)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    engine = create_engine(url.replace(PSQL, DRIVER), poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query.replace("%", "%%"))]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.split("\n")[0][:40])
def test_a_query_of_the_page_finds_something(analyst_url: str, query: str) -> None:
    assert rows(analyst_url, query)


def test_there_are_five_queries() -> None:
    assert len(QUERIES) == 5


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_an_analyst_may_select_every_column(analyst_url: str, view: str) -> None:
    assert rows(analyst_url, f"SELECT * FROM {view} LIMIT 1")  # noqa: S608 - our own names


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_the_page_names_the_columns_of_a_view(analyst_url: str, view: str) -> None:
    _, section = PAGE.read_text("utf-8").split(f"\n## `{view}`\n")
    table = re.findall(r"^\| (`.*?) \|", section.partition("\n## ")[0], re.MULTILINE)
    named = sorted(name for cell in table for name in re.findall(r"`(\w+)`", cell))

    found = rows(
        analyst_url,
        f"SELECT attname FROM pg_attribute WHERE attrelid = '{view}'::regclass AND attnum > 0",  # noqa: S608
    )
    assert named == sorted(str(name) for (name,) in found)


@pytest.mark.parametrize("figure", SUMS)
def test_the_view_of_calls_has_all_that_the_log_has(analyst_url: str, figure: str) -> None:
    assert rows(analyst_url, SUMS[figure]) == rows(analyst_url, ROWS[figure])


def test_the_view_of_calls_has_each_call_once(analyst_url: str) -> None:
    assert rows(analyst_url, "SELECT count(*) FROM call_without_bodies") == rows(
        analyst_url, "SELECT count(call_id) FROM llm_call"
    )


def test_the_command_of_the_page_prints_rows(analyst_url: str) -> None:
    (command,) = [block.text for block in blocks_of(PAGE) if block.language == "console"]
    programs = postgres_binary().parent

    done = subprocess.run(  # noqa: S603 - the page is ours
        ["/bin/bash", "-euc", command],
        env={**os.environ, "ANALYST_URL": analyst_url, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.startswith("org_id,call_id,")
    assert len(lines) == 20


def test_pandas_reads_the_views(analyst_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANALYST_URL", analyst_url)

    names = run_python(PAGE)

    assert len(names["table"].columns) == PLAN.orgs
    assert round(names["share"].sum(), 6) == 1
    assert 0 < len(names["slow"]) < len(names["calls"])
