"""What operators, workers and tenants leave behind: actions, unprocessable messages, leases, grants, figures."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

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
        detail=f"octet_length({{}}::text) <= {bounds.DETAIL_MAX_BYTES}",
    ),
    comment="what operators changed, and why; append-only for every role",
)
Index("ix_operator_action_at", operator_action.c.at)
Index("ix_operator_action_subject", operator_action.c.subject)
Index("ix_operator_action_org", operator_action.c.org_id, operator_action.c.at)
Index("ix_operator_action_operator", operator_action.c.operator, operator_action.c.id)

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
        raw=f"octet_length({{}}) <= {bounds.UNPROCESSABLE_MAX_BYTES}",
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
    Column("version", Text, comment="of callgate; null: it has published no fingerprint"),
    Column("schema_revision", Text, comment="the newest schema that it knows"),
    Column("settings_digest", Text, comment="of the settings that all workers should share"),
    Column("catalogue_digest", Text, comment="of its catalogue"),
    Column(
        "catalogue_sections", JSONB, comment="digests of the sections of its catalogue, by name"
    ),
    Column("slots", Integer, comment="how many calls it runs at a time; null: it does not say"),
    PrimaryKeyConstraint("worker_id"),
    CheckConstraint("slots >= 0", name="slots_not_negative"),
    *bounded(
        worker_id=PROCESS,
        limits_digest=NAME,
        version=NAME,
        schema_revision=NAME,
        settings_digest=NAME,
        catalogue_digest=NAME,
        catalogue_sections="octet_length({}::text) <= 4000",
    ),
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

ledger_figures = Table(
    "ledger_figures",
    metadata,
    Column("is_only", Boolean, nullable=False, server_default=text("true")),
    Column("read_at", TIME, nullable=False),
    Column("figures", JSON, nullable=False, comment="each as name, labels, value"),
    PrimaryKeyConstraint("is_only"),
    CheckConstraint("is_only", name="is_one_row"),
    comment="the newest figures for metrics; one row",
)
