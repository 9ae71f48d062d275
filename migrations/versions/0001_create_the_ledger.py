"""
Create the ledger: roles, tables, views, functions, grants and the first partitions.

Its SQL is frozen text beside it, in `0001/`. The live text is in `callgate/adapters/postgres/sql`.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0001_create_the_ledger"
down_revision = None

SQL = Path(__file__).with_name("0001")
ROLES = ("callgate_client", "callgate_worker", "callgate_dashboard")


def upgrade() -> None:
    """Create everything. Postgres before 18 also gets a function `uuidv7()`."""
    _create_roles()
    # Functions call each other. So none is checked before all are there.
    op.execute("SET LOCAL check_function_bodies = off")
    if not op.get_bind().scalar(sa.text("SELECT to_regprocedure('uuidv7()') IS NOT NULL")):
        _run("uuidv7.sql")
    _run("tables.sql")
    for name in sorted(path.name for path in SQL.joinpath("functions").iterdir()):
        _run(f"functions/{name}")
    for name in sorted(path.name for path in SQL.joinpath("views").iterdir()):
        _run(f"views/{name}")
    _run("grants.sql")
    op.execute("SELECT callgate_make_partitions_v1(now() - interval '1 month', 4)")


def downgrade() -> None:
    """Drop everything, calls and money included. A role that another database or login needs stays."""
    _run("drop.sql")
    for role in ROLES:
        op.get_bind().exec_driver_sql(DROP_UNUSED_ROLE.format(role=role))


# Roles belong to the whole cluster. Two databases may be migrated at once, and either may have created them.
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


def _run(name: str) -> None:
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    text = SQL.joinpath(name).read_text("utf-8").replace("{schema}", str(schema))
    # The driver reads % as the mark of a parameter.
    op.get_bind().exec_driver_sql(text.replace("%", "%%"))
