"""Bring a database to the newest schema, or back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from callgate.adapters.postgres.refusals import TryAgain, translated
from callgate.adapters.postgres.session import open_engine
from callgate.adapters.postgres.version import VERSION, major_version
from callgate.domain.errors import ConfigurationError, LedgerUnavailable, NotMigrated

SCRIPTS = Path(__file__).parents[1] / "migrations"
VERSION_TABLE = "callgate_version"
CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 5
"""How long a migration waits for a table. All other sessions queue behind it, so it gives up and is run again."""
WATCH_INTERVAL_S = 0.5
HOLDERS = """SELECT k.relation::regclass::text AS relation, a.usename AS login, a.pid,
    extract(epoch FROM clock_timestamp() - a.xact_start)::int AS age_s
  FROM unnest(pg_blocking_pids(%(pid)s)) AS b(pid) JOIN pg_stat_activity a USING (pid)
  JOIN pg_locks k ON k.pid = %(pid)s AND NOT k.granted ORDER BY age_s DESC NULLS LAST, a.pid LIMIT 1"""
FILL_SUMS = "SELECT callgate_fill_sums_v1()"
MAY_END_SESSIONS = "SELECT callgate_may_end_sessions_v1()"
BOUND_LOGINS = """SELECT callgate_bound_login_v1(login)
  FROM (SELECT DISTINCT login FROM tenant_login ORDER BY login) logins"""


def migrate(
    database_url: str, revision: str = "head", *, on_wait: Callable[[str], None] = lambda _: None
) -> list[str]:
    """
    Run the migrations up to `revision`; `base` drops the ledger. It is one transaction, and safe to repeat.

    After that the sums of a ledger of 0.1.0 are filled, day by day. The ledger goes on meanwhile.

    Args:
        on_wait: Called with one line that names the table that is waited for and the session that holds it.

    Returns:
        What this login has no right to do: one line each, with the statements for a login that has it.

    Raises:
        LedgerUnavailable: The database did not answer, or another session held a table for `LOCK_TIMEOUT_S`.
        NotMigrated: The ledger is older than release 0.1.0, or newer than this version of callgate.
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
                left = _left_to_do(connection) if revision == "head" else []
        if revision == "head":
            _fill_sums(engine)
        return left
    except LookupError as exc:
        # Migrations are frozen text: they know none of callgate's own errors.
        raise ConfigurationError(str(exc)) from exc
    except TryAgain as exc:
        why = (
            f"{watch.last_holder}; nothing was changed: run it again" if watch.last_holder else exc
        )
        raise LedgerUnavailable(f"cannot migrate now: {why}") from exc


def _check(connection: Connection) -> None:
    major_version(connection.exec_driver_sql(VERSION).scalar_one())
    if connection.exec_driver_sql("SELECT current_schema()").scalar() is None:
        raise ConfigurationError(
            "no schema of the search_path exists: CREATE SCHEMA first, or change options= of"
            " CALLGATE_DATABASE_URL, or the login's own search_path"
        )
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    known = {script.revision for script in ScriptDirectory(str(SCRIPTS)).walk_revisions()}
    if unknown := set(context.get_current_heads()) - known:
        raise NotMigrated(
            f"this version of callgate does not know revision {', '.join(sorted(unknown))} of the ledger: a ledger"
            " from before release 0.1.0 cannot be migrated, so create a new one in an empty database or schema;"
            " for a newer ledger install the version of callgate that migrated it"
        )


def _move(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    move = command.downgrade if revision == "base" else command.upgrade
    move(config, revision)


def _fill_sums(engine: Engine) -> None:
    """Sum up the days of before the sums were kept, each in a transaction. Workers go on with what is left."""
    with translated(), engine.connect() as connection:
        while connection.exec_driver_sql(FILL_SUMS).scalar() is not None:
            connection.commit()


def _left_to_do(connection: Connection) -> list[str]:
    """Limit client logins, and let the owner end their sessions, as far as this login has the right."""
    reasons = {
        BOUND_LOGINS: "a client's login has no time limits yet; run this as a role that may alter the login",
        MAY_END_SESSIONS: "clients that fill the table of locks cannot be stopped yet; run this as a superuser",
    }
    return [
        f"{reason}: {statements}"
        for sql, reason in reasons.items()
        for statements in connection.exec_driver_sql(sql).scalars()
        if statements
    ]


class _Watch:
    """Finds out which session another one waits for, on a connection of its own."""

    def __init__(self, engine: Engine, on_wait: Callable[[str], None]) -> None:
        self._engine = engine
        self._on_wait = on_wait
        self._is_over = threading.Event()
        self._reported: set[int] = set()
        """The process ids of the holders that were reported."""
        self.last_holder: str | None = None
        """The session that it waited for last."""

    @contextmanager
    def over(self, pid: int) -> Iterator[None]:
        """Watch while the body runs."""
        thread = threading.Thread(target=self._run, args=(pid,), name="migrate-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _run(self, pid: int) -> None:
        while not self._is_over.wait(WATCH_INTERVAL_S):
            # A failed look is skipped: the migration itself reports its result.
            try:
                with self._engine.connect() as connection:
                    holder = connection.exec_driver_sql(HOLDERS, {"pid": pid}).one_or_none()
            except SQLAlchemyError:
                continue
            if holder is not None:
                self._report(*holder)

    def _report(self, relation: str | None, login: str, pid: int, age_s: int | None) -> None:
        """Report a holder once per process id."""
        since = "" if age_s is None else f", in a transaction for {age_s} s"
        self.last_holder = f"{relation or 'a row'} is held by {login} (pid {pid}{since})"
        if pid not in self._reported:
            self._reported.add(pid)
            self._on_wait(self.last_holder)
