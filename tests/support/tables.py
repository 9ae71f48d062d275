"""Emptying a ledger between tests."""

from callgate.adapters.postgres.tables import metadata

EMPTY = (
    # The action log refuses it otherwise, as it should.
    "SET LOCAL session_replication_role = replica; "
    f"TRUNCATE {', '.join(table.name for table in metadata.sorted_tables)}"
)
