"""Translates the errors of Postgres, psycopg2 and SQLAlchemy. No other exception leaves the adapter."""

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
    OrganisationFrozen,
    RowRefused,
)

READ_ONLY_SQLSTATES = frozenset({"25006", "55000"})
"""The server is a standby, or becomes one. A new connection may lead to the new primary."""
IDLE_SQLSTATES = frozenset({"25P03", "57P05"})
"""The server had ended the idle session before it got this statement."""
RETRIED_SQLSTATES = {"40001", "40P01", "55P03", "53200"} | READ_ONLY_SQLSTATES | IDLE_SQLSTATES
"""
Also serialisation failure, deadlock, lock timeout, and no room in the table of locks. The statement had no effect, and
may succeed the next time: `end_lock_hoarders_v1` ends sessions that fill the table.
"""
BAD_CONNECTION = ("08", "25P", "57P", *READ_ONLY_SQLSTATES)
"""
The beginnings of SQLSTATEs after which a connection, and those opened before it, are of no more use.

Connection broken, in a foreign transaction, server shut down or starting, session idle for too long.
"""
NOT_MIGRATED_SQLSTATES = frozenset({"42P01", "42883", "3F000", "42703"})
ROW_SQLSTATE_CLASSES = frozenset({"21", "22", "23", "54", "P0"})
"""Cardinality, data exception, constraint violation, limit exceeded, raised by our functions: the row is refused."""
FROZEN_SQLSTATE = "P0F01"
"""Raised by `refuse_frozen_v1`. To a client of 0.1.0 the row is refused, because of the class."""
REFUSED_SQLSTATE_CLASSES = frozenset({"28", "3D", "42"})
NOT_PERMITTED_SQLSTATE = "42501"
RAISED_BY_US = "exec_stmt_raise"
"""The source function of errors that our SQL functions raise, with messages of their own."""
STARTUP_REFUSED = "unsupported startup parameter"
"""How PgBouncer refuses parameters of a connection."""


class TryAgain(Exception):
    """The statement had no effect, and may succeed the next time."""


@contextmanager
def translated() -> Iterator[None]:
    """
    Translate every database error into one of callgate's. Messages never contain parameters.

    Raises:
        TryAgain: The same statement may succeed the next time.
        LedgerUnavailable, NotMigrated, NotPermitted, OrganisationFrozen, ConfigurationError, RowRefused
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
    """The SQLSTATE of an error, or an empty text."""
    return getattr(exc, "sqlstate", None) or getattr(exc, "pgcode", None) or ""


def ends_connection(exc: BaseException) -> bool:
    """Whether the connection of this error must not be used again."""
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
    if sqlstate == FROZEN_SQLSTATE:
        return OrganisationFrozen(str(diagnosis))
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
    """The message of libpq about a failed connection: host and reason, without parameters."""
    said = str(exc.orig).strip() if isinstance(exc, OperationalError) else ""
    first, *others = said.splitlines() or [""]
    hosts = [line for line in others if line.startswith("connection to server")]
    return "; ".join([first, *hosts]) or "no answer from Postgres"
