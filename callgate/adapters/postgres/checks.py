"""What `callgate doctor` looks at in a Postgres server."""

from __future__ import annotations

import time
from collections.abc import Callable

from callgate.adapters.postgres.roles import CLIENT, DASHBOARD, WORKER
from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.upkeep_checks import upkeep_checks
from callgate.adapters.postgres.version import major_version
from callgate.domain.errors import CallgateError
from callgate.services.doctor import Check, Seen, warning

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
SERVER = """SELECT current_setting('server_version_num')::int AS number,
    current_setting('max_connections')::int AS connections_max,
    (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL) AS connections"""
NOW = "SELECT extract(epoch FROM clock_timestamp())::float8 AS at"
LOGIN = """SELECT session_user::text AS name, is_owner,
    ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.rolname = ANY (%(roles)s)
             AND pg_has_role(session_user, r.oid, 'MEMBER') ORDER BY 1) AS roles
  FROM (SELECT coalesce(bool_or(pg_has_role(session_user, proowner, 'USAGE')), false) AS is_owner FROM pg_proc
         WHERE proname = 'callgate_tenant_orgs_v1' AND pg_function_is_visible(oid)) o"""
ORGS = "SELECT cardinality(callgate_tenant_orgs_v1()) AS orgs"
CONNECTIONS_USED = 0.8
CLOCK_DIFFERENCE_MAX_S = 2.0


def database_checks(
    session: PostgresSession, *, wall_s: Callable[[], float] = time.time
) -> list[Check]:
    """
    Checks of the server: version, connections, login, clock, log, locks, and its upkeep.

    Args:
        wall_s: This machine's clock.
    """
    return [
        Check("database", lambda: _database(session)),
        Check("clock", lambda: _clock(session, wall_s), needs="database"),
        Check("login", lambda: _login(session), needs="database"),
        Check("server log", lambda: _server_log(session), needs="database"),
        Check("locks", lambda: _locks(session), needs="database"),
        *upkeep_checks(session),
    ]


def may_run_calls(session: PostgresSession) -> bool:
    """Whether a worker could use this login. True also where that is not known."""
    try:
        (login,) = session.rows(LOGIN, {"roles": [WORKER]})
    except CallgateError:
        return True
    return login.is_owner or bool(login.roles)


def _database(session: PostgresSession) -> Seen:
    # The first statement also opens the connection.
    (server,) = session.rows(SERVER, {})
    major = major_version(server.number)
    began_s = time.monotonic()
    session.rows(NOW, {})
    answered_ms = (time.monotonic() - began_s) * 1000
    used = f"{server.connections} of {server.connections_max} connections are used"
    sentence = f"Postgres {major} answers in {answered_ms:.0f} ms; {used}"
    if server.connections <= CONNECTIONS_USED * server.connections_max:
        return Seen(sentence)
    return warning(sentence, "Raise max_connections, use a pooler, or run fewer processes.")


def _clock(session: PostgresSession, wall_s: Callable[[], float]) -> Seen:
    before_s = wall_s()
    (row,) = session.rows(NOW, {})
    after_s = wall_s()
    # Postgres read its clock between the two.
    ahead_s = max(before_s - row.at, row.at - after_s, 0.0)
    if ahead_s <= CLOCK_DIFFERENCE_MAX_S:
        return Seen(f"this machine and Postgres differ by {ahead_s:.1f} s at most")
    relation = "behind" if row.at > after_s else "ahead of"
    return warning(f"this machine is {ahead_s:.1f} s {relation} Postgres")


def _login(session: PostgresSession) -> Seen | None:
    """None before `callgate migrate`."""
    (login,) = session.rows(LOGIN, {"roles": [CLIENT, WORKER, DASHBOARD]})
    if login.is_owner:
        return Seen(
            f"{login.name} owns the ledger, or is a superuser: it may do everything, and sees all organisations"
        )
    roles = ", ".join(login.roles)
    if CLIENT not in login.roles:
        return Seen(f"{login.name} has the roles: {roles}") if roles else None
    ((orgs,),) = session.rows(ORGS, {})
    sentence = f"{login.name} has the roles: {roles}; it may submit for {orgs} organisations"
    return Seen(sentence) if orgs else warning(sentence)


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
    return warning("Postgres may write prompts into its log", f"Set {remedies}.")


def _locks(session: PostgresSession) -> Seen | None:
    """Whether workers can stop a client that takes all locks; None before `callgate migrate`."""
    remedies = []
    rows = session.rows(LOCK_WATCH, {})
    for row in rows:
        if not row.may_end:
            remedies.append(f"Run as a superuser: GRANT pg_signal_backend TO {row.owner};")
        if row.prepared_max:
            remedies.append(
                f"Set max_prepared_transactions = 0 (it is {row.prepared_max}), because such a transaction needs no"
                " session."
            )
    if remedies:
        return warning("a client can take all locks of the server", " ".join(remedies))
    return Seen("workers end the sessions of a client that takes too many") if rows else None
