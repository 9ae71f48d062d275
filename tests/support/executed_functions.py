"""Which functions of the ledger a test run has executed: a run of all tests fails if it has missed one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.support.waiting import holds_within

FOLDER = resources.files("callgate.adapters.postgres") / "sql" / "functions"
COUNT = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET track_functions = ''all''', current_database()); END $$"
EXECUTED = "SELECT DISTINCT funcname FROM pg_stat_user_functions WHERE funcname LIKE 'callgate\\_%'"
OTHERS = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
LAST_REPORTS_S = 5.0
INLINED = re.compile(r"^LANGUAGE sql(?! [A-Z ]*SET )", re.MULTILINE)
_executed: set[str] = set()
"""By this process; in a run with several, by the ones that have ended."""


def count_executions(database_url: str) -> None:
    """Let Postgres count from the next connection on."""
    _rows(database_url, COUNT)


def keep_executed(database_url: str, config: pytest.Config) -> None:
    """Keep what was executed in a database; a process of xdist reports it to the one that started it."""
    # A connection reports its last statements when it ends, shortly after its client has closed it.
    holds_within(LAST_REPORTS_S, lambda: not _rows(database_url, OTHERS))
    _executed.update(name for (name,) in _rows(database_url, EXECUTED))
    if hasattr(config, "workeroutput"):
        config.workeroutput["executed_functions"] = sorted(_executed)


def add_executed_of(node: Any) -> None:
    """Add what a process of xdist has reported."""
    _executed.update(getattr(node, "workeroutput", {}).get("executed_functions", ()))


def missed_by(executed: Iterable[str] | None = None) -> list[str]:
    """
    The functions that nothing has executed.

    Postgres does not count a function in SQL that it inlines: it was executed if a function that names it was.
    """
    sources = {
        f"callgate_{name.removesuffix('.sql')}": (FOLDER / name).read_text("utf-8")
        for name in (path.name for path in FOLDER.iterdir())
    }
    inlined = {name for name, source in sources.items() if INLINED.search(source)}
    found = set(_executed if executed is None else executed)
    open_names = list(found)
    while open_names:
        source = _without_comments(sources.get(open_names.pop(), ""))
        named = {n for n in inlined - found if re.search(rf"\b{n}\b", source)}
        found |= named
        open_names += named
    return sorted(set(sources) - found)


def _without_comments(source: str) -> str:
    return re.sub(r"--.*", "", source)


def _rows(database_url: str, statement: str) -> list[Any]:
    engine = create_engine(database_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        result = connection.execute(text(statement))
        return list(result) if result.returns_rows else []
