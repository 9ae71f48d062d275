"""Bound what clients may store, and let no batch wait for a row that a client holds."""

from importlib import resources

import sqlalchemy as sa
from alembic import op

from callgate.adapters.postgres.roles import grants

revision = "0004"
down_revision = "0003"

CHANGED: tuple[str, ...] = (
    "breaker_headroom_v1",
    "breaker_change_v1",
    "admit_v1",
    "release_waiting_v1",
    "note_health_v1",
    "breakers_v1",
    "set_breaker_v1",
    "due_v1",
    "read_v1",
    "reserve_v1",
    "free_waiters_v1",
    "settle_v1",
    "end_v1",
    "release_leases_v1",
    "expire_leases_v1",
    "calls_v1",
    "dead_groups_v1",
    "deliver_v1",
    "purge_v1",
    "clear_due_at_v1",
    "submit_v1",
)
"""Functions that were there before, in another form: they are made again, of what the files say now."""
ADDED: tuple[str, ...] = (
    "hold_v1",
    "bound_login_v1",
    "waiting_orgs_v1",
    "has_free_call_v1",
    "forget_breakers_v1",
    "tell_later_v1",
    "has_untold_calls_v1",
    "links_v1",
    "link_failures_v1",
    "take_due_v1",
    "defer_call_v1",
    "end_lock_hoarders_v1",
    "may_end_sessions_v1",
)
"""In the order they are made."""
BREAKER_KEY = "uq_breaker_provider_model_credential"
PROBE = "ix_llm_call_probe"
WAIT_REASONS = ("retry", "budget_held", "budget_exhausted", "provider", "quarantine", "memory")
BOUNDS = {
    "ai_call_log": {
        "anomalies": "cardinality(anomalies) <= 32",
        "call_type": "char_length(call_type) <= 128",
        "credential": "char_length(credential) <= 128",
        "error_json": "octet_length(error_json) <= 16384",
        "input_hash": "octet_length(input_hash) = 32",
        "model": "char_length(model) <= 128",
        "org_id": "char_length(org_id) <= 128",
        "price_source": "char_length(price_source) <= 2000",
        "provider": "char_length(provider) <= 128",
        "provider_request_id": "char_length(provider_request_id) <= 128",
        "reply": "octet_length(reply) <= 67108864",
        "service_tier": "char_length(service_tier) <= 128",
        "trace_id": "char_length(trace_id) <= 128",
        "worker_id": "char_length(worker_id) <= 512",
    },
    "breaker": {
        "credential": "char_length(credential) <= 128",
        "model": "char_length(model) <= 128",
        "org_id": "char_length(org_id) <= 128",
        "provider": "char_length(provider) <= 128",
        "reason": "char_length(reason) <= 4000",
        "turn_org": "char_length(turn_org) <= 128",
    },
    "budget": {
        "org_id": "char_length(org_id) <= 128",
        "scope": "char_length(scope) <= 160",
        "timezone": "char_length(timezone) <= 64",
    },
    "llm_call": {
        "call_type": "char_length(call_type) <= 128",
        "error": "octet_length(error) <= 16384",
        "error_fingerprint": "char_length(error_fingerprint) <= 64",
        "input_hash": "octet_length(input_hash) = 32",
        "input_token_bound": "input_token_bound BETWEEN 0 AND 67108864",
        "model": "char_length(model) <= 128",
        "org_id": "char_length(org_id) <= 128",
        "provider": "char_length(provider) <= 128",
        "request": "octet_length(request) <= 33554432",
    },
    "operator_action": {
        "action": "char_length(action) <= 128",
        "detail": "octet_length(detail::text) <= 65536",
        "operator": "char_length(operator) <= 4000",
        "org_id": "char_length(org_id) <= 128",
        "reason": "char_length(reason) <= 4000",
        "subject": "char_length(subject) <= 4000",
    },
    "unprocessable_message": {
        "queue": "char_length(queue) <= 1024",
        "raw": "octet_length(raw) <= 65536",
        "reason": "char_length(reason) <= 4000",
    },
    "submission": {
        "failure": "char_length(failure) <= 500",
        "idempotency_key": "char_length(idempotency_key) <= 255",
        "link": "octet_length(link) <= 65536",
        "org_id": "char_length(org_id) <= 128",
    },
    "tenant_login": {
        "login": "char_length(login) <= 63",
        "org_id": "char_length(org_id) <= 128",
    },
    "worker_lease": {
        "worker_id": "char_length(worker_id) <= 512",
    },
}
"""What each column may be. NOT VALID: rows that are there are not read, but a change of one is held to it."""
MENDED = (
    """UPDATE submission SET idempotency_key = NULL WHERE char_length(idempotency_key) > 255""",
    """UPDATE submission
          SET link = NULL, given_up_at = now(), failure = 'it was larger than a link may be'
        WHERE octet_length(link) > 65536""",
    """UPDATE llm_call
          SET input_hash = CASE octet_length(input_hash) WHEN 32 THEN input_hash ELSE sha256(input_hash) END,
              call_type = left(call_type, 128), provider = left(provider, 128), model = left(model, 128),
              input_token_bound = least(greatest(input_token_bound, 0), 67108864),
              error = CASE WHEN octet_length(error) > 16384 OR octet_length(request) > 33554432
                           THEN '{"code": "too_large", "message": "it was larger than a call may be"}' ELSE error END,
              request = CASE WHEN octet_length(request) <= 33554432 THEN request END,
              (state, due_at, wait_reason, requested_hold_nano_usd, breaker_id) = (
                  SELECT s.* FROM (VALUES ('rejected', now(), NULL::text, NULL::bigint, NULL::bigint)) s
                   WHERE octet_length(request) > 33554432 AND state IN ('queued', 'waiting')
                   UNION ALL
                  SELECT state, due_at, wait_reason, requested_hold_nano_usd, breaker_id
                   WHERE NOT (coalesce(octet_length(request), 0) > 33554432 AND state IN ('queued', 'waiting')))
        WHERE octet_length(input_hash) <> 32 OR char_length(call_type) > 128 OR char_length(provider) > 128
           OR char_length(model) > 128 OR NOT input_token_bound BETWEEN 0 AND 67108864
           OR octet_length(error) > 16384 OR octet_length(request) > 33554432""",
    """UPDATE ai_call_log
          SET input_hash = CASE octet_length(input_hash) WHEN 32 THEN input_hash ELSE sha256(input_hash) END,
              call_type = left(call_type, 128), provider = left(provider, 128), model = left(model, 128)
        WHERE octet_length(input_hash) <> 32 OR char_length(call_type) > 128 OR char_length(provider) > 128
           OR char_length(model) > 128""",
)
"""What a client's login could store before, and nobody could change afterwards: cut, emptied, or ended."""
UNTOLD = """INSERT INTO untold_call (call_id, generation, org_id, tell_at)
SELECT l.call_id, l.generation, l.org_id, now() FROM llm_call l
 WHERE l.state IN ('succeeded', 'dead', 'rejected') AND l.due_at IS NOT NULL
   AND EXISTS (SELECT 1 FROM submission s
                WHERE s.call_id = l.call_id AND s.generation = l.generation
                  AND s.link IS NOT NULL AND s.delivered_at IS NULL AND s.given_up_at IS NULL)"""
