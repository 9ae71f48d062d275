"""Limits: what is declared, how full each limit of a provider is, who took how much, and how many calls are open."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from callgate.adapters.postgres.tables.columns import NAME, NOW, PROCESS, TIME, bounded, metadata

MEASURES = "measure IN ('requests', 'input_tokens', 'output_tokens', 'tokens', 'concurrency')"

flow_catalogue = Table(
    "flow_catalogue",
    metadata,
    Column("is_only", Boolean, nullable=False, server_default=text("true")),
    Column("digest", Text, nullable=False, comment="of the declaration that counts"),
    Column("worker_id", Text, nullable=False, comment="the process that published it"),
    Column(
        "cautious",
        ARRAY(Text),
        nullable=False,
        comment="providers that are not declared unlimited",
    ),
    Column(
        "open_calls_max",
        Integer,
        nullable=False,
        comment="of each organisation; more are refused",
    ),
    Column(
        "counting_used",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="providers whose limits count tokens that were used",
    ),
    Column("published_at", TIME, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("is_only"),
    CheckConstraint("is_only", name="is_one_row"),
    CheckConstraint("open_calls_max >= 1", name="open_calls_max_is_positive"),
    *bounded(digest=NAME, worker_id=PROCESS),
    comment="the newest declaration of limits; one row",
)

flow_rule = Table(
    "flow_rule",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False, comment="a pattern"),
    Column(
        "credential", Text, nullable=False, comment="an organisation, empty, or * for every own key"
    ),
    Column("is_shared", Boolean, nullable=False, comment="one limit for all models that match"),
    Column("measure", Text, nullable=False),
    Column("window_s", Integer, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("counts_used", Boolean, nullable=False, comment="tokens that were used, not asked for"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("provider", "model", "credential", "measure", "window_s"),
    CheckConstraint(MEASURES, name="measure"),
    CheckConstraint("amount >= 1 AND window_s >= 0", name="is_positive"),
    *bounded(provider=NAME, model=NAME, credential=NAME),
    comment="limits as the newest catalogue declares them",
)

flow_limit = Table(
    "flow_limit",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False, comment="a model; a pattern if it is shared"),
    Column("credential", Text, nullable=False, comment="an organisation, or empty"),
    Column("source", Text, nullable=False, comment="declared, learned or observed"),
    Column("measure", Text, nullable=False),
    Column("window_s", Integer, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("is_shared", Boolean, nullable=False),
    Column("counts_used", Boolean, nullable=False),
    Column("level", Double, nullable=False, comment="what could be used at leveled_at"),
    Column("leveled_at", TIME, nullable=False, server_default=NOW),
    Column("largest", BigInteger, nullable=False, server_default=text("0")),
    Column("largest_at", TIME),
    Column("granted_at", TIME, comment="when an attempt last took from it"),
    Column(
        "changed_at",
        TIME,
        nullable=False,
        server_default=NOW,
        comment="when the amount was last declared, confirmed, or observed",
    ),
    Column(
        "rise_per_s",
        Double,
        nullable=False,
        server_default=text("0"),
        comment="how fast an observed amount rises",
    ),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("provider", "model", "credential", "source", "measure", "window_s"),
    CheckConstraint(MEASURES, name="measure"),
    CheckConstraint("source IN ('declared', 'learned', 'observed')", name="source"),
    CheckConstraint("amount >= 1 AND window_s >= 0 AND largest >= 0", name="is_positive"),
    *bounded(provider=NAME, model=NAME, credential=NAME),
    comment="a provider's limit of a key, and how full its bucket is",
    postgresql_with={"fillfactor": "50"},
)

Index(
    "ix_flow_limit_shared",
    flow_limit.c.provider,
    flow_limit.c.credential,
    postgresql_where=text("is_shared"),
)

flow_note = Table(
    "flow_note",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("limit_id", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False, comment="not used by an answer"),
    PrimaryKeyConstraint("id"),
    CheckConstraint("tokens > 0", name="is_positive"),
    comment="what settlements give back to limits; the next claim adds it",
)
Index("ix_flow_note_limit", flow_note.c.limit_id)

flow_share = Table(
    "flow_share",
    metadata,
    Column("breaker_id", BigInteger, nullable=False, comment="the shared breaker of the key"),
    Column("org_id", Text, nullable=False),
    Column("share", Double, nullable=False, comment="parts of a limit; fades with time"),
    Column("noted_at", TIME, nullable=False),
    Column("fades_s", Double, nullable=False, comment="after so long about a third of it counts"),
    PrimaryKeyConstraint("breaker_id", "org_id"),
    *bounded(org_id=NAME),
    comment="how much organisations took recently from the limits of a key",
    postgresql_with={"fillfactor": "50"},
)

flow_open = Table(
    "flow_open",
    metadata,
    Column("org_id", Text, nullable=False),
    Column("counted_at", TIME, nullable=False),
    Column("calls", Integer, nullable=False),
    PrimaryKeyConstraint("org_id", "counted_at"),
    CheckConstraint("calls >= 0", name="not_negative"),
    *bounded(org_id=NAME),
    comment="how many open calls organisations had that have many; the newest count is used",
)

flow_concurrency = Table(
    "flow_concurrency",
    metadata,
    Column(
        "calls_of",
        Text,
        nullable=False,
        comment="organisation: all its calls; call_type: those of one type, of each organisation",
    ),
    Column("name", Text, nullable=False, comment="empty: each that has no row of its own"),
    Column("amount", Integer, comment="null: any number"),
    PrimaryKeyConstraint("calls_of", "name"),
    CheckConstraint("calls_of IN ('organisation', 'call_type')", name="calls_of"),
    CheckConstraint("amount >= 1", name="is_positive"),
    *bounded(name=NAME),
    comment="how many calls of one organisation may run at a time, as the newest catalogue declares it",
)

flow_org = Table(
    "flow_org",
    metadata,
    Column("org_id", Text, nullable=False),
    PrimaryKeyConstraint("org_id"),
    *bounded(org_id=NAME),
    comment="organisations whose running calls are counted; a claim locks the row",
)
