"""
One way to run a statement: bounded in time, errors translated, transient ones retried.

A stopped Postgres answers no query and breaks no socket, so every statement has a deadline on this side: past it the
connection is broken and discarded, and the caller hears `LedgerUnavailable`.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn
from sqlalchemy import create_engine, make_url
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from callgate.db.roles import who_may
from callgate.domain.errors import (
    ConfigurationError,
    LedgerUnavailable,
    NotMigrated,
    NotPermitted,
)

T = TypeVar("T")

RETRIED_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
"""Serialisation failure, deadlock, lock timeout: the same statement may pass the next time."""
NOT_MIGRATED_SQLSTATES = frozenset({"42P01", "42883", "3F000", "42703"})
ROW_SQLSTATE_CLASSES = frozenset({"22", "23", "54", "P0"})
"""Data exception, constraint violation, limit exceeded, raised by our functions: a row is to blame."""
REFUSED_SQLSTATE_CLASSES = frozenset({"28", "42"})
NOT_PERMITTED_SQLSTATE = "42501"
RAISED_BY_US = "exec_stmt_raise"
"""Where in Postgres an error comes from that a function of ours raised, in words of its own."""
TRIES_MAX = 5


class RowRefused(Exception):
    """Postgres refused a statement because of what is in it; a smaller batch finds the row."""


class PostgresSession:
    """
    Runs statements in autocommit, each with a client-side deadline.

    Errors: LedgerUnavailable, NotMigrated, ConfigurationError; RowRefused where a row is to blame.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, pool_size: int = 8) -> None:
        """Open nothing yet. `timeout_s` bounds the wait for a connection and, apart from it, for each statement."""
        self._timeout_s = timeout_s
        self._watchdog = _Watchdog()
        self.engine = _engine(url, timeout_s, pool_size)

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[Row[Any]]:
        """Run one statement as one transaction and fetch its rows."""

        def run(connection: Connection) -> list[Row[Any]]:
            result = connection.exec_driver_sql(sql, dict(parameters))
            return list(result.fetchall()) if result.returns_rows else []

        return self._run(run)

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()
        self._watchdog.close()

    def _run(self, work: Callable[[Connection], T]) -> T:
        give_up_at = time.monotonic() + self._timeout_s
        for attempt in itertools.count(1):
            try:
                with (
                    _translated(),
                    self.engine.connect() as connection,
                    self._watchdog.deadline(connection, self._timeout_s),
                ):
                    return work(connection)
            except _TryAgain as exc:
                if attempt == TRIES_MAX or time.monotonic() > give_up_at:
                    raise LedgerUnavailable(f"the ledger stayed busy: {exc}") from exc
                time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")


class _TryAgain(Exception):
    """The transaction lost a race."""


def unusable(url: str) -> str | None:
    """Why no connection could be made with this URL, or None; nothing of it is quoted but names of options."""
    try:
        arguments = make_url(url).translate_connect_args(username="user", database="dbname")
        make_dsn(**{**arguments, **make_url(url).query})
    except (ValueError, ArgumentError):
        # In its words the port, which may be what a password that is not escaped begins with.
        return "its port is no number"
    except ProgrammingError as exc:
        return str(exc).strip().removeprefix("invalid dsn: ")
    return None


def _engine(url: str, timeout_s: float, pool_size: int) -> Engine:
    milliseconds = int(timeout_s * 1000)
    options = " ".join(
        f"-c {name}={value}"
        for name, value in {
            "statement_timeout": milliseconds,
            "lock_timeout": milliseconds // 3,
            "idle_in_transaction_session_timeout": milliseconds * 2,
            "jit": "off",
            "timezone": "UTC",
        }.items()
    )
    if reason := unusable(url):
        raise ConfigurationError(f"the database URL cannot be used: {reason}")
    try:
        return create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout_s,
            skip_autocommit_rollback=True,
            # Or errors and logs would quote prompts and replies.
            hide_parameters=True,
            connect_args={
                "connect_timeout": max(2, round(timeout_s)),
                "options": options,
                "application_name": "callgate",
            },
        )
    except (SQLAlchemyError, ImportError) as exc:
        raise ConfigurationError(f"the database URL cannot be used: {exc}") from exc


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what psycopg2 and SQLAlchemy raise into callgate's errors; messages never carry parameters."""
    try:
        yield
    except PoolTimeout as exc:
        raise LedgerUnavailable("no database connection was free in time") from exc
    except DBAPIError as exc:
        raise _meaning(exc) from exc
    except ValueError as exc:
        # psycopg2 refuses NUL characters before anything is sent.
        raise RowRefused(str(exc)) from exc


def _meaning(exc: DBAPIError) -> Exception:
    sqlstate = getattr(exc.orig, "sqlstate", None) or getattr(exc.orig, "pgcode", None) or ""
    diag = getattr(exc.orig, "diag", None)
    diagnosis = getattr(diag, "message_primary", None)
    text = f"{type(exc.orig).__name__}: {diagnosis or _without_answer(exc)}"
    if sqlstate in RETRIED_SQLSTATES:
        return _TryAgain(text)
    if sqlstate in NOT_MIGRATED_SQLSTATES:
        return NotMigrated(f"the database is not migrated ({text}): run `callgate migrate`")
    if sqlstate[:2] in ROW_SQLSTATE_CLASSES:
        return RowRefused(text)
    if sqlstate == NOT_PERMITTED_SQLSTATE:
        is_ours = getattr(diag, "source_function", None) == RAISED_BY_US
        remedy = "" if is_ours else f"; CALLGATE_DATABASE_URL must name {who_may(text)}"
        return NotPermitted(f"Postgres refused: {text}{remedy}")
    if sqlstate[:2] in REFUSED_SQLSTATE_CLASSES:
        return ConfigurationError(f"Postgres refused: {text}")
    return LedgerUnavailable(f"the ledger did not answer: {text}")


def _without_answer(exc: DBAPIError) -> str:
    """What libpq says of a connection that failed or broke: where to and why, but no parameters."""
    said = str(exc.orig).strip() if isinstance(exc, OperationalError) else ""
    return said.partition("\n")[0] or "no answer from Postgres"


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
        self._pid = 0
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
        # A forked child has the object but not the thread.
        if self._thread is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._watch, name="ledger-deadline", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                while self._deadlines and self._deadlines[0][0] <= now:
                    _, watch_id = heapq.heappop(self._deadlines)
                    # Still watched means still running: its descriptor cannot have been reused.
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
        pass  # It broke by itself meanwhile.
