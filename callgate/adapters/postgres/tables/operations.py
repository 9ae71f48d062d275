"""What operators, workers and tenants leave behind: actions, unprocessable messages, leases, grants."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Identity,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from callgate.adapters.postgres.tables.columns import (
    NAME,
    NOW,
    PROCESS,
    TIME,
    WORDS,
    bounded,
    metadata,
)
from callgate.domain import bounds

operator_action = Table(
    "operator_action",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("at", TIME, nullable=False, server_default=NOW),
    Column("operator", Text, nullable=False, comment="the operator's name, as given to the tool"),
    Column("login", Text, nullable=False, server_default=text("SESSION_USER")),
    Column("action", Text, nullable=False),
    Column("org_id", Text, comment="null: it concerns no single organisation"),
    Column("subject", Text, nullable=False, comment="what was changed: an id, or names"),
    Column("reason", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    PrimaryKeyConstraint("id"),
    CheckConstraint("btrim(reason) <> ''", name="has_reason"),
    CheckConstraint("btrim(operator) <> ''", name="has_operator"),
    *bounded(
        operator=WORDS,
        action=NAME,
        org_id=NAME,
        subject=WORDS,
        reason=WORDS,
        detail=f"octet_length({{}}::text) <= {bounds.DETAIL_BYTES_MAX}",
    ),
    comment="what operators changed, and why; append-only for every role",
)
Index("ix_operator_action_at", operator_action.c.at)
Index("ix_operator_action_org", operator_action.c.org_id, operator_action.c.at)

unprocessable_message = Table(
    "unprocessable_message",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("at", TIME, nullable=False, server_default=NOW),
    Column("queue", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    PrimaryKeyConstraint("id"),
    *bounded(
        queue=f"char_length({{}}) <= {bounds.QUEUE_CHARS_MAX}",
        reason=WORDS,
        raw=f"octet_length({{}}) <= {bounds.UNPROCESSABLE_BYTES_MAX}",
    ),
)

worker_lease = Table(
    "worker_lease",
    metadata,
    Column("worker_id", Text, nullable=False, comment="one process, without claim number"),
    Column(
        "began_at",
        TIME,
        nullable=False,
        comment="a new value: the lease was released meanwhile",
    ),
    Column("stable_since", TIME, nullable=False, comment="since then no renewal was late"),
    Column("renewed_at", TIME, nullable=False),
    Column("expires_at", TIME, nullable=False),
    Column("limits_digest", Text, comment="of the declaration of provider limits it published"),
    PrimaryKeyConstraint("worker_id"),
    *bounded(worker_id=PROCESS, limits_digest=NAME),
)

tenant_login = Table(
    "tenant_login",
    metadata,
    Column("login", Text, nullable=False, comment="as Postgres knows it: session_user"),
    Column("org_id", Text, nullable=False),
    PrimaryKeyConstraint("login", "org_id"),
    *bounded(login=f"char_length({{}}) <= {bounds.LOGIN_CHARS_MAX}", org_id=NAME),
    comment="which organisations a login of callgate_client acts for",
)
