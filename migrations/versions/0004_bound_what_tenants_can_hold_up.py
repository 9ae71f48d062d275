"""Bound what clients may store, and let no batch wait for a row that a client holds."""

from importlib import resources

import sqlalchemy as sa
from alembic import op

from callgate.db.roles import grants

revision = "0004"
down_revision = "0003"

CHANGED: tuple[str, ...] = (
    "breaker_room_v1",
    "breaker_change_v1",
    "admit_v1",
    "release_waiting_v1",
    "note_health_v1",
    "breakers_v1",
    "set_breaker_v1",
    "due_v1",
    "read_v1",
    "reserve_v1",
    "wake_v1",
    "settle_v1",
    "end_v1",
    "release_leases_v1",
    "expire_leases_v1",
)
"""Functions that were there before, in another form: they are made again, of what the files say now."""
ADDED: tuple[str, ...] = (
    "hold_v1",
    "bound_login_v1",
    "waiting_orgs_v1",
    "has_free_call_v1",
    "forget_breakers_v1",
)
"""In the order they are made."""
BREAKER_KEY = "uq_breaker_provider_model_credential"
PROBE = "ix_llm_call_probe"


WAIT_REASONS = ("retry", "budget_held", "budget_exhausted", "provider", "quarantine", "memory")


def upgrade() -> None:
    """Change the tables, make the functions again, and grant what is there."""
    op.execute("SET LOCAL check_function_bodies = on")
    _guard_organisations_apart()
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
    _guard_all_together()


def _guard_organisations_apart() -> None:
    """A breaker of its own for each organisation whose calls fail; failures are counted by organisation."""
    op.add_column(
        "breaker",
        sa.Column(
            "org_id",
            sa.Text(),
            nullable=False,
            server_default="",
            comment="whose calls; empty: everybody's",
        ),
    )
    op.add_column(
        "breaker",
        sa.Column(
            "failed_orgs",
            sa.ARRAY(sa.Text()),
            nullable=False,
            server_default="{}",
            comment="whose the failures since the last success were, each as often as it counts",
        ),
    )
    op.drop_column("breaker", "failures")
    op.alter_column(
        "breaker", "probed_org", new_column_name="turn_org", comment="who was let through last"
    )
    op.alter_column("llm_call", "breaker_id", comment="everybody's breaker of what it waits for")
    op.create_check_constraint(
        op.f("ck_breaker_failures_are_few"), "breaker", "cardinality(failed_orgs) <= 3"
    )
    _key_breakers_by("provider", "model", "credential", "org_id", before=BREAKER_KEY)
    _index_waiting_calls("ix_llm_call_breaker", "org_id", "attempt", "created_at", instead_of=PROBE)


def _guard_all_together() -> None:
    """Keep everybody's breakers alone, closed or open as they are."""
    op.execute("DELETE FROM breaker WHERE org_id <> ''")
    _key_breakers_by("provider", "model", "credential", before=f"{BREAKER_KEY}_org_id")
    op.drop_constraint(op.f("ck_breaker_failures_are_few"), "breaker")
    op.drop_column("breaker", "failed_orgs")
    op.drop_column("breaker", "org_id")
    op.alter_column("breaker", "turn_org", new_column_name="probed_org", comment=None)
    op.alter_column(
        "llm_call", "breaker_id", comment="the breaker it waits for, from refusal to claim"
    )
    op.add_column(
        "breaker", sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.create_check_constraint(op.f("ck_breaker_failures_not_negative"), "breaker", "failures >= 0")
    _index_waiting_calls(PROBE, "attempt", "org_id", "created_at", instead_of="ix_llm_call_breaker")
    _index_waiting_calls("ix_llm_call_breaker", "created_at")


def _key_breakers_by(*columns: str, before: str) -> None:
    op.drop_constraint(op.f(before), "breaker")
    op.create_unique_constraint(op.f(f"uq_breaker_{'_'.join(columns)}"), "breaker", list(columns))


def _index_waiting_calls(name: str, *columns: str, instead_of: str | None = None) -> None:
    """Beside the breaker, of calls that wait for one."""
    for index in {name, instead_of} - {None}:
        op.execute(f"DROP INDEX IF EXISTS {index}")
    waiting = sa.text("breaker_id IS NOT NULL")
    op.create_index(name, "llm_call", ["breaker_id", *columns], postgresql_where=waiting)


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
