"""What limits calls: budgets, and the breakers of providers."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Identity,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from callgate.adapters.postgres.tables.columns import NAME, NOW, TIME, WORDS, bounded, metadata
from callgate.domain import bounds

budget = Table(
    "budget",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("org_id", Text, nullable=False),
    Column("scope", Text, nullable=False, comment="org, or call_type:<name>"),
    Column("window", Text, nullable=False),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    Column("starts_at", TIME, nullable=False),
    Column("ends_at", TIME, nullable=False),
    Column("limit_nano_usd", BigInteger, nullable=False),
    Column("reserved_nano_usd", BigInteger, nullable=False, server_default=text("0")),
    Column("spent_nano_usd", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("org_id", "scope", "window", "starts_at"),
    CheckConstraint("\"window\" IN ('day', 'month')", name="window"),
    CheckConstraint("starts_at < ends_at", name="period"),
    CheckConstraint(
        "limit_nano_usd >= 0 AND reserved_nano_usd >= 0 AND spent_nano_usd >= 0",
        name="money_not_negative",
    ),
    *bounded(
        org_id=NAME,
        scope=f"char_length({{}}) <= {bounds.SCOPE_CHARS_MAX}",
        timezone=f"char_length({{}}) <= {bounds.ZONE_CHARS_MAX}",
    ),
    postgresql_with={"fillfactor": "50"},
)

breaker = Table(
    "breaker",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("credential", Text, nullable=False, comment="an organisation, or empty"),
    Column(
        "org_id",
        Text,
        nullable=False,
        server_default="",
        comment="whose calls; empty: shared by all organisations",
    ),
    Column("is_open", Boolean, nullable=False, server_default=text("false")),
    Column("reason", Text, comment="the failure that opened it, or an operator's reason"),
    Column("changed_at", TIME, nullable=False, server_default=NOW),
    Column(
        "failed_orgs",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="the organisations of the failures since the last success",
    ),
    Column("proven_at", TIME, comment="about when the last success was settled"),
    Column("probe_wait_s", Double, nullable=False, server_default=text("10")),
    Column(
        "probe_at",
        TIME,
        comment="when the next probe may start; null while open: an operator must close it",
    ),
    Column(
        "turn_org",
        Text,
        nullable=False,
        server_default="",
        comment="the organisation that was let through last",
    ),
    Column(
        "trial_ids",
        ARRAY(Uuid),
        nullable=False,
        server_default="{}",
        comment="attempts under way whose result it waits for",
    ),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("provider", "model", "credential", "org_id"),
    CheckConstraint("is_open OR probe_at IS NULL", name="probed_while_open"),
    CheckConstraint("cardinality(failed_orgs) <= 3", name="failures_are_few"),
    *bounded(provider=NAME, model=NAME, credential=NAME, org_id=NAME, reason=WORDS, turn_org=NAME),
)
