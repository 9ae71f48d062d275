"""What was alerted, how the messages about it are delivered, and when somebody last looked."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from callgate.adapters.postgres.tables.columns import NAME, NOW, TIME, WORDS, bounded, metadata
from callgate.domain import bounds

alert = Table(
    "alert",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("kind", Text, nullable=False),
    Column(
        "key", Text, nullable=False, comment="of the condition, and of its period if it has one"
    ),
    Column("org_id", Text, nullable=False, comment="empty: it concerns no single organisation"),
    Column("subject", Text, nullable=False, comment="what it is about: names"),
    Column("detail", JSONB, nullable=False, comment="names and figures; no text of callers"),
    Column("at", TIME, nullable=False, server_default=NOW),
    Column("resolved_at", TIME, comment="when its condition had gone; null: not yet, or it cannot"),
    Column(
        "is_queued",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="its messages were made; false again when it is resolved",
    ),
    PrimaryKeyConstraint("id"),
    *bounded(
        kind=NAME,
        key=WORDS,
        org_id=NAME,
        subject=WORDS,
        detail=f"octet_length({{}}::text) <= {bounds.DETAIL_MAX_BYTES}",
    ),
    comment="facts; only the two last columns change",
)
Index(
    "uq_alert_unresolved_key",
    alert.c.key,
    unique=True,
    postgresql_where=text("resolved_at IS NULL"),
)
Index("ix_alert_at", alert.c.at)
Index("ix_alert_news", alert.c.id, postgresql_where=text("NOT is_queued"))
Index("ix_alert_resolved_at", alert.c.resolved_at, postgresql_where=text("resolved_at IS NOT NULL"))

alert_delivery = Table(
    "alert_delivery",
    metadata,
    Column(
        "id",
        Uuid,
        nullable=False,
        server_default=text("gen_random_uuid()"),
        comment="of the message; the same in each try",
    ),
    Column("alert_id", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("queued_at", TIME, nullable=False, server_default=NOW),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("next_at", TIME, nullable=False, server_default=NOW),
    Column("delivered_at", TIME),
    Column("failure", Text, comment="why the last try failed: a status, or the name of an error"),
    Column("dead_at", TIME, comment="when it was given up"),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("alert_id", "event", "channel"),
    CheckConstraint("event IN ('raised', 'resolved')", name="event"),
    CheckConstraint("channel IN ('log', 'webhook')", name="channel"),
    *bounded(failure=f"char_length({{}}) <= {bounds.LINK_FAILURE_CHARS_MAX}"),
    comment="messages about alerts, by where they go",
)
Index(
    "ix_alert_delivery_due",
    alert_delivery.c.next_at,
    postgresql_where=text("delivered_at IS NULL AND dead_at IS NULL"),
)
Index(
    "ix_alert_delivery_dead",
    alert_delivery.c.alert_id,
    postgresql_where=text("dead_at IS NOT NULL"),
)

alert_watch = Table(
    "alert_watch",
    metadata,
    Column("is_only", Boolean, nullable=False, server_default=text("true")),
    Column("looked_at", TIME, nullable=False),
    PrimaryKeyConstraint("is_only"),
    CheckConstraint("is_only", name="is_one_row"),
    comment="when somebody last looked for alerts; one row",
)
