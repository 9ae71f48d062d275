"""Create the ledger: its tables, the functions that move money, its views, the first partitions."""

from importlib import resources

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

FUNCTIONS = (
    "period_v1", "uuid_floor_v1", "clear_due_at_v1", "roll_budgets_v1", "headroom_v1", "free_waiters_v1",
    "call_id_v1", "submit_v1",
    "read_v1", "calls_v1", "dead_groups_v1", "costs_v1", "budgets_v1", "audit_v1",
    "reserve_v1", "record_v1", "settle_v1", "may_reap_v1", "due_v1", "deliver_v1",
    "set_budget_v1", "end_v1", "renew_lease_v1", "release_leases_v1", "expire_leases_v1",
    "purge_v1", "take_upkeep_v1", "make_partitions_v1", "archive_month_v1",
)  # fmt: skip
BODIES = ("llm_call.request", "submission.link", "ai_call_log.reply", "unprocessable_message.raw")
"""Statistics would keep samples of them, also when they are purged."""
VIEWS = ("dead_letter", "ai_call_log_sums")
TABLES = (
    "worker_lease",
    "ai_call_log_archive",
    "unprocessable_message",
    "budget",
    "ai_call_log",
    "submission",
    "llm_call",
)


def upgrade() -> None:
    """Build everything; Postgres before 18 also gets a `uuidv7()`."""
    op.execute("SET LOCAL check_function_bodies = on")
    if not op.get_bind().scalar(sa.text("SELECT to_regprocedure('uuidv7()') IS NOT NULL")):
        op.get_bind().exec_driver_sql(_text("uuidv7"))
    _create_tables()
    for body in BODIES:
        table, _, column = body.partition(".")
        op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0")
    for name in FUNCTIONS:
        op.get_bind().exec_driver_sql(_text(f"functions/{name}"))
    for view in VIEWS:
        op.get_bind().exec_driver_sql(_text(f"{view}_view"))
    op.execute("SELECT callgate_make_partitions_v1(now() - interval '1 month', 4)")


def downgrade() -> None:
    """Drop everything, the books included."""
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION callgate_{name}")
    for table in TABLES:
        op.drop_table(table)


def _text(name: str) -> str:
    folder = resources.files("callgate.adapters.postgres").joinpath("sql")
    # The driver reads % as a parameter's mark.
    return folder.joinpath(f"{name}.sql").read_text("utf-8").replace("%", "%%")


