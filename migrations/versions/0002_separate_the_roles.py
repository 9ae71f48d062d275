"""Give client, worker and dashboard roles of their own, and hold clients to their organisations."""

from importlib import resources

import sqlalchemy as sa
from alembic import op

from callgate.adapters.postgres.roles import ROLES, grants, take_back
from callgate.domain.errors import ConfigurationError

revision = "0002"
down_revision = "0001"

FUNCTIONS = ("tenant_orgs_v1", "readable_orgs_v1", "grant_tenant_v1")


def upgrade() -> None:
    """Make the roles, where they are missing, and grant them what they need."""
    _create_roles()
    op.create_table(
        "tenant_login",
        sa.Column("login", sa.Text(), nullable=False, comment="as Postgres knows it: session_user"),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("login", "org_id", name=op.f("pk_tenant_login")),
        comment="which organisations a login of callgate_client acts for",
    )
    for name in FUNCTIONS:
        op.get_bind().exec_driver_sql(_text(f"functions/{name}"))
    for statement in grants(_schema(), _functions(), _columns()):
        op.execute(statement)


def downgrade() -> None:
    """Take back what this database granted; a role goes when no other database and no login needs it."""
    for statement in take_back(_schema(), _functions(), _columns()):
        op.execute(statement)
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION callgate_{name}")
    for function in _functions():
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
    op.drop_table("tenant_login")
    for role in ROLES:
        op.get_bind().exec_driver_sql(DROP_UNUSED_ROLE.format(role=role))


# Roles belong to the whole cluster: two databases may be migrated at once, and either may have made them.
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
        raise ConfigurationError(
            f"the migrating login may not create roles: have somebody who may run: {commands}"
        )
    for role in missing:
        bind.exec_driver_sql(CREATE_ROLE.format(role=role))


def _schema() -> str:
    return str(op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())")))


def _functions() -> list[str]:
    named = (
        "SELECT oid::regprocedure::text FROM pg_proc"
        " WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'callgate\\_%'"
    )
    return list(op.get_bind().scalars(sa.text(named)))


def _columns() -> dict[str, list[str]]:
    inspector = sa.inspect(op.get_bind())
    return {
        table: [column["name"] for column in inspector.get_columns(table)]
        for table in inspector.get_table_names()
    }


def _text(name: str) -> str:
    folder = resources.files("callgate.adapters.postgres").joinpath("sql")
    # The driver reads % as a parameter's mark.
    return folder.joinpath(f"{name}.sql").read_text("utf-8").replace("%", "%%")
