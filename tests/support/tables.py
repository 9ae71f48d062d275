"""Emptying a ledger between tests, and connections to it."""

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.tables import metadata

EMPTY = (
    # The action log refuses it otherwise, as it should.
    "SET LOCAL session_replication_role = replica; "
    f"TRUNCATE {', '.join(table.name for table in metadata.sorted_tables)}"
)


def open_connection(url: str) -> Connection:
    """A connection of its own."""
    return create_engine(url, poolclass=NullPool).connect()
