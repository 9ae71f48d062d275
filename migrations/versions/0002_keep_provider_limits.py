"""
Keep the limits of providers: tables of limits, columns that attempts and calls need for them, newer functions.

Its SQL is frozen text beside it, in `0002/`. Functions that processes of 0.1.0 execute with other parameters stay, in
`compatible/` as they have to be beside newer rows. The others are replaced in place.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0002_keep_provider_limits"
down_revision = "0001_create_the_ledger"

SQL = Path(__file__).with_name("0002")
BEFORE = Path(__file__).with_name("0001")


def upgrade() -> None:
    """Add what is new, and replace functions."""
    # Functions call each other. So none is checked before all are there.
    op.execute("SET LOCAL check_function_bodies = off")
    _run(SQL / "tables.sql")
    for folder in ("functions", "compatible"):
        for path in sorted(SQL.joinpath(folder).iterdir()):
            _run(path)
    _run(SQL / "grants.sql")
    _run(SQL / "executable.sql")


def downgrade() -> None:
    """Take back what is new. Calls that wait for a provider's limit are due at once."""
    op.execute("SET LOCAL check_function_bodies = off")
    _run(SQL / "drop.sql")
    for path in sorted(SQL.glob("*/*.sql")):
        before = BEFORE / "functions" / path.name
        if before.exists():
            _run(before)
    _run(SQL / "executable.sql")


def _run(path: Path) -> None:
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    text = path.read_text("utf-8").replace("{schema}", str(schema))
    text = text.replace("\nCREATE FUNCTION", "\nCREATE OR REPLACE FUNCTION")
    # The driver reads % as the mark of a parameter.
    op.get_bind().exec_driver_sql(text.replace("%", "%%"))
