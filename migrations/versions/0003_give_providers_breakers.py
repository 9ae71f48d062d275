"""Add the columns and tables for breakers, reasons to wait, odd replies, and what operators change."""

from importlib import resources

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from callgate.adapters.postgres.roles import grants

revision = "0003"
down_revision = "0002"

CHANGED = (
    *("period_v1", "roll_budgets_v1", "set_budget_v1"),
    *("read_v1", "reserve_v1", "settle_v1", "due_v1", "end_v1", "archive_month_v1"),
)
"""Functions that were there before, in another form: they are made again, of what the files say now."""
ADDED = (
    "breaker_headroom_v1",
    "breaker_change_v1",
    "admit_v1",
    "release_waiting_v1",
    "note_health_v1",
    "breakers_v1",
    "set_breaker_v1",
    "refuse_change_v1",
    "log_action_v1",
    "bill_unknown_v1",
    "whole_hold_v1",
    "unknown_v1",
    "unknown_days_v1",
    "settle_unknown_v1",
)
"""In the order they are made."""
APPEND_ONLY = """CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_action
    FOR EACH STATEMENT EXECUTE FUNCTION callgate_refuse_change_v1()"""
UNKNOWN_BILL = (
    "(status = 'unknown' OR anomalies && "
    "ARRAY['price_unknown', 'usage_implausible', 'usage_missing', 'usage_zero'])"
    " AND settled_by_hand_at IS NULL"
)
WAITED_FOR = """UPDATE llm_call SET wait_reason = CASE
       WHEN error LIKE '%"suspect"%' THEN 'quarantine'
       WHEN requested_hold_nano_usd IS NULL THEN 'retry'
       WHEN error LIKE '%"budget_held"%' THEN 'budget_held' ELSE 'budget_exhausted' END
 WHERE state = 'waiting'"""


def upgrade() -> None:
    """Add them; what a call waits for is read from its error."""
    # The functions are what the files say now: they may name columns of a later revision.
    op.execute("SET LOCAL check_function_bodies = off")
    _add_tables()
    _add_columns()
    for name in CHANGED:
        _drop_function(name)
    for name in (*ADDED, *CHANGED):
        op.get_bind().exec_driver_sql(_text(f"functions/{name}"))
    op.execute(APPEND_ONLY)
    for statement in grants(_schema(), _functions(), _columns()):
        op.execute(statement)


def downgrade() -> None:
    """Take away what was added; the functions that stay are dropped by the revisions below."""
    op.execute("DROP TRIGGER append_only ON operator_action")
    for name in reversed(ADDED):
        _drop_function(name)
    op.drop_index("ix_ai_call_log_unknown", "ai_call_log")
    op.drop_index("ix_llm_call_released", "llm_call")
    op.drop_index("ix_llm_call_probe", "llm_call")
    op.drop_index("ix_llm_call_breaker", "llm_call")
    for name in ("breaker_while_waiting", "waits_for_a_reason", "wait_reason"):
        op.drop_constraint(op.f(f"ck_llm_call_{name}"), "llm_call")
    op.drop_constraint(op.f("ck_ai_call_log_kind"), "ai_call_log")
    for column in ("wait_reason", "breaker_id", "wait_until"):
        op.drop_column("llm_call", column)
    for column in ("kind", "credential", "anomalies", "settled_by_hand_at"):
        op.drop_column("ai_call_log", column)
    op.drop_table("operator_action")
    op.drop_table("breaker")


