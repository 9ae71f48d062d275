"""A ledger session whose transaction a test ends itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from callgate.adapters.postgres.session import PostgresSession


class OpenTransaction(PostgresSession):
    """Runs a ledger's statements on one connection, and leaves the transaction open."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Run one statement within it."""
        return list(self.connection.exec_driver_sql(sql, dict(parameters)))
