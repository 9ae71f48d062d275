"""
Runs statements: with a deadline, with errors translated, and with transient errors retried.

A stopped Postgres answers no query and breaks no socket. So every statement has a deadline on the client's side. After
it the connection is broken and discarded, and the caller gets `LedgerUnavailable`.

A statement brings its own settings, and nothing is kept in the server's session. So it also works through a pooler
that gives each transaction another session (PgBouncer in transaction mode).
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import select
import socket
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn, TypeVar

import psycopg2
from sqlalchemy import Pool, create_engine, event
from sqlalchemy.engine import Connection, Engine, ExceptionContext, Row
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from callgate.adapters.postgres.refusals import TryAgain, ends_connection, translated
from callgate.adapters.postgres.url import connect_arguments, unusable
from callgate.adapters.postgres.version import OLDER, SCHEMA, require_schema
from callgate.domain.errors import ConfigurationError, LedgerUnavailable, NotMigrated
from callgate.per_process import PerProcess

T = TypeVar("T")

TRIES_MAX = 5
TOKEN_BYTES = 8
UNENDING = """SELECT set_config(name, '0', true) FROM pg_settings
  WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')"""
"""For a transaction that is kept. transaction_timeout: Postgres 17 and later."""
FOREIGN = "an answer to another question came back; every connection of this process was discarded"