"""Their due_at is taken by the due query, where no attempt needs it."""


def upgrade() -> None:
    """Change the tables, make the functions again, and grant what is there."""
    op.execute("SET LOCAL check_function_bodies = on")
    _guard_organisations_apart()
    _constrain_wait_reason(*WAIT_REASONS)
    _add_delivery()
    for statement in MENDED:
        op.execute(statement)
    op.execute(UNTOLD)
    for table, bounds in BOUNDS.items():
        added = (
            f"ADD CONSTRAINT ck_{table}_{column}_is_bounded CHECK ({condition}) NOT VALID"
            for column, condition in bounds.items()
        )
        op.execute(f"ALTER TABLE {table} {', '.join(added)}")
    for name in CHANGED:
        _drop_function(name)
    for name in (*ADDED, *CHANGED):
        op.get_bind().exec_driver_sql(_text(f"functions/{name}"))
    for statement in grants(_schema(), _functions(), _columns()):
        op.execute(statement)


def downgrade() -> None:
    """Take away what was added; the functions that stay are dropped by the revisions below."""
    op.execute("UPDATE llm_call SET wait_reason = 'quarantine' WHERE wait_reason = 'memory'")
    _constrain_wait_reason(*WAIT_REASONS[:-1])
    for name in reversed(ADDED):
        _drop_function(name)
    for table, bounds in BOUNDS.items():
        dropped = (f"DROP CONSTRAINT ck_{table}_{column}_is_bounded" for column in bounds)
        op.execute(f"ALTER TABLE {table} {', '.join(dropped)}")
    op.drop_table("untold_call")
    op.drop_index("ix_submission_untold", "submission")
    for column in ("tries", "failure", "try_at", "given_up_at"):
        op.drop_column("submission", column)
    _guard_all_together()


