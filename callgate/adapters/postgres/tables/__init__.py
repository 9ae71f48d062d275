"""
The tables, for tests and for readers. A migration creates them, and `sql/functions` reads and writes them.

Money is BIGINT nano-USD. Times come from the database's clock. Every table of tenants' rows has `org_id`. What must
never be false is a CHECK.
"""

from callgate.adapters.postgres.tables import (
    admission,
    alerts,
    attempts,
    calls,
    flow,
    operations,
    redrives,
    sums,
)
from callgate.adapters.postgres.tables.columns import PARTITION_NAME, metadata

__all__ = [
    "PARTITION_NAME",
    "admission",
    "alerts",
    "attempts",
    "calls",
    "flow",
    "metadata",
    "operations",
    "redrives",
    "sums",
]
