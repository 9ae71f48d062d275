"""
Keep the limits of providers, and sums of what attempts used: tables, columns that need them, newer functions.

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
ROLES = ("callgate_operator", "callgate_body_reader")


def upgrade() -> None:
    """Add what is new, and replace functions."""
    _create_roles()
    # Functions call each other. So none is checked before all are there.
    op.execute("SET LOCAL check_function_bodies = off")
    _run(SQL / "tables.sql")
    _run(SQL / "sums.sql")
    _run(SQL / "alerts.sql")
    _run(SQL / "redrives.sql")
    _run(SQL / "fingerprints.sql")
    _run(SQL / "ended.sql")
    _run(SQL / "searches.sql")
    for folder in ("functions", "compatible", "views"):
        for path in sorted(SQL.joinpath(folder).iterdir()):
            _run(path)
    _run(SQL / "triggers.sql")
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
    for role in ROLES:
        op.get_bind().exec_driver_sql(DROP_UNUSED_ROLE.format(role=role))


# Roles belong to the whole cluster, as 0001 says.
CREATE_ROLE = """DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$"""
DROP_UNUSED_ROLE = """DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
                    WHERE m.roleid = '{role}'::regrole AND r.rolcanlogin AND r.rolname <> current_user) THEN
        DROP ROLE {role};
    END IF;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege OR undefined_object THEN NULL;
END $$"""


def _create_roles() -> None:
    bind = op.get_bind()
    known = set(bind.scalars(sa.text("SELECT rolname FROM pg_roles")))
    missing = [role for role in ROLES if role not in known]
    may = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    if missing and not bind.scalar(sa.text(may)):
        commands = " ".join(f"CREATE ROLE {role} NOLOGIN;" for role in missing)
        raise LookupError(
            f"this login may not create roles: ask an administrator of Postgres to run: {commands}"
        )
    for role in missing:
        bind.exec_driver_sql(CREATE_ROLE.format(role=role))


def _run(path: Path) -> None:
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    text = path.read_text("utf-8").replace("{schema}", str(schema))
    text = text.replace("\nCREATE FUNCTION", "\nCREATE OR REPLACE FUNCTION")
    # The driver reads % as the mark of a parameter.
    op.get_bind().exec_driver_sql(text.replace("%", "%%"))
