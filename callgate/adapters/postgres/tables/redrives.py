"""Redrives: stored operations on dead and refused calls, and what became of each call."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
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

NONE = text("0")

redrive = Table(
    "redrive",
    metadata,
    Column("id", Uuid, nullable=False, comment="chosen by who planned it"),
    Column("state", Text, nullable=False, server_default=text("'planning'")),
    Column("cause", Text, comment="why it is paused"),
    Column("selection", JSONB, nullable=False, comment="the filter that chose its calls"),
    Column("planned_by", Text, nullable=False),
    Column("operator", Text, comment="who started it"),
    Column("reason", Text, comment="why it was started"),
    Column("rate_per_min", Float, comment="null: as fast as open calls end"),
    Column("cap_nano_usd", BigInteger, comment="the most that may be spent; null: no cap"),
    Column("stop_share", Float, nullable=False, server_default=text("0.5")),
    Column("stop_min", Integer, nullable=False, server_default=text("20")),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("started_at", TIME),
    Column("ended_at", TIME, comment="when no call was pending or open any more"),
    Column(
        "step_at", TIME, nullable=False, server_default=NOW, comment="when a worker looks at it"
    ),
    Column("lease_id", Uuid, comment="the newest lease; no other may change calls"),
    Column("free_at", TIME, comment="when the rate allows the next call"),
    Column(
        "ended_before",
        Integer,
        nullable=False,
        server_default=NONE,
        comment="calls that had ended when it was resumed",
    ),
    Column("failed_before", Integer, nullable=False, server_default=NONE),
    Column("calls", Integer, nullable=False, server_default=NONE),
    Column("unpriced", Integer, nullable=False, server_default=NONE),
    Column("pending", Integer, nullable=False, server_default=NONE),
    Column("released", Integer, nullable=False, server_default=NONE),
    Column("succeeded", Integer, nullable=False, server_default=NONE),
    Column("failed", Integer, nullable=False, server_default=NONE),
    Column("rejected", Integer, nullable=False, server_default=NONE),
    Column("refused", Integer, nullable=False, server_default=NONE),
    Column("skipped", Integer, nullable=False, server_default=NONE),
    Column("left_alone", Integer, nullable=False, server_default=NONE),
    Column(
        "unknown",
        Integer,
        nullable=False,
        server_default=NONE,
        comment="pending calls of which an attempt may have been billed",
    ),
    Column("worst_case_nano_usd", BigInteger, nullable=False, server_default=NONE),
    Column("open_nano_usd", BigInteger, nullable=False, server_default=NONE),
    Column("posted_nano_usd", BigInteger, nullable=False, server_default=NONE),
    PrimaryKeyConstraint("id"),
    CheckConstraint(
        "state IN ('planning', 'planned', 'running', 'paused', 'aborted', 'done', 'expired')",
        name="state",
    ),
    CheckConstraint("(state = 'paused') = (cause IS NOT NULL)", name="has_cause"),
    CheckConstraint(
        "state NOT IN ('running', 'paused', 'done') OR btrim(reason) <> '' AND btrim(operator) <> ''"
        " AND started_at IS NOT NULL",
        name="has_reason",
    ),
    CheckConstraint("cause IN ('operator', 'failures', 'cap')", name="cause"),
    CheckConstraint("stop_share > 0 AND stop_share <= 1 AND stop_min >= 1", name="stops"),
    CheckConstraint("rate_per_min > 0", name="rate"),
    CheckConstraint("cap_nano_usd >= 0", name="cap"),
    *bounded(
        planned_by=WORDS,
        operator=WORDS,
        reason=WORDS,
        selection=f"octet_length({{}}::text) <= {bounds.SELECTION_MAX_BYTES}",
    ),
    comment="stored redrives; the sums are those of their calls",
)
Index("ix_redrive_step", redrive.c.step_at, postgresql_where=text("ended_at IS NULL"))
Index("ix_redrive_ended_at", redrive.c.ended_at, postgresql_where=text("ended_at IS NOT NULL"))
Index("ix_redrive_created_at", redrive.c.created_at)

redrive_call = Table(
    "redrive_call",
    metadata,
    Column("redrive_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False, comment="the oldest call first"),
    Column("call_id", Uuid, nullable=False),
    Column("generation", Integer, nullable=False, comment="that died or was refused"),
    Column("org_id", Text, nullable=False),
    Column("call_type", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("state", Text, nullable=False, comment="of that generation"),
    Column("outcome", Text, nullable=False, server_default=text("'pending'")),
    Column("code", Text, comment="why it was not released, or how its next generation ended"),
    Column(
        "has_unknown_bill",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="an attempt may have been billed",
    ),
    Column("worst_case_nano_usd", BigInteger, comment="of one attempt; null: not priced"),
    Column("input_token_bound", Integer, nullable=False, server_default=NONE),
    Column("output_token_bound", Integer, nullable=False, server_default=NONE),
    Column("new_generation", Integer, comment="that was released"),
    Column("posted_nano_usd", BigInteger, comment="what the new generation has cost"),
    Column(
        "try_at",
        TIME,
        nullable=False,
        server_default=text("'1970-01-01 00:00:00+00'::timestamptz"),
        comment="it was locked, or its organisation busy: not before",
    ),
    Column("changed_at", TIME, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("redrive_id", "number"),
    UniqueConstraint("redrive_id", "call_id"),
    CheckConstraint("state IN ('dead', 'rejected')", name="state"),
    CheckConstraint(
        "outcome IN ('pending', 'released', 'succeeded', 'failed', 'rejected', 'refused', 'skipped', 'left')",
        name="outcome",
    ),
    CheckConstraint(
        "(new_generation IS NOT NULL) = (outcome IN ('released', 'succeeded', 'failed', 'rejected'))",
        name="is_released",
    ),
    *bounded(org_id=NAME, call_type=NAME, provider=NAME, model=NAME, code=NAME),
    comment="the calls of redrives; frozen when a redrive was planned",
)
Index(
    "ix_redrive_call_unfinished",
    redrive_call.c.redrive_id,
    redrive_call.c.outcome,
    redrive_call.c.number,
    postgresql_where=text("outcome IN ('pending', 'released')"),
)
Index("ix_redrive_call_call", redrive_call.c.call_id)
