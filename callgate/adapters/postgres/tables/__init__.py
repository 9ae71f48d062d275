"""
The tables, for tests and for readers. A migration creates them, and `sql/functions` reads and writes them.

Money is BIGINT nano-USD. Times come from the database's clock. Every table of tenants' rows has `org_id`. What must
never be false is a CHECK.
"""

from callgate.adapters.postgres.tables import attempts, calls, flow, limits, operations
from callgate.adapters.postgres.tables.columns import PARTITION_NAME, metadata

__all__ = ["PARTITION_NAME", "attempts", "calls", "flow", "limits", "metadata", "operations"]
