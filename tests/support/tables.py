"""Emptying a ledger between tests, and connections to it."""

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from callgate.adapters.postgres.tables import metadata

SMALL_BYTES = 2**19
_TABLES = [table.name for table in metadata.sorted_tables]
TRUNCATE = (
    # The action log refuses it otherwise, as it should.
    f"SET LOCAL session_replication_role = replica; TRUNCATE {', '.join(_TABLES)}"
)
"""For tests that look at plans: no deleted rows, of which Postgres would count and clean up some meanwhile."""
EMPTY = f"""DO $$ BEGIN
  PERFORM set_config('session_replication_role', 'replica', true);
  -- Waits for transactions of the test before.
  LOCK TABLE {", ".join(_TABLES)} IN SHARE ROW EXCLUSIVE MODE;
  IF (SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = to_regnamespace('public'))
     > {SMALL_BYTES}
  THEN TRUNCATE {", ".join(_TABLES)};
  ELSE {" ".join(f"DELETE FROM {name};" for name in _TABLES)}
  END IF;
END $$"""  # noqa: S608
"""Empties the tables. TRUNCATE makes new files for each: thirty times as expensive as to delete the rows of a test."""


def open_connection(url: str) -> Connection:
    """A connection of its own."""
    return create_engine(url, poolclass=NullPool).connect()
