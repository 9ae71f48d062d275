"""Calls, who submitted them, and whose links are to be delivered."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)

from callgate.adapters.postgres.tables.columns import (
    ERROR,
    HASH,
    NAME,
    NOW,
    TIME,
    bounded,
    metadata,
)
from callgate.domain import bounds
from callgate.domain.trace_context import TRACEPARENT_CHARS

STUCK = "state IN ('waiting', 'dead', 'rejected')"
"""A call that waits, or has ended without an answer: the minority that operators look for."""
IN_LISTS = "generation > 0"
OF_ORG = "generation >= 0"
"""
Both hold for each call. Only statements that say so use an index with this condition: lists say `> 0`, those that ask
for one organisation's calls `>= 0`, and what workers do all the time neither.
"""
IN_LINE = "is_in_line AND (state = 'queued' OR wait_reason = 'concurrency_limited')"
"""A call that waits for a place, or was woken and does not run yet. Workers of 0.1.0 leave is_in_line set."""

llm_call = Table(
    "llm_call",
    metadata,
    Column("call_id", Uuid, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("org_id", Text, nullable=False),
    Column("input_hash", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column(
        "due_at", TIME, comment="when it must be looked at; of a queued call when it was queued"
    ),
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
        comment="the hold for which it waits, from refusal to claim",
    ),
    Column(
        "sweeps",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="how many sweeps have found it queued since the last claim or refusal",
    ),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("wait_reason", Text, comment="why it waits"),
    Column("end_reason", Text, comment="the code of its error, if it is dead or rejected"),
    Column(
        "breaker_id", BigInteger, comment="the shared breaker of the provider that it waits for"
    ),
    Column(
        "wait_until",
        TIME,
        comment="until when it may wait for its provider, a place, held money, or paused",
    ),
    Column("output_token_bound", Integer, comment="what it takes from limits of output tokens"),
    Column(
        "priority",
        SmallInteger,
        nullable=False,
        server_default=text("1"),
        comment="0 bulk, 1 normal, 2 interactive",
    ),
    Column("rank_at", TIME, nullable=False, server_default=NOW, comment="the earliest comes first"),
    Column("start_before", TIME, comment="it is not sent later"),
    Column("lane", Text, comment="where it was published last; null: call"),
    Column(
        "is_in_line",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="it waits for a place of its organisation, from refusal to claim",
    ),
    Column("traceparent", Text, comment="the span of the submission that created it"),
    PrimaryKeyConstraint("call_id", "generation"),
    CheckConstraint("generation >= 1", name="generation_starts_at_1"),
    CheckConstraint("attempt >= 0", name="attempt_not_negative"),
    CheckConstraint(
        "state IN ('queued', 'running', 'waiting', 'succeeded', 'dead', 'rejected')", name="state"
    ),
    CheckConstraint("priority BETWEEN 0 AND 2", name="priority"),
    CheckConstraint("lane IN ('call', 'express')", name="lane"),
    CheckConstraint(
        "state NOT IN ('queued', 'running', 'waiting') OR due_at IS NOT NULL", name="open_is_due"
    ),
    CheckConstraint(
        "state NOT IN ('running', 'succeeded') OR attempt_id IS NOT NULL", name="has_attempt"
    ),
    CheckConstraint("state NOT IN ('dead', 'rejected') OR error IS NOT NULL", name="end_has_error"),
    CheckConstraint(
        "requested_hold_nano_usd IS NULL OR state IN ('waiting', 'queued')",
        name="hold_requested_while_waiting",
    ),
    CheckConstraint(
        "breaker_id IS NULL OR state IN ('waiting', 'queued')", name="breaker_while_waiting"
    ),
    CheckConstraint("(wait_reason IS NOT NULL) = (state = 'waiting')", name="has_wait_reason"),
    CheckConstraint(
        "(end_reason IS NOT NULL) = (state IN ('dead', 'rejected'))", name="has_end_reason"
    ),
    CheckConstraint(
        "wait_reason IN ('retry', 'budget_held', 'budget_exhausted', 'provider', 'quarantine', 'memory', 'locked',"
        " 'rate_limited', 'backlog', 'paused', 'concurrency_limited')",
        name="wait_reason",
    ),
    *bounded(
        org_id=NAME,
        call_type=NAME,
        provider=NAME,
        model=NAME,
        input_hash=HASH,
        input_token_bound=f"{{}} BETWEEN 0 AND {bounds.INPUT_TOKENS_MAX}",
        request=f"octet_length({{}}) <= {bounds.REQUEST_MAX_BYTES}",
        error=ERROR,
        end_reason=NAME,
        error_fingerprint=f"char_length({{}}) <= {bounds.FINGERPRINT_CHARS_MAX}",
        traceparent=f"octet_length({{}}) <= {TRACEPARENT_CHARS}",
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
Index(
    "ix_llm_call_backlog",
    llm_call.c.org_id,
    llm_call.c.rank_at,
    postgresql_where=text("wait_reason = 'backlog'"),
)
Index(
    "ix_llm_call_in_line",
    llm_call.c.org_id,
    func.hashtext(llm_call.c.call_type),
    llm_call.c.call_type,
    llm_call.c.provider,
    llm_call.c.model,
    llm_call.c.rank_at,
    postgresql_where=text(IN_LINE),
)
Index(
    "ix_llm_call_woken",
    llm_call.c.org_id,
    llm_call.c.due_at,
    postgresql_where=text(IN_LINE),
)
Index(
    # The state first: the organisations with queued calls, or with running ones, are found without reading the others.
    "ix_llm_call_open_org",
    llm_call.c.state,
    llm_call.c.org_id,
    llm_call.c.priority,
    postgresql_where=text("state IN ('queued', 'running', 'waiting')"),
)
Index("ix_llm_call_queued", llm_call.c.due_at, postgresql_where=text("state = 'queued'"))
Index(
    "ix_llm_call_requested_hold",
    llm_call.c.org_id,
    llm_call.c.created_at,
    postgresql_where=text("requested_hold_nano_usd IS NOT NULL"),
)
Index(
    "ix_llm_call_least_requested_hold",
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
    llm_call.c.rank_at,
    postgresql_where=text("breaker_id IS NOT NULL"),
)
Index(
    "ix_llm_call_paused",
    llm_call.c.org_id,
    llm_call.c.call_type,
    llm_call.c.provider,
    llm_call.c.model,
    llm_call.c.rank_at,
    postgresql_where=text("wait_reason = 'paused'"),
)
Index(
    "ix_llm_call_org",
    llm_call.c.org_id,
    llm_call.c.created_at.desc(),
    postgresql_where=text(OF_ORG),
)
Index("ix_llm_call_created", llm_call.c.created_at, postgresql_where=text(IN_LISTS))
Index(
    "ix_llm_call_stuck",
    llm_call.c.state,
    llm_call.c.created_at,
    postgresql_where=text(f"{STUCK} AND {IN_LISTS}"),
)
Index(
    "ix_llm_call_stuck_org",
    llm_call.c.org_id,
    llm_call.c.state,
    llm_call.c.created_at,
    postgresql_where=text(f"{STUCK} AND {IN_LISTS}"),
)
Index(
    "ix_llm_call_reason",
    func.coalesce(llm_call.c.wait_reason, llm_call.c.end_reason),
    llm_call.c.created_at,
    postgresql_where=text(f"{STUCK} AND {IN_LISTS}"),
)
Index(
    "ix_llm_call_fingerprint",
    llm_call.c.error_fingerprint,
    llm_call.c.created_at,
    postgresql_where=text(f"{STUCK} AND error_fingerprint IS NOT NULL AND {IN_LISTS}"),
)
Index(
    "ix_llm_call_dead",
    llm_call.c.org_id,
    llm_call.c.error_fingerprint,
    postgresql_where=text("state = 'dead'"),
)
Index(
    # The ids of attempts sort by time: which calls died lately is found without reading the others.
    "ix_llm_call_dead_attempt",
    llm_call.c.attempt_id,
    postgresql_where=text(f"state = 'dead' AND {IN_LISTS}"),
)
for _name, _where in (("dead", "state = 'dead'"), ("discarded", "end_reason = 'discarded'")):
    Index(
        f"ix_llm_call_{_name}_group",
        func.coalesce(llm_call.c.error_fingerprint, text("''")),
        llm_call.c.created_at,
        postgresql_where=text(f"{_where} AND {IN_LISTS}"),
    )
Index(
    "ix_llm_call_rejected_group",
    llm_call.c.end_reason,
    llm_call.c.created_at,
    postgresql_where=text(f"state = 'rejected' AND {IN_LISTS}"),
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
        comment="the message to publish when the call ends, with its route; null when purged",
    ),
    Column("delivered_at", TIME),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("failure", Text, comment="why the last delivery of the link failed"),
    Column(
        "try_at",
        TIME,
        nullable=False,
        server_default=text("'1970-01-01 00:00:00+00'::timestamptz"),
        comment="when to try again, once the call has ended",
    ),
    Column("given_up_at", TIME, comment="when delivery was given up"),
    PrimaryKeyConstraint("submission_id"),
    UniqueConstraint("org_id", "idempotency_key"),
    *bounded(
        org_id=NAME,
        idempotency_key=f"char_length({{}}) <= {bounds.IDEMPOTENCY_KEY_CHARS_MAX}",
        link=f"octet_length({{}}) <= {bounds.LINK_MAX_BYTES}",
        failure=f"char_length({{}}) <= {bounds.LINK_FAILURE_CHARS_MAX}",
    ),
)
Index(
    "ix_submission_undelivered",
    submission.c.call_id,
    submission.c.generation,
    submission.c.try_at,
    postgresql_where=text("link IS NOT NULL AND delivered_at IS NULL AND given_up_at IS NULL"),
)
Index(
    "ix_submission_given_up",
    submission.c.given_up_at,
    postgresql_where=text("given_up_at IS NOT NULL"),
)
Index("ix_submission_call", submission.c.call_id, submission.c.generation)
Index(
    "ix_submission_collapsed",
    submission.c.org_id,
    submission.c.created_at,
    postgresql_where=text("outcome IN ('joined', 'replayed', 'failed')"),
)

undelivered_call = Table(
    "undelivered_call",
    metadata,
    Column("call_id", Uuid, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("org_id", Text, nullable=False),
    Column(
        "deliver_at", TIME, nullable=False, comment="when the next of its links is to be delivered"
    ),
    PrimaryKeyConstraint("call_id", "generation"),
    comment="ended calls with links to deliver",
)
Index("ix_undelivered_call_turn", undelivered_call.c.org_id, undelivered_call.c.deliver_at)
