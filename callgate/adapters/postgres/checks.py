"""What `callgate doctor` looks at in a Postgres server."""

from __future__ import annotations

from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.version import VERSION, major_version
from callgate.services.doctor import Check, Seen

QUIET_SETTINGS: dict[str, tuple[str, ...]] = {
    "log_min_error_statement": ("panic",),
    "log_statement": ("none", "ddl"),
    "log_min_duration_statement": ("-1",),
    "log_min_duration_sample": ("-1",),
    "log_transaction_sample_rate": ("0",),
    "auto_explain.log_min_duration": ("-1",),
}
"""Values that keep prompts and answers out of the server's own log (docs/security.md). The first is the one to set."""
LOG_SETTINGS = (
    "SELECT name, current_setting(name, true) AS value FROM unnest(%(names)s::text[]) AS name"
)
LOCK_WATCH = """SELECT pg_get_userbyid(proowner) AS owner,
    pg_has_role(proowner, 'pg_signal_backend', 'USAGE') AS may_end,
    current_setting('max_prepared_transactions')::int AS prepared_max
  FROM pg_proc WHERE proname = 'callgate_end_lock_hoarders_v1' AND pg_function_is_visible(oid)"""


def database_checks(session: PostgresSession) -> list[Check]:
    """Checks of the server: its version, whether its log may hold prompts, and whether a client can take all locks."""
    return [
        Check("database", lambda: _database(session)),
        Check("server log", lambda: _server_log(session), needs="database"),
        Check("locks", lambda: _locks(session), needs="database"),
    ]


def _database(session: PostgresSession) -> str:
    ((number,),) = session.rows(VERSION, {})
    return f"Postgres {major_version(number)} answers"


def _server_log(session: PostgresSession) -> Seen:
    """The settings of this login; another login may have others."""
    rows = session.rows(LOG_SETTINGS, {"names": list(QUIET_SETTINGS)})
    remedies = ", ".join(
        f"{row.name} = {QUIET_SETTINGS[row.name][0]} (it is {row.value})"
        for row in rows
        if row.value not in (None, *QUIET_SETTINGS[row.name])
    )
    if not remedies:
        return Seen("Postgres keeps statements, and so prompts, out of its log")
    return Seen(f"Postgres may write prompts into its log: set {remedies}", is_warning=True)


def _locks(session: PostgresSession) -> Seen | None:
    """Whether workers can stop a client that takes all locks; None before `callgate migrate`."""
    remedies = []
    rows = session.rows(LOCK_WATCH, {})
    for row in rows:
        if not row.may_end:
            remedies.append(f"run as a superuser: GRANT pg_signal_backend TO {row.owner}")
        if row.prepared_max:
            remedies.append(
                f"set max_prepared_transactions = 0 (it is {row.prepared_max}), because such a transaction needs no"
                " session"
            )
    if remedies:
        return Seen(f"a client can take all locks of the server: {'; '.join(remedies)}", True)
    return Seen("workers end the sessions of a client that takes too many") if rows else None
