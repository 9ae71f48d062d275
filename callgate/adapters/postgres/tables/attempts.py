"""`ai_call_log`: one row for each request to a provider, partitioned by month."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    literal_column,
    text,
)

from callgate.adapters.postgres.tables.columns import (
    ERROR,
    HASH,
    NAME,
    NOW,
    PROCESS,
    TIME,
    bounded,
    metadata,
)
from callgate.domain import bounds

ai_call_log = Table(
    "ai_call_log",
    metadata,
    Column("attempt_id", Uuid, nullable=False, server_default=text("uuidv7()")),
    Column("call_id", Uuid, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("input_hash", LargeBinary, nullable=False),
    Column("call_type", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("hold_nano_usd", BigInteger, nullable=False),
    Column("posted_nano_usd", BigInteger),
    Column(
        "cost_usd",
        Numeric(20, 9),
        Computed("posted_nano_usd::numeric / 1000000000", persisted=True),
    ),
    Column("budget_ids", ARRAY(BigInteger), nullable=False),
    Column("input_tokens", Integer),
    Column("cached_input_tokens", Integer),
    Column("cache_write_tokens", Integer),
    Column("output_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("price_source", Text),
    Column("service_tier", Text),
    Column("latency_ms", Integer),
    Column("queue_ms", Integer, nullable=False),
    Column("provider_request_id", Text),
    Column("trace_id", Text),
    Column("error_json", Text),
    Column("reply", LargeBinary, comment="the ProviderReply, byte for byte; null when purged"),
    Column("worker_id", Text, nullable=False, comment="the process and its claim number"),
    Column("started_at", TIME, nullable=False, server_default=NOW),
    Column("finished_at", TIME, comment="when the answer was recorded"),
    Column("posted_at", TIME, comment="when the money was posted, or posted again"),
    Column("kind", Text, nullable=False, server_default="call"),
    Column(
        "credential",
        Text,
        nullable=False,
        server_default="",
        comment="whose key: an organisation, or empty for the provider's own",
    ),
    Column(
        "anomalies",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="what is implausible about the bill",
    ),
    Column("settled_by_hand_at", TIME, comment="when an operator replaced what was posted"),
    Column(
        "limit_ids",
        ARRAY(BigInteger),
        nullable=False,
        server_default="{}",
        comment="the provider limits it took from",
    ),
    Column("output_token_bound", Integer, comment="what it took from limits of output tokens"),
    Column("health", Text, comment="what it says about its provider; limited: it does not count"),
    Column(
        "cache_write_1h_tokens",
        Integer,
        comment="the part of cache_write_tokens that is kept for an hour",
    ),
    PrimaryKeyConstraint("attempt_id"),
    CheckConstraint(
        "status IN ('dispatched', 'answered', 'succeeded', 'failed', 'unknown')", name="status"
    ),
    CheckConstraint(
        "(posted_nano_usd IS NULL) = (status IN ('dispatched', 'answered'))", name="posted_at_end"
    ),
    CheckConstraint("(posted_nano_usd IS NULL) = (posted_at IS NULL)", name="posted_has_time"),
    CheckConstraint("status <> 'answered' OR finished_at IS NOT NULL", name="answered_has_time"),
    CheckConstraint("hold_nano_usd >= 0 AND posted_nano_usd >= 0", name="money_not_negative"),
    CheckConstraint(
        "health IN ('alive', 'failed', 'key_refused', 'limited', 'neutral')", name="health"
    ),
    CheckConstraint("kind IN ('call', 'first', 'retry', 'probe', 'repair')", name="kind"),
    *bounded(
        org_id=NAME,
        input_hash=HASH,
        call_type=NAME,
        provider=NAME,
        model=NAME,
        credential=NAME,
        price_source=f"char_length({{}}) <= {bounds.SOURCE_CHARS_MAX}",
        service_tier=NAME,
        provider_request_id=NAME,
        trace_id=f"char_length({{}}) <= {bounds.TRACE_ID_CHARS_MAX}",
        error_json=ERROR,
        reply=f"octet_length({{}}) <= {bounds.REPLY_MAX_BYTES}",
        worker_id=PROCESS,
        anomalies="cardinality({}) <= 32",
    ),
    postgresql_partition_by="RANGE (attempt_id)",
)
# Not unique: across partitions only their key can be. Attempts are numbered under their call's lock; the audit counts.
Index(
    "ix_ai_call_log_call",
    ai_call_log.c.call_id,
    ai_call_log.c.generation,
    ai_call_log.c.attempt,
)
Index(
    "ix_ai_call_log_late",
    ai_call_log.c.finished_at,
    postgresql_where=text("status = 'unknown' AND finished_at > posted_at"),
)
Index(
    "ix_ai_call_log_in_flight",
    ai_call_log.c.provider,
    ai_call_log.c.credential,
    ai_call_log.c.model,
    postgresql_where=text("posted_nano_usd IS NULL"),
)
Index(
    "ix_ai_call_log_trace",
    ai_call_log.c.trace_id,
    postgresql_where=text("trace_id IS NOT NULL"),
)
Index("ix_ai_call_log_org", ai_call_log.c.org_id, ai_call_log.c.started_at)
Index(
    "ix_ai_call_log_unknown",
    ai_call_log.c.started_at,
    postgresql_where=text(
        "(status = 'unknown' OR anomalies && "
        "ARRAY['price_unknown', 'usage_implausible', 'usage_missing', 'usage_zero'])"
        " AND settled_by_hand_at IS NULL"
    ),
)
Index(
    "ix_ai_call_log_worker",
    func.split_part(ai_call_log.c.worker_id, literal_column("'/'"), literal_column("1")),
    postgresql_where=text("posted_at IS NULL"),
)
