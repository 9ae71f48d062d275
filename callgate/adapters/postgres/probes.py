"""What `callgate doctor` looks at in a Postgres server."""

from __future__ import annotations

from callgate.adapters.postgres.session import PostgresSession
from callgate.adapters.postgres.version import VERSION, major_version
from callgate.services.doctor import Probe, Seen

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


def database_probes(session: PostgresSession) -> list[Probe]:
    """Probes of the server: its version, and whether its log could hold prompts."""
    return [
        Probe("database", lambda: _database(session)),
        Probe("server log", lambda: _server_log(session), needs="database"),
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