def _add_columns() -> None:
    op.add_column("llm_call", sa.Column("wait_reason", sa.Text()))
    op.add_column(
        "llm_call",
        sa.Column(
            "breaker_id",
            sa.BigInteger(),
            comment="the breaker it waits for, from refusal to claim",
        ),
    )
    op.add_column(
        "llm_call",
        sa.Column(
            "wait_until",
            sa.DateTime(timezone=True),
            comment="until when it may wait for its provider's breaker",
        ),
    )
    op.execute(WAITED_FOR)
    op.create_check_constraint(
        op.f("ck_llm_call_breaker_while_waiting"),
        "llm_call",
        "breaker_id IS NULL OR state IN ('waiting', 'queued')",
    )
    op.create_check_constraint(
        op.f("ck_llm_call_waits_for_a_reason"),
        "llm_call",
        "(wait_reason IS NOT NULL) = (state = 'waiting')",
    )
    op.create_check_constraint(
        op.f("ck_llm_call_wait_reason"),
        "llm_call",
        "wait_reason IN ('retry', 'budget_held', 'budget_exhausted', 'provider', 'quarantine')",
    )
    waiting = {"postgresql_where": sa.text("breaker_id IS NOT NULL")}
    op.create_index("ix_llm_call_breaker", "llm_call", ["breaker_id", "created_at"], **waiting)
    op.create_index(
        "ix_llm_call_probe",
        "llm_call",
        ["breaker_id", "attempt", "org_id", "created_at"],
        **waiting,
    )
    op.create_index("ix_llm_call_released", "llm_call", ["breaker_id", "due_at"], **waiting)
    op.add_column(
        "ai_call_log", sa.Column("kind", sa.Text(), nullable=False, server_default="call")
    )
    op.add_column(
        "ai_call_log",
        sa.Column(
            "credential",
            sa.Text(),
            nullable=False,
            server_default="",
            comment="whose key: an organisation, or empty for the provider's own",
        ),
    )
    op.add_column(
        "ai_call_log",
        sa.Column(
            "anomalies",
            sa.ARRAY(sa.Text()),
            nullable=False,
            server_default="{}",
            comment="what is odd about what the provider said",
        ),
    )
    op.add_column(
        "ai_call_log",
        sa.Column(
            "settled_by_hand_at",
            sa.DateTime(timezone=True),
            comment="posted is what an operator said was billed",
        ),
    )
    op.create_index(
        "ix_ai_call_log_unknown",
        "ai_call_log",
        ["started_at"],
        postgresql_where=sa.text(UNKNOWN_BILL),
    )
    op.create_check_constraint(
        op.f("ck_ai_call_log_kind"), "ai_call_log", "kind IN ('call', 'probe')"
    )


def _add_tables() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "breaker",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("credential", sa.Text(), nullable=False, comment="an organisation, or empty"),
        sa.Column("is_open", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column(
            "reason", sa.Text(), comment="the failure that opened it, or an operator's words"
        ),
        sa.Column("changed_at", time, nullable=False, server_default=sa.text("now()")),
        sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("proven_at", time, comment="about when the last success was settled"),
        sa.Column("probe_wait_s", sa.Double(), nullable=False, server_default=sa.text("10")),
        sa.Column("probe_at", time, comment="null while open: an operator must close it"),
        sa.Column("probed_org", sa.Text(), nullable=False, server_default=""),
        sa.Column(
            "trial_ids",
            sa.ARRAY(sa.Uuid()),
            nullable=False,
            server_default="{}",
            comment="attempts under way that it waits for",
        ),
        sa.CheckConstraint(
            "is_open OR probe_at IS NULL", name=op.f("ck_breaker_probed_while_open")
        ),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_breaker_failures_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_breaker")),
        sa.UniqueConstraint(
            "provider", "model", "credential", name=op.f("uq_breaker_provider_model_credential")
        ),
    )
    op.create_table(
        "operator_action",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", time, nullable=False, server_default=sa.text("now()")),
        sa.Column(
            "operator", sa.Text(), nullable=False, comment="who: a name that the tool was given"
        ),
        sa.Column("login", sa.Text(), nullable=False, server_default=sa.text("SESSION_USER")),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column(
            "org_id", sa.Text(), comment="whose money or calls; null: of no one organisation"
        ),
        sa.Column(
            "subject", sa.Text(), nullable=False, comment="what was changed: an id, or names"
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "detail", postgresql.JSONB(), nullable=False, server_default=sa.text("'{}'::jsonb")
        ),
        sa.CheckConstraint("btrim(reason) <> ''", name=op.f("ck_operator_action_has_reason")),
        sa.CheckConstraint("btrim(operator) <> ''", name=op.f("ck_operator_action_has_operator")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_action")),
        comment="who changed what, and why; append-only for every role",
    )
    op.create_index("ix_operator_action_at", "operator_action", ["at"])
    op.create_index("ix_operator_action_org", "operator_action", ["org_id", "at"])


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
    folder = resources.files("callgate.adapters.postgres").joinpath("sql")
    # The driver reads % as a parameter's mark.
    return folder.joinpath(f"{name}.sql").read_text("utf-8").replace("%", "%%")
