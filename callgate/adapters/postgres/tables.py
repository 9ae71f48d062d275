"""
The tables, for Alembic and for readers; the statements that move money are in `callgate/adapters/postgres/sql`.

Money is BIGINT nano-USD, times come from the database's clock, every tenant table carries `org_id`. What must never
be false is a CHECK. `ai_call_log` is partitioned by month; its partitions are made by `make_partitions_v1.sql`.
"""

import re

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from callgate.domain import bounds

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

PARTITION_NAME = re.compile(r"ai_call_log_(\d{4}_\d{2}|default)")
"""Partitions come and go without a migration: comparisons of the schema leave them out."""
_NOW = text("now()")
_TIME = DateTime(timezone=True)


def _bounds(**columns: str) -> list[CheckConstraint]:
    """How large columns may be: of each a condition, in which `{}` is its name."""
    return [
        CheckConstraint(condition.format(name), name=f"{name}_is_bounded")
        for name, condition in columns.items()
    ]


_NAME = f"char_length({{}}) <= {bounds.NAME_CHARS_MAX}"
_PROCESS = f"char_length({{}}) <= {bounds.PROCESS_CHARS_MAX}"
_ERROR = f"octet_length({{}}) <= {bounds.ERROR_BYTES_MAX}"
_WORDS = f"char_length({{}}) <= {bounds.OPERATOR_TEXT_CHARS_MAX}"
_HASH = f"octet_length({{}}) = {bounds.HASH_BYTES}"

