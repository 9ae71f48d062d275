"""
Ends sessions that fill Postgres' table of locks.

Once the table is full no session can connect, and a statement fails as soon as it needs a lock. So the watch takes
its locks before: a transaction that stays open keeps them. They are locks on the catalogs that Postgres may have to
read for a look. It reads them again whenever a role changes or many tables are made.
"""

from __future__ import annotations

import time

from callgate.adapters.postgres.session import KeptTransaction, PostgresSession
from callgate.domain.errors import CallgateError
from callgate.domain.reports import LockHoarder

RENEWED_AFTER_S = 30.0
"""
The open transaction may not see what is granted or revoked meanwhile. And an operator who rewrites a catalog (VACUUM
FULL, REINDEX) waits for it.
"""
CATALOGS = (
    *(
        "pg_aggregate",
        "pg_am",
        "pg_amop",
        "pg_amproc",
        "pg_attribute",
        "pg_auth_members",
        "pg_cast",
    ),
    *("pg_class", "pg_collation", "pg_database", "pg_index", "pg_language", "pg_namespace"),
    *("pg_opclass", "pg_operator", "pg_opfamily", "pg_proc", "pg_range", "pg_roles", "pg_type"),
)
"""pg_roles: with it comes pg_authid, which only a superuser reads by its name."""
KEEP = f"SELECT FROM {', '.join(f'pg_catalog.{name}' for name in CATALOGS)} WHERE false"
"""Reads nothing; but Postgres locks tables and indexes to plan it, to the end of the transaction."""
LOOK = "SELECT * FROM callgate_end_lock_hoarders_v1()"


class PostgresLockWatch:
    """`LockWatchPort` over Postgres."""

    def __init__(self, session: PostgresSession) -> None:
        """Connect to nothing yet. The session needs room for two connections, and is closed with the watch."""
        self._session = session
        self._kept: KeptTransaction | None = None
        self._began_at = 0.0

    def look(self) -> list[LockHoarder]:
        """End the sessions that hold too many locks; see `LockWatchPort.look`."""
        if self._kept is None:
            self._begin()
        assert self._kept is not None
        try:
            rows = self._kept.rows(LOOK)
        except CallgateError:
            self._end()
            raise
        hoarders = [LockHoarder(**row._mapping) for row in rows]
        is_old = time.monotonic() >= self._began_at + RENEWED_AFTER_S
        if is_old and not any(hoarder.was_ended for hoarder in hoarders):
            self._renew()
        return hoarders

    def close(self) -> None:
        """Look no more; see `LockWatchPort.close`."""
        self._end()
        self._session.close()

    def _begin(self) -> None:
        self._kept = self._session.keep(KEEP)
        self._began_at = time.monotonic()

    def _renew(self) -> None:
        """Have the next transaction before the last one ends: there may be no room for it in between."""
        last = self._kept
        try:
            self._begin()
        except CallgateError:
            # The last one goes on; the next look tries again.
            return
        if last is not None:
            last.close()

    def _end(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
