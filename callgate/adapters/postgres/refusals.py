"""What Postgres, psycopg2 and SQLAlchemy raise, in callgate's words: no other exception leaves the database's side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from callgate.adapters.postgres.roles import who_may
from callgate.domain.errors import (
    CallgateError,
    ConfigurationError,
    LedgerUnavailable,
    NotMigrated,
    NotPermitted,
    RowRefused,
)

READ_ONLY_SQLSTATES = frozenset({"25006", "55000"})
"""The server is a standby, or is to be one; a new connection may lead to the one that took over."""
IDLE_SQLSTATES = frozenset({"25P03", "57P05"})
"""The server ended the session because nobody spoke: before this statement."""
RETRIED_SQLSTATES = {"40001", "40P01", "55P03"} | READ_ONLY_SQLSTATES | IDLE_SQLSTATES
"""And serialisation failure, deadlock, lock timeout: the statement had no effect, and may pass the next time."""
BAD_CONNECTION = ("08", "25P", "57P", *READ_ONLY_SQLSTATES)
"""
How a SQLSTATE begins whose connection is of no more use, as are those that were opened before it.

Broken, in a transaction nobody here began, shut down, starting up, idle too long.
"""
NOT_MIGRATED_SQLSTATES = frozenset({"42P01", "42883", "3F000", "42703"})
ROW_SQLSTATE_CLASSES = frozenset({"21", "22", "23", "54", "P0"})
"""Cardinality, data exception, constraint violation, limit exceeded, raised by our functions: a row is to blame."""
REFUSED_SQLSTATE_CLASSES = frozenset({"28", "3D", "42"})
NOT_PERMITTED_SQLSTATE = "42501"
RAISED_BY_US = "exec_stmt_raise"
"""Where in Postgres an error comes from that a function of ours raised, in words of its own."""
STARTUP_REFUSED = "unsupported startup parameter"
"""PgBouncer's words for what a URL asks of the server before the first statement."""


class TryAgain(Exception):
    """The statement had no effect and may pass the next time."""


@contextmanager
def translated() -> Iterator[None]:
    """
    Turn every error of a database into callgate's; messages never carry parameters.

    Raises:
        TryAgain: The same statement may pass the next time.
        LedgerUnavailable, NotMigrated, NotPermitted, ConfigurationError, RowRefused
    """
    try:
        yield
    except PoolTimeout as exc:
        raise LedgerUnavailable("no database connection was free in time") from exc
    except DBAPIError as exc:
        raise _meaning(exc) from exc
    except (SQLAlchemyError, psycopg2.Error, OSError) as exc:
        raise LedgerUnavailable(f"the ledger did not answer: {type(exc).__name__}") from exc
    except ValueError as exc:
        # psycopg2 refuses NUL characters before anything is sent.
        raise RowRefused(str(exc)) from exc


def sqlstate_of(exc: BaseException | None) -> str:
    """The code of an error of psycopg2's, or nothing."""
    return getattr(exc, "sqlstate", None) or getattr(exc, "pgcode", None) or ""


def ends_connection(exc: BaseException) -> bool:
    """Whether the connection that brought this error must not be used again."""
    return sqlstate_of(exc).startswith(BAD_CONNECTION)


def _meaning(exc: DBAPIError) -> CallgateError | TryAgain:
    sqlstate = sqlstate_of(exc.orig)
    diag = getattr(exc.orig, "diag", None)
    diagnosis = getattr(diag, "message_primary", None)
    text = f"{type(exc.orig).__name__}: {diagnosis or _without_answer(exc)}"
    if sqlstate in RETRIED_SQLSTATES:
        return TryAgain(text)
    if sqlstate in NOT_MIGRATED_SQLSTATES:
        return NotMigrated(
            f"the database has no ledger of this version ({text}): run `callgate migrate`"
        )
    if sqlstate[:2] in ROW_SQLSTATE_CLASSES:
        return RowRefused(text)
    if sqlstate == NOT_PERMITTED_SQLSTATE:
        is_ours = getattr(diag, "source_function", None) == RAISED_BY_US
        remedy = "" if is_ours else f"; CALLGATE_DATABASE_URL must name {who_may(text)}"
        return NotPermitted(f"Postgres refused: {text}{remedy}")
    if sqlstate[:2] in REFUSED_SQLSTATE_CLASSES:
        return ConfigurationError(f"Postgres refused: {text}")
    if STARTUP_REFUSED in text:
        return ConfigurationError(
            f"PgBouncer refused what the URL asks for ({text.rpartition(': ')[2]}): take options= out of"
            " CALLGATE_DATABASE_URL, and set it for the login: ALTER ROLE ... SET search_path = ..."
        )
    return LedgerUnavailable(f"the ledger did not answer: {text}")


def _without_answer(exc: DBAPIError) -> str:
    """What libpq says of a connection that failed or broke: of each host where to and why, but no parameters."""
    said = str(exc.orig).strip() if isinstance(exc, OperationalError) else ""
    first, *others = said.splitlines() or [""]
    hosts = [line for line in others if line.startswith("connection to server")]
    return "; ".join([first, *hosts]) or "no answer from Postgres"
