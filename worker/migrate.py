"""Bring a database to the newest schema, or back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from callgate.adapters.postgres.refusals import TryAgain, translated
from callgate.adapters.postgres.session import open_engine
from callgate.adapters.postgres.version import VERSION, major_version
from callgate.domain.errors import ConfigurationError, LedgerUnavailable

SCRIPTS = Path(__file__).parents[1] / "migrations"
CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 5
"""How long a table is waited for. Everybody else waits behind, so it is better to give up and come again."""
LOOK_S = 0.5
HOLDERS = """SELECT k.relation::regclass::text AS held, a.usename AS login, a.pid,
    extract(epoch FROM clock_timestamp() - a.xact_start)::int AS age_s
  FROM unnest(pg_blocking_pids(%(pid)s)) AS b(pid) JOIN pg_stat_activity a USING (pid)
  JOIN pg_locks k ON k.pid = %(pid)s AND NOT k.granted ORDER BY age_s DESC NULLS LAST, a.pid LIMIT 1"""
MAY_END_SESSIONS = "SELECT callgate_may_end_sessions_v1()"
BOUND_LOGINS = """SELECT callgate_bound_login_v1(login)
  FROM (SELECT DISTINCT login FROM tenant_login ORDER BY login) logins"""


def migrate(
    database_url: str, revision: str = "head", *, on_wait: Callable[[str], None] = lambda _: None
) -> list[str]:
    """
    Run the migrations up to `revision`; `base` takes everything down. All of it is one transaction, safe to run again.

    Args:
        on_wait: Told, in one line, which table is waited for and who holds it.

    Returns:
        What is left to do for somebody with more rights: a line each, with the statements.

    Raises:
        LedgerUnavailable: The database did not answer, or somebody held a table for longer than `LOCK_TIMEOUT_S`.
        NotPermitted: The login does not own the ledger, or may not create it.
        ConfigurationError: The URL cannot be used, no schema of its search_path exists, the server is too old, or roles
            are missing and the login may not make them.
    """
    engine = open_engine(
        database_url, timeout_s=CONNECT_TIMEOUT_S, isolation_level="READ COMMITTED",
        skip_autocommit_rollback=False,
    )  # fmt: skip
    watch = _Watch(open_engine(database_url, timeout_s=CONNECT_TIMEOUT_S), on_wait)
    try:
        with translated(), engine.begin() as connection:
            _check(connection)
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'")
            with watch.over(pid):
                _move(connection, revision)
                return _left_to_do(connection) if revision == "head" else []
    except TryAgain as exc:
        why = f"{watch.seen}; nothing was changed: run it again" if watch.seen else exc
        raise LedgerUnavailable(f"cannot migrate now: {why}") from exc


def _check(connection: Connection) -> None:
    major_version(connection.exec_driver_sql(VERSION).scalar_one())
    if connection.exec_driver_sql("SELECT current_schema()").scalar() is None:
        raise ConfigurationError(
            "no schema of the search_path exists: CREATE SCHEMA first, or change options= of"
            " CALLGATE_DATABASE_URL, or the login's own search_path"
        )


def _move(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    move = command.downgrade if revision == "base" else command.upgrade
    move(config, revision)


def _left_to_do(connection: Connection) -> list[str]:
    """Do it, where this login may."""
    whys = {
        BOUND_LOGINS: "a client's login has no limits of time yet; run as who may alter it",
        MAY_END_SESSIONS: "clients that fill the table of locks cannot be stopped yet; run as a superuser",
    }
    return [
        f"{why}: {statements}"
        for sql, why in whys.items()
        for statements in connection.exec_driver_sql(sql).scalars()
        if statements
    ]


class _Watch:
    """Looks, on a connection of its own, whom a session waits for."""

    def __init__(self, engine: Engine, on_wait: Callable[[str], None]) -> None:
        self._engine = engine
        self._on_wait = on_wait
        self._is_over = threading.Event()
        self.seen: str | None = None
        """Whom it waited for last."""

    @contextmanager
    def over(self, pid: int) -> Iterator[None]:
        """Look while the body runs."""
        thread = threading.Thread(target=self._run, args=(pid,), name="migrate-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _run(self, pid: int) -> None:
        while not self._is_over.wait(LOOK_S):
            # What cannot be seen is not said: the migration itself says whether it failed.
            try:
                with self._engine.connect() as connection:
                    holder = connection.exec_driver_sql(HOLDERS, {"pid": pid}).one_or_none()
            except SQLAlchemyError:
                continue
            if holder is not None:
                self._tell(*holder)

    def _tell(self, held: str | None, login: str, pid: int, age_s: int | None) -> None:
        since = "" if age_s is None else f", in a transaction for {age_s} s"
        is_new = self.seen is None or f"pid {pid}" not in self.seen
        self.seen = f"{held or 'a row'} is held by {login} (pid {pid}{since})"
        if is_new:
            self._on_wait(self.seen)