def _create_tables() -> None:
    op.create_table(
        "ai_call_log",
        sa.Column("attempt_id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False),
        sa.Column("call_type", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("hold_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("posted_nano_usd", sa.BigInteger(), nullable=True),
        sa.Column(
            "cost_usd",
            sa.Numeric(precision=20, scale=9),
            sa.Computed("posted_nano_usd::numeric / 1000000000", persisted=True),
            nullable=True,
        ),
        sa.Column("budget_ids", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=True),
        sa.Column("cached_input_tokens", sa.Integer(), nullable=True),
        sa.Column("cache_write_tokens", sa.Integer(), nullable=True),
        sa.Column("output_tokens", sa.Integer(), nullable=True),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=True),
        sa.Column("price_source", sa.Text(), nullable=True),
        sa.Column("service_tier", sa.Text(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("queue_ms", sa.Integer(), nullable=False),
        sa.Column("provider_request_id", sa.Text(), nullable=True),
        sa.Column("trace_id", sa.Text(), nullable=True),
        sa.Column("error_json", sa.Text(), nullable=True),
        sa.Column(
            "reply",
            sa.LargeBinary(),
            nullable=True,
            comment="the ProviderReply, byte for byte; null when purged",
        ),
        sa.Column(
            "worker_id", sa.Text(), nullable=False, comment="the process and its claim number"
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the answer was recorded",
        ),
        sa.Column(
            "posted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the money was posted, or posted again",
        ),
        sa.CheckConstraint(
            "(posted_nano_usd IS NULL) = (status IN ('dispatched', 'answered'))",
            name=op.f("ck_ai_call_log_posted_at_end"),
        ),
        sa.CheckConstraint(
            "status <> 'answered' OR finished_at IS NOT NULL",
            name=op.f("ck_ai_call_log_answered_has_time"),
        ),
        sa.CheckConstraint(
            "status IN ('dispatched', 'answered', 'succeeded', 'failed', 'unknown')",
            name=op.f("ck_ai_call_log_status"),
        ),
        sa.CheckConstraint(
            "(posted_nano_usd IS NULL) = (posted_at IS NULL)",
            name=op.f("ck_ai_call_log_posted_has_time"),
        ),
        sa.CheckConstraint(
            "hold_nano_usd >= 0 AND posted_nano_usd >= 0",
            name=op.f("ck_ai_call_log_money_not_negative"),
        ),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_ai_call_log")),
        postgresql_partition_by="RANGE (attempt_id)",
    )
    op.execute("CREATE TABLE ai_call_log_default PARTITION OF ai_call_log DEFAULT")
    op.create_index(
        "ix_ai_call_log_call", "ai_call_log", ["call_id", "generation", "attempt"], unique=False
    )
    op.create_index(
        "ix_ai_call_log_late",
        "ai_call_log",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("status = 'unknown' AND finished_at > posted_at"),
    )
    op.create_index("ix_ai_call_log_org", "ai_call_log", ["org_id", "started_at"], unique=False)
    op.create_index(
        "ix_ai_call_log_worker",
        "ai_call_log",
        [sa.literal_column("split_part(worker_id, '/', 1)")],
        unique=False,
        postgresql_where=sa.text("posted_at IS NULL"),
    )
    op.create_table(
        "ai_call_log_archive",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("partition_name", sa.Text(), nullable=False, comment="what was dropped"),
        sa.Column(
            "ends_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="its attempts are older than this",
        ),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("call_type", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("budget_ids", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("posted_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column(
            "saved_nano_usd",
            sa.BigInteger(),
            nullable=False,
            comment="posted times the collapsed submissions of its succeeded call",
        ),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status IN ('succeeded', 'failed', 'unknown')",
            name=op.f("ck_ai_call_log_archive_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ai_call_log_archive")),
    )
    op.create_table(
        "budget",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False, comment="org, or call_type:<name>"),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("limit_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column(
            "reserved_nano_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False
        ),
        sa.Column("spent_nano_usd", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("\"window\" IN ('day', 'month')", name=op.f("ck_budget_window")),
        sa.CheckConstraint(
            "limit_nano_usd >= 0 AND reserved_nano_usd >= 0 AND spent_nano_usd >= 0",
            name=op.f("ck_budget_money_not_negative"),
        ),
        sa.CheckConstraint("starts_at < ends_at", name=op.f("ck_budget_period")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget")),
        sa.UniqueConstraint(
            "org_id",
            "scope",
            "window",
            "starts_at",
            name=op.f("uq_budget_org_id_scope_window_starts_at"),
        ),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "llm_call",
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("input_hash", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when somebody must look; queued: when it was queued",
        ),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "attempt_id",
            sa.Uuid(),
            nullable=True,
            comment="the newest attempt; of a succeeded call the winner",
        ),
        sa.Column("call_type", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("input_token_bound", sa.Integer(), nullable=False),
        sa.Column(
            "request",
            sa.LargeBinary(),
            nullable=True,
            comment="the LLMRequest, byte for byte; null when purged",
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_fingerprint", sa.Text(), nullable=True),
        sa.Column(
            "requested_hold_nano_usd",
            sa.BigInteger(),
            nullable=True,
            comment="the hold it waits for headroom for, from refusal to claim",
        ),
        sa.Column(
            "sweeps",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="how often one has found it queued since somebody last claimed or refused it",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'waiting', 'succeeded', 'dead', 'rejected')",
            name=op.f("ck_llm_call_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('dead', 'rejected') OR error IS NOT NULL",
            name=op.f("ck_llm_call_end_has_reason"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('queued', 'running', 'waiting') OR due_at IS NOT NULL",
            name=op.f("ck_llm_call_open_is_due"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('running', 'succeeded') OR attempt_id IS NOT NULL",
            name=op.f("ck_llm_call_has_attempt"),
        ),
        sa.CheckConstraint(
            "requested_hold_nano_usd IS NULL OR state IN ('waiting', 'queued')",
            name=op.f("ck_llm_call_wants_while_waiting"),
        ),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_llm_call_attempt_not_negative")),
        sa.CheckConstraint("generation >= 1", name=op.f("ck_llm_call_generation_starts_at_1")),
        sa.PrimaryKeyConstraint("call_id", "generation", name=op.f("pk_llm_call")),
    )
    op.create_index(
        "ix_llm_call_dead",
        "llm_call",
        ["org_id", "error_fingerprint"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "ix_llm_call_due",
        "llm_call",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state <> 'queued' AND due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_llm_call_kept",
        "llm_call",
        ["org_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("request IS NOT NULL AND due_at IS NULL"),
    )
    op.create_index(
        "ix_llm_call_org",
        "llm_call",
        ["org_id", sa.literal_column("created_at DESC")],
        unique=False,
    )
    op.create_index(
        "ix_llm_call_queued",
        "llm_call",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_llm_call_least_wanted",
        "llm_call",
        ["org_id", "call_type", "requested_hold_nano_usd"],
        unique=False,
        postgresql_where=sa.text("requested_hold_nano_usd IS NOT NULL"),
    )
    op.create_index(
        "ix_llm_call_wanted",
        "llm_call",
        ["org_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("requested_hold_nano_usd IS NOT NULL"),
    )
    op.create_table(
        "unprocessable_message",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stray_message")),
    )
    op.create_table(
        "submission",
        sa.Column("submission_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column(
            "outcome",
            sa.Text(),
            nullable=False,
            comment="created, joined, replayed, failed, inherited",
        ),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column(
            "link",
            sa.Text(),
            nullable=True,
            comment="what to publish at the end, with its resolved route; null when purged",
        ),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_submission")),
        sa.UniqueConstraint(
            "org_id", "idempotency_key", name=op.f("uq_submission_org_id_idempotency_key")
        ),
    )
    op.create_index("ix_submission_call", "submission", ["call_id", "generation"], unique=False)
    op.create_table(
        "worker_lease",
        sa.Column(
            "worker_id", sa.Text(), nullable=False, comment="one process, without claim number"
        ),
        sa.Column(
            "began_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="another one than before: it was released meanwhile",
        ),
        sa.Column(
            "stable_since",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="since then no renewal was late",
        ),
        sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_worker_lease")),
    )