class PostgresSession:
    """
    Runs statements in autocommit, each with a client-side deadline. Threads may share it, and forked children too.

    Errors: LedgerUnavailable, NotMigrated, NotPermitted, ConfigurationError; RowRefused where a row is to blame.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        pool_size: int = 8,
        checks_schema: bool = False,
        role: str | None = None,
    ) -> None:
        """
        Open nothing yet.

        Args:
            timeout_s: Bounds the wait for a connection and, apart from it, for each statement.
            checks_schema: Check with the first connection that the ledger is one that this version can use.
            role: A database role that the login is a member of. Statements have its rights and no others.
        """
        if reason := unusable(url):
            raise ConfigurationError(f"the database URL cannot be used: {reason}")
        self.url = url
        self._timeout_s = timeout_s
        self._preamble = _preamble(timeout_s) + (f"SET LOCAL ROLE {role}; " if role else "")
        self._checks_schema = checks_schema
        self._own = PerProcess(
            lambda: _Own(
                open_engine(
                    url, timeout_s=timeout_s, poolclass=QueuePool, pool_size=pool_size,
                    max_overflow=0, pool_timeout=timeout_s,
                ),
                _Watchdog(),
            )
        )  # fmt: skip

    @property
    def engine(self) -> Engine:
        """The connections of this process."""
        return self._own().engine

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[Row[Any]]:
        """Run one statement as one transaction and fetch its rows."""

        def run(connection: Connection) -> list[Row[Any]]:
            result = connection.exec_driver_sql(self._preamble + sql, dict(parameters))
            return list(result.fetchall()) if result.returns_rows else []

        return self._run(run)

    def answers(self, select_sql: str, parameters: Mapping[str, Any]) -> list[Any]:
        """
        Run one SELECT as one transaction, and fetch its rows, as named tuples, if they are the answer to it.

        Each statement has a token, and each of its rows returns it. A row with another token, or none, answers another
        process that uses the same connection.

        Raises:
            LedgerUnavailable: Another process uses it. All connections are discarded; asking again is safe.
        """
        token = os.urandom(TOKEN_BYTES).hex()
        rows: list[Any] = self.rows(
            f"SELECT answer.*, answer IS NULL, '{token}' AS token FROM (VALUES (1)) one"  # noqa: S608
            f" LEFT JOIN LATERAL ({select_sql}) answer ON true",
            parameters,
        )
        if not rows or any(row[-1] != token for row in rows):
            self.distrust()
        names = _named(rows[0]._fields[:-2])
        return [names._make(row[:-2]) for row in rows if not row[-2]]

    def distrust(self) -> NoReturn:
        """Discard every connection, because an answer was not to its question. Raises `LedgerUnavailable`."""
        self.engine.dispose()
        raise LedgerUnavailable(FOREIGN)

    def keep(self, sql: str) -> KeptTransaction:
        """
        Begin a transaction that stays open on a connection of its own, and with it the locks of what `sql` reads.

        It holds back no vacuum: between two statements it sees nothing. No limit of time of the server's ends it.
        """
        own = self._own()
        with translated():
            kept = KeptTransaction(own.engine.connect(), own.watchdog, self._timeout_s)
        try:
            kept.rows(f"BEGIN; {self._preamble}{UNENDING}; {sql}")
        except BaseException:
            kept.close()
            raise
        return kept

    def close(self) -> None:
        """Close the pooled connections."""
        own = self._own()
        own.engine.dispose()
        own.watchdog.close()

    def _run(self, work: Callable[[Connection], T]) -> T:
        give_up_at = time.monotonic() + self._timeout_s
        own = self._own()
        for attempt in itertools.count(1):
            try:
                with (
                    translated(),
                    own.engine.connect() as connection,
                    own.watchdog.deadline(connection, self._timeout_s),
                ):
                    if self._checks_schema and not own.is_schema_known:
                        self._require_schema(connection)
                        own.is_schema_known = True
                    return work(connection)
            except TryAgain as exc:
                if attempt == TRIES_MAX or time.monotonic() > give_up_at:
                    raise LedgerUnavailable(f"the ledger let nothing pass: {exc}") from exc
                time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")

    def _require_schema(self, connection: Connection) -> None:
        """
        Check which schema the ledger has.

        Raises:
            NotMigrated: This version cannot use it.
        """
        try:
            with translated():
                rows = connection.exec_driver_sql(self._preamble + SCHEMA).fetchall()
        except NotMigrated as exc:
            raise NotMigrated(OLDER) from exc
        if len(rows) != 1:
            self.distrust()
        require_schema(*rows[0])


class KeptTransaction:
    """A transaction that stays open until it is closed; after an error it must be. One thread at a time."""

    def __init__(self, connection: Connection, watchdog: _Watchdog, timeout_s: float) -> None:
        self._connection = connection
        self._watchdog = watchdog
        self._timeout_s = timeout_s

    def rows(self, sql: str) -> list[Row[Any]]:
        """
        Run a statement in it and fetch its rows.

        Raises:
            LedgerUnavailable, NotMigrated, NotPermitted, ConfigurationError, RowRefused
        """
        try:
            with translated(), self._watchdog.deadline(self._connection, self._timeout_s):
                result = self._connection.exec_driver_sql(sql)
                return list(result.fetchall()) if result.returns_rows else []
        except TryAgain as exc:
            raise LedgerUnavailable(f"the ledger let nothing pass: {exc}") from exc

    def close(self) -> None:
        """End it, and its connection."""
        with suppress(SQLAlchemyError):
            self._connection.invalidate()
        self._connection.close()


def open_engine(
    url: str, *, timeout_s: float, poolclass: type[Pool] = NullPool, **options: Any
) -> Engine:
    """
    Make connections to what a URL means, in autocommit unless `options` say otherwise.

    Connections set no startup parameters: poolers refuse them.
    """
    arguments = connect_arguments(url, timeout_s)
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=lambda: psycopg2.connect(**arguments),
        poolclass=poolclass,
        # Otherwise errors and logs would quote prompts and replies.
        hide_parameters=True,
        use_native_hstore=False,
        **{"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True, **options},
    )
    event.listen(engine, "handle_error", _discard_if_bad)
    event.listen(engine, "checkout", _discard_if_ended)
    return engine


@cache
def _named(columns: tuple[str, ...]) -> Any:
    """One type for the rows of each statement."""
    return namedtuple("Answer", columns)


def _preamble(timeout_s: float) -> str:
    """The settings of one statement. Both are sent in one message, so they are one transaction."""
    milliseconds = int(timeout_s * 1000)
    settings = {
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds // 3,
        "jit": "off",
        "timezone": "UTC",
    }
    return "".join(f"SET LOCAL {name} = {value}; " for name, value in settings.items())


def _discard_if_bad(context: ExceptionContext) -> None:
    """Discard a connection that is of no more use, and those that were opened before it."""
    if context.original_exception is not None and ends_connection(context.original_exception):
        context.is_disconnect = True


def _discard_if_ended(dbapi_connection: Any, record: object, proxy: object) -> None:
    """
    Discard a connection on which the server has sent something unasked: mostly that the session has ended.

    So no statement fails because of a restart, a failover or an idle timeout while the connection was unused.
    """
    heard = select.poll()
    heard.register(dbapi_connection.fileno(), select.POLLIN)
    if heard.poll(0):
        raise InvalidatePoolError


@dataclass
class _Own:
    """The connections and the watchdog of one process."""

    engine: Engine
    watchdog: _Watchdog
    is_schema_known: bool = False


class _Watchdog:
    """
    Breaks connections whose statement outlives its deadline.

    One thread for all statements of a process. It shuts the socket down; the thread that waits for the answer then gets
    an error, and the pool discards the connection.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deadlines: list[tuple[float, int]] = []
        self._sockets: dict[int, int] = {}
        self._ids = itertools.count()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @contextmanager
    def deadline(self, connection: Connection, timeout_s: float) -> Iterator[None]:
        """Run the body for at most `timeout_s` seconds."""
        fd: int = connection.connection.driver_connection.fileno()  # type: ignore[union-attr]
        expires_at = time.monotonic() + timeout_s
        with self._changed:
            self._ensure_thread()
            watch_id = next(self._ids)
            self._sockets[watch_id] = fd
            heapq.heappush(self._deadlines, (expires_at, watch_id))
            if self._deadlines[0][1] == watch_id:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._sockets.pop(watch_id, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _ensure_thread(self) -> None:
        """Start the thread with the first statement; call under `_changed`. Each process has its own watchdog."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="ledger-deadline", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                while self._deadlines and self._deadlines[0][0] <= now:
                    _, watch_id = heapq.heappop(self._deadlines)
                    # It is still watched, so the statement still runs: its descriptor was not reused.
                    fd = self._sockets.pop(watch_id, None)
                    if fd is not None:
                        _break_socket(fd)
                wait_s = self._deadlines[0][0] - now if self._deadlines else None
                self._changed.wait(wait_s)


def _break_socket(fd: int) -> None:
    try:
        with socket.socket(fileno=os.dup(fd)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It has broken meanwhile.
