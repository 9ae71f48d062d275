"""Bound what clients may store, and let no batch wait for a row that a client holds."""

from importlib import resources

import sqlalchemy as sa
from alembic import op

from callgate.db.roles import grants

revision = "0004"
down_revision = "0003"

CHANGED: tuple[str, ...] = (
    "due_v1",
    "read_v1",
    "reserve_v1",
    "wake_v1",
    "settle_v1",
    "end_v1",
    "release_leases_v1",
    "expire_leases_v1",
    "admit_v1",
    "release_waiting_v1",
)
"""Functions that were there before, in another form: they are made again, of what the files say now."""
ADDED: tuple[str, ...] = (
    "hold_v1",
    "bound_login_v1",
)
"""In the order they are made."""


WAIT_REASONS = ("retry", "budget_held", "budget_exhausted", "provider", "quarantine", "memory")


def upgrade() -> None:
    """Make the functions again, and grant what is there."""
    _constrain_wait_reason(*WAIT_REASONS)
    for name in CHANGED:
        _drop_function(name)
    for name in (*ADDED, *CHANGED):
        op.get_bind().exec_driver_sql(_text(f"functions/{name}"))
    for statement in grants(_schema(), _functions(), _columns()):
        op.execute(statement)


def downgrade() -> None:
    """Take away what was added; the functions that stay are dropped by the revisions below."""
    op.execute("UPDATE llm_call SET wait_reason = 'quarantine' WHERE wait_reason = 'memory'")
    _constrain_wait_reason(*WAIT_REASONS[:-1])
    for name in reversed(ADDED):
        _drop_function(name)


def _constrain_wait_reason(*reasons: str) -> None:
    named = ", ".join(f"'{reason}'" for reason in reasons)
    op.drop_constraint(op.f("ck_llm_call_wait_reason"), "llm_call")
    op.create_check_constraint(
        op.f("ck_llm_call_wait_reason"), "llm_call", f"wait_reason IN ({named})"
    )


def _drop_function(name: str) -> None:
    """Drop it in whatever form it is there."""
    forms = op.get_bind().scalars(
        sa.text(
            "SELECT oid::regprocedure::text FROM pg_proc"
            " WHERE pronamespace = current_schema()::regnamespace AND proname = :name"
        ),
        {"name": f"callgate_{name}"},
    )
    for form in list(forms):
        op.execute(f"DROP FUNCTION {form}")


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
    folder = resources.files("callgate.adapters").joinpath("sql")
    # The driver reads % as a parameter's mark.
    return folder.joinpath(f"{name}.sql").read_text("utf-8").replace("%", "%%")