def _add_delivery() -> None:
    """What links have to themselves, and the calls that have some."""
    time = sa.DateTime(timezone=True)
    never = sa.text("'1970-01-01 00:00:00+00'::timestamptz")
    for column in (
        sa.Column("tries", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("failure", sa.Text, comment="why the last try to deliver the link failed"),
        sa.Column(
            "try_at",
            time,
            nullable=False,
            server_default=never,
            comment="not before, once the call has ended",
        ),
        sa.Column("given_up_at", time, comment="the link is not tried any more"),
    ):
        op.add_column("submission", column)
    op.create_index(
        "ix_submission_untold",
        "submission",
        ["call_id", "generation", "try_at"],
        postgresql_where=sa.text(
            "link IS NOT NULL AND delivered_at IS NULL AND given_up_at IS NULL"
        ),
    )
    op.create_table(
        "untold_call",
        sa.Column("call_id", sa.Uuid, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("org_id", sa.Text, nullable=False),
        sa.Column("tell_at", time, nullable=False, comment="when a link of it is to be tried next"),
        sa.PrimaryKeyConstraint("call_id", "generation", name="pk_untold_call"),
        comment="calls that have ended, and have links to deliver",
    )
    op.create_index("ix_untold_call_turn", "untold_call", ["org_id", "tell_at"])


def _guard_organisations_apart() -> None:
    """A breaker of its own for each organisation whose calls fail; failures are counted by organisation."""
    op.add_column(
        "breaker",
        sa.Column(
            "org_id",
            sa.Text(),
            nullable=False,
            server_default="",
            comment="whose calls; empty: everybody's",
        ),
    )
    op.add_column(
        "breaker",
        sa.Column(
            "failed_orgs",
            sa.ARRAY(sa.Text()),
            nullable=False,
            server_default="{}",
            comment="whose the failures since the last success were, each as often as it counts",
        ),
    )
    op.drop_column("breaker", "failures")
    op.alter_column(
        "breaker", "probed_org", new_column_name="turn_org", comment="who was let through last"
    )
    op.alter_column("llm_call", "breaker_id", comment="everybody's breaker of what it waits for")
    op.create_check_constraint(
        op.f("ck_breaker_failures_are_few"), "breaker", "cardinality(failed_orgs) <= 3"
    )
    _key_breakers_by("provider", "model", "credential", "org_id", before=BREAKER_KEY)
    _index_waiting_calls("ix_llm_call_breaker", "org_id", "attempt", "created_at", instead_of=PROBE)


def _guard_all_together() -> None:
    """Keep everybody's breakers alone, closed or open as they are."""
    op.execute("DELETE FROM breaker WHERE org_id <> ''")
    _key_breakers_by("provider", "model", "credential", before=f"{BREAKER_KEY}_org_id")
    op.drop_constraint(op.f("ck_breaker_failures_are_few"), "breaker")
    op.drop_column("breaker", "failed_orgs")
    op.drop_column("breaker", "org_id")
    op.alter_column("breaker", "turn_org", new_column_name="probed_org", comment=None)
    op.alter_column(
        "llm_call", "breaker_id", comment="the breaker it waits for, from refusal to claim"
    )
    op.add_column(
        "breaker", sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.create_check_constraint(op.f("ck_breaker_failures_not_negative"), "breaker", "failures >= 0")
    _index_waiting_calls(PROBE, "attempt", "org_id", "created_at", instead_of="ix_llm_call_breaker")
    _index_waiting_calls("ix_llm_call_breaker", "created_at")


def _key_breakers_by(*columns: str, before: str) -> None:
    op.drop_constraint(op.f(before), "breaker")
    op.create_unique_constraint(op.f(f"uq_breaker_{'_'.join(columns)}"), "breaker", list(columns))


def _index_waiting_calls(name: str, *columns: str, instead_of: str | None = None) -> None:
    """Beside the breaker, of calls that wait for one."""
    for index in {name, instead_of} - {None}:
        op.execute(f"DROP INDEX IF EXISTS {index}")
    waiting = sa.text("breaker_id IS NOT NULL")
    op.create_index(name, "llm_call", ["breaker_id", *columns], postgresql_where=waiting)


def _constrain_wait_reason(*reasons: str) -> None:
    named = ", ".join(f"'{reason}'" for reason in reasons)
    op.drop_constraint(op.f("ck_llm_call_wait_reason"), "llm_call")
    op.create_check_constraint(
        op.f("ck_llm_call_wait_reason"), "llm_call", f"wait_reason IN ({named})"
    )


def _drop_function(name: str) -> None:
    """Drop it in whatever form it is there."""
    forms = op.get_bind().scalars(
        sa.text(
            "SELECT oid::regprocedure::text FROM pg_proc"
            " WHERE pronamespace = current_schema()::regnamespace AND proname = :name"
        ),
        {"name": f"callgate_{name}"},
    )
    for form in list(forms):
        op.execute(f"DROP FUNCTION {form}")


def _schema() -> str:
    return str(op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())")))


def _functions() -> list[str]:
    named = (
        "SELECT oid::regprocedure::text FROM pg_proc"
        " WHERE pronamespace = current_schema()::regnamespace AND proname LIKE 'callgate\\_%'"
    )
    return list(op.get_bind().scalars(sa.text(named)))


def _columns() -> dict[str, list[str]]:
    inspector = sa.inspect(op.get_bind())
    return {
        table: [column["name"] for column in inspector.get_columns(table)]
        for table in inspector.get_table_names()
    }


def _text(name: str) -> str:
    folder = resources.files("callgate.adapters.postgres").joinpath("sql")
    # The driver reads % as a parameter's mark.
    return folder.joinpath(f"{name}.sql").read_text("utf-8").replace("%", "%%")