llm_call = Table(
    "llm_call",
    metadata,
    Column("call_id", Uuid, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("input_hash", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("due_at", _TIME, comment="when somebody must look; queued: when it was queued"),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("attempt_id", Uuid, comment="the newest attempt; of a succeeded call the winner"),
    Column("call_type", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("input_token_bound", Integer, nullable=False),
    Column("request", LargeBinary, comment="the LLMRequest, byte for byte; null when purged"),
    Column("error", Text),
    Column("error_fingerprint", Text),
    Column(
        "requested_hold_nano_usd",
        BigInteger,
        comment="the hold it waits for headroom for, from refusal to claim",
    ),
    Column(
        "sweeps",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="how often one has found it queued since somebody last claimed or refused it",
    ),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("wait_reason", Text),
    Column("breaker_id", BigInteger, comment="everybody's breaker of what it waits for"),
    Column("wait_until", _TIME, comment="until when it may wait for its provider's breaker"),
    PrimaryKeyConstraint("call_id", "generation"),
    CheckConstraint("generation >= 1", name="generation_starts_at_1"),
    CheckConstraint("attempt >= 0", name="attempt_not_negative"),
    CheckConstraint(
        "state IN ('queued', 'running', 'waiting', 'succeeded', 'dead', 'rejected')", name="state"
    ),
    CheckConstraint(
        "state NOT IN ('queued', 'running', 'waiting') OR due_at IS NOT NULL", name="open_is_due"
    ),
    CheckConstraint(
        "state NOT IN ('running', 'succeeded') OR attempt_id IS NOT NULL", name="has_attempt"
    ),
    CheckConstraint(
        "state NOT IN ('dead', 'rejected') OR error IS NOT NULL", name="end_has_reason"
    ),
    CheckConstraint(
        "requested_hold_nano_usd IS NULL OR state IN ('waiting', 'queued')",
        name="wants_while_waiting",
    ),
    CheckConstraint(
        "breaker_id IS NULL OR state IN ('waiting', 'queued')", name="breaker_while_waiting"
    ),
    CheckConstraint("(wait_reason IS NOT NULL) = (state = 'waiting')", name="waits_for_a_reason"),
    CheckConstraint(
        "wait_reason IN ('retry', 'budget_held', 'budget_exhausted', 'provider', 'quarantine', 'memory')",
        name="wait_reason",
    ),
    *_bounds(
        org_id=_NAME,
        call_type=_NAME,
        provider=_NAME,
        model=_NAME,
        input_hash=_HASH,
        input_token_bound=f"{{}} BETWEEN 0 AND {bounds.INPUT_TOKENS_MAX}",
        request=f"octet_length({{}}) <= {bounds.REQUEST_BYTES_MAX}",
        error=_ERROR,
        error_fingerprint=f"char_length({{}}) <= {bounds.FINGERPRINT_CHARS_MAX}",
    ),
)
Index(
    "ix_llm_call_due",
    llm_call.c.due_at,
    postgresql_where=text("state <> 'queued' AND due_at IS NOT NULL"),
)
Index(
    "ix_llm_call_kept",
    llm_call.c.org_id,
    llm_call.c.created_at,
    postgresql_where=text("request IS NOT NULL AND due_at IS NULL"),
)
Index("ix_llm_call_queued", llm_call.c.due_at, postgresql_where=text("state = 'queued'"))
Index(
    "ix_llm_call_wanted",
    llm_call.c.org_id,
    llm_call.c.created_at,
    postgresql_where=text("requested_hold_nano_usd IS NOT NULL"),
)
Index(
    "ix_llm_call_least_wanted",
    llm_call.c.org_id,
    llm_call.c.call_type,
    llm_call.c.requested_hold_nano_usd,
    postgresql_where=text("requested_hold_nano_usd IS NOT NULL"),
)
Index(
    "ix_llm_call_released",
    llm_call.c.breaker_id,
    llm_call.c.due_at,
    postgresql_where=text("breaker_id IS NOT NULL"),
)
Index(
    "ix_llm_call_breaker",
    llm_call.c.breaker_id,
    llm_call.c.org_id,
    llm_call.c.attempt,
    llm_call.c.created_at,
    postgresql_where=text("breaker_id IS NOT NULL"),
)
Index("ix_llm_call_org", llm_call.c.org_id, llm_call.c.created_at.desc())
Index(
    "ix_llm_call_dead",
    llm_call.c.org_id,
    llm_call.c.error_fingerprint,
    postgresql_where=text("state = 'dead'"),
)

submission = Table(
    "submission",
    metadata,
    Column("submission_id", Uuid, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("call_id", Uuid, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("outcome", Text, nullable=False, comment="created, joined, replayed, failed, inherited"),
    Column("idempotency_key", Text),
    Column(
        "link",
        Text,
        comment="what to publish at the end, with its resolved route; null when purged",
    ),
    Column("delivered_at", _TIME),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("failure", Text, comment="why the last try to deliver the link failed"),
    Column(
        "try_at",
        _TIME,
        nullable=False,
        server_default=text("'1970-01-01 00:00:00+00'::timestamptz"),
        comment="not before, once the call has ended",
    ),
    Column("given_up_at", _TIME, comment="the link is not tried any more"),
    PrimaryKeyConstraint("submission_id"),
    UniqueConstraint("org_id", "idempotency_key"),
    *_bounds(
        org_id=_NAME,
        idempotency_key=f"char_length({{}}) <= {bounds.IDEMPOTENCY_KEY_CHARS_MAX}",
        link=f"octet_length({{}}) <= {bounds.LINK_BYTES_MAX}",
        failure=f"char_length({{}}) <= {bounds.LINK_FAILURE_CHARS_MAX}",
    ),
)
Index(
    "ix_submission_untold",
    submission.c.call_id,
    submission.c.generation,
    submission.c.try_at,
    postgresql_where=text("link IS NOT NULL AND delivered_at IS NULL AND given_up_at IS NULL"),
)
Index("ix_submission_call", submission.c.call_id, submission.c.generation)

untold_call = Table(
    "untold_call",
    metadata,
    Column("call_id", Uuid, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("tell_at", _TIME, nullable=False, comment="when a link of it is to be tried next"),
    PrimaryKeyConstraint("call_id", "generation"),
    comment="calls that have ended, and have links to deliver",
)
Index("ix_untold_call_turn", untold_call.c.org_id, untold_call.c.tell_at)

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
    Column("started_at", _TIME, nullable=False, server_default=_NOW),
    Column("finished_at", _TIME, comment="when the answer was recorded"),
    Column("posted_at", _TIME, comment="when the money was posted, or posted again"),
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
        comment="what is odd about what the provider said",
    ),
    Column("settled_by_hand_at", _TIME, comment="posted is what an operator said was billed"),
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
    CheckConstraint("kind IN ('call', 'probe')", name="kind"),
    *_bounds(
        org_id=_NAME,
        input_hash=_HASH,
        call_type=_NAME,
        provider=_NAME,
        model=_NAME,
        credential=_NAME,
        price_source=f"char_length({{}}) <= {bounds.SOURCE_CHARS_MAX}",
        service_tier=_NAME,
        provider_request_id=_NAME,
        trace_id=f"char_length({{}}) <= {bounds.TRACE_ID_CHARS_MAX}",
        error_json=_ERROR,
        reply=f"octet_length({{}}) <= {bounds.REPLY_BYTES_MAX}",
        worker_id=_PROCESS,
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

ai_call_log_archive = Table(
    "ai_call_log_archive",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("partition_name", Text, nullable=False, comment="what was dropped"),
    Column("ends_at", _TIME, nullable=False, comment="its attempts are older than this"),
    Column("org_id", Text, nullable=False),
    Column("call_type", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("budget_ids", ARRAY(BigInteger), nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("posted_nano_usd", BigInteger, nullable=False),
    Column(
        "saved_nano_usd",
        BigInteger,
        nullable=False,
        comment="posted times the collapsed submissions of its succeeded call",
    ),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    PrimaryKeyConstraint("id"),
    CheckConstraint("status IN ('succeeded', 'failed', 'unknown')", name="status"),
)

budget = Table(
    "budget",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("org_id", Text, nullable=False),
    Column("scope", Text, nullable=False, comment="org, or call_type:<name>"),
    Column("window", Text, nullable=False),
    Column("timezone", Text, nullable=False, server_default="UTC"),
    Column("starts_at", _TIME, nullable=False),
    Column("ends_at", _TIME, nullable=False),
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
    *_bounds(
        org_id=_NAME,
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
        "org_id", Text, nullable=False, server_default="", comment="whose calls; empty: everybody's"
    ),
    Column("is_open", Boolean, nullable=False, server_default=text("false")),
    Column("reason", Text, comment="the failure that opened it, or an operator's words"),
    Column("changed_at", _TIME, nullable=False, server_default=_NOW),
    Column(
        "failed_orgs",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="whose the failures since the last success were, each as often as it counts",
    ),
    Column("proven_at", _TIME, comment="about when the last success was settled"),
    Column("probe_wait_s", Double, nullable=False, server_default=text("10")),
    Column("probe_at", _TIME, comment="null while open: an operator must close it"),
    Column("turn_org", Text, nullable=False, server_default="", comment="who was let through last"),
    Column(
        "trial_ids",
        ARRAY(Uuid),
        nullable=False,
        server_default="{}",
        comment="attempts under way that it waits for",
    ),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("provider", "model", "credential", "org_id"),
    CheckConstraint("is_open OR probe_at IS NULL", name="probed_while_open"),
    CheckConstraint("cardinality(failed_orgs) <= 3", name="failures_are_few"),
    *_bounds(
        provider=_NAME, model=_NAME, credential=_NAME, org_id=_NAME, reason=_WORDS, turn_org=_NAME
    ),
)

operator_action = Table(
    "operator_action",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("at", _TIME, nullable=False, server_default=_NOW),
    Column("operator", Text, nullable=False, comment="who: a name that the tool was given"),
    Column("login", Text, nullable=False, server_default=text("SESSION_USER")),
    Column("action", Text, nullable=False),
    Column("org_id", Text, comment="whose money or calls; null: of no one organisation"),
    Column("subject", Text, nullable=False, comment="what was changed: an id, or names"),
    Column("reason", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    PrimaryKeyConstraint("id"),
    CheckConstraint("btrim(reason) <> ''", name="has_reason"),
    CheckConstraint("btrim(operator) <> ''", name="has_operator"),
    *_bounds(
        operator=_WORDS,
        action=_NAME,
        org_id=_NAME,
        subject=_WORDS,
        reason=_WORDS,
        detail=f"octet_length({{}}::text) <= {bounds.DETAIL_BYTES_MAX}",
    ),
    comment="who changed what, and why; append-only for every role",
)
Index("ix_operator_action_at", operator_action.c.at)
Index("ix_operator_action_org", operator_action.c.org_id, operator_action.c.at)

unprocessable_message = Table(
    "unprocessable_message",
    metadata,
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("at", _TIME, nullable=False, server_default=_NOW),
    Column("queue", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    PrimaryKeyConstraint("id"),
    *_bounds(
        queue=f"char_length({{}}) <= {bounds.QUEUE_CHARS_MAX}",
        reason=_WORDS,
        raw=f"octet_length({{}}) <= {bounds.UNPROCESSABLE_BYTES_MAX}",
    ),
)

worker_lease = Table(
    "worker_lease",
    metadata,
    Column("worker_id", Text, nullable=False, comment="one process, without claim number"),
    Column(
        "began_at",
        _TIME,
        nullable=False,
        comment="another one than before: it was released meanwhile",
    ),
    Column("stable_since", _TIME, nullable=False, comment="since then no renewal was late"),
    Column("renewed_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    PrimaryKeyConstraint("worker_id"),
    *_bounds(worker_id=_PROCESS),
)

tenant_login = Table(
    "tenant_login",
    metadata,
    Column("login", Text, nullable=False, comment="as Postgres knows it: session_user"),
    Column("org_id", Text, nullable=False),
    PrimaryKeyConstraint("login", "org_id"),
    *_bounds(login=f"char_length({{}}) <= {bounds.LOGIN_CHARS_MAX}", org_id=_NAME),
    comment="which organisations a login of callgate_client acts for",
)
