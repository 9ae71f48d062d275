"""What `callgate doctor` looks at in a Postgres server that has run for a while. Every login may see the statistics."""

from __future__ import annotations

from callgate.adapters.postgres.session import PostgresSession
from callgate.services.doctor import Check, Seen, named, warning

OLD_TRANSACTION_S = 300.0
DEAD_MIN = 10_000
"""Fewer dead rows slow nothing down."""
DEAD_PER_LIVE = 0.5
HOT = (
    "llm_call",
    "submission",
    "undelivered_call",
    "budget",
    "breaker",
    "worker_lease",
    "flow_limit",
    "flow_share",
)
"""The tables whose rows change all the time, beside the newest partitions of the log."""
TRANSACTIONS = """SELECT
    count(*) FILTER (WHERE query = '<insufficient privilege>') AS hidden,
    coalesce(max(extract(epoch FROM now() - xact_start)), 0)::float8 AS oldest_s,
    (array_agg(concat('session ', pid, ' of ', usename, ', ', state) ORDER BY xact_start NULLS LAST))[1] AS oldest
  FROM pg_stat_activity
 WHERE datname = current_database() AND coalesce(backend_type, 'client backend') = 'client backend'
   AND pid <> pg_backend_pid()"""
"""Of sessions of other logins only a member of pg_read_all_stats sees more than that they are there."""
PREPARED = """SELECT coalesce(max(extract(epoch FROM now() - prepared)), 0)::float8 AS oldest_s
  FROM pg_prepared_xacts WHERE database = current_database()"""
DEAD_ROWS = """SELECT c.relname::text AS name, pg_stat_get_live_tuples(c.oid) AS live,
    pg_stat_get_dead_tuples(c.oid) AS dead
  FROM pg_class c
 WHERE c.relkind = 'r' AND pg_table_is_visible(c.oid)
   AND (c.relname = ANY (%(hot)s) OR starts_with(c.relname, 'ai_call_log_'))"""
AUTOVACUUM = "SELECT current_setting('autovacuum') = 'on' AS is_on"
PARTITIONS = """SELECT c.relname::text AS name, pg_relation_size(c.oid) AS size_bytes,
       to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM') AS this_month,
       to_char(now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY_MM') AS next_month
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = to_regclass('ai_call_log') ORDER BY 1"""
DEFAULT = "ai_call_log_default"


def upkeep_checks(session: PostgresSession) -> list[Check]:
    """Checks of old transactions, dead rows and partitions."""
    return [
        Check("transactions", lambda: _transactions(session), needs="database"),
        Check("tables", lambda: _tables(session), needs="database"),
        Check("partitions", lambda: _partitions(session), needs="database"),
    ]


def _transactions(session: PostgresSession) -> Seen:
    (seen,) = session.rows(TRANSACTIONS, {})
    (prepared,) = session.rows(PREPARED, {})
    hidden = (
        f"; this login may not see {seen.hidden} sessions (GRANT pg_read_all_stats)"
        if seen.hidden
        else ""
    )
    if prepared.oldest_s > max(OLD_TRANSACTION_S, seen.oldest_s):
        return warning(
            f"a prepared transaction is {prepared.oldest_s:.0f} s old{hidden}",
            "End it with COMMIT PREPARED or ROLLBACK PREPARED: pg_prepared_xacts has its name.",
        )
    if seen.oldest_s > OLD_TRANSACTION_S:
        return warning(f"the oldest is {seen.oldest_s:.0f} s old: {seen.oldest}{hidden}")
    return Seen(f"the oldest is {seen.oldest_s:.0f} s old{hidden}")


def _tables(session: PostgresSession) -> Seen | None:
    """None before `callgate migrate`."""
    rows = session.rows(DEAD_ROWS, {"hot": list(HOT)})
    if not rows:
        return None
    ((is_on,),) = session.rows(AUTOVACUUM, {})
    dead = [row for row in rows if row.dead > DEAD_MIN and row.dead > DEAD_PER_LIVE * row.live]
    dead.sort(key=lambda row: -row.dead)
    parts = [] if is_on else ["autovacuum is off"]
    if dead:
        parts.append(
            named([f"{row.name} has {row.dead} dead rows and {row.live} live ones" for row in dead])
        )
    if parts:
        return warning("; ".join(parts))
    return Seen(f"{sum(row.dead for row in rows)} dead rows in {len(rows)} hot tables")


def _partitions(session: PostgresSession) -> Seen | None:
    """None before `callgate migrate`."""
    rows = session.rows(PARTITIONS, {})
    if not rows:
        return None
    months = {row.name.removeprefix("ai_call_log_") for row in rows if row.name != DEFAULT}
    missing = [m for m in (rows[0].this_month, rows[0].next_month) if m not in months]
    parts = [f"the log has none for {', '.join(missing)}"] if missing else []
    if kilobytes := sum(row.size_bytes for row in rows if row.name == DEFAULT) // 1024:
        parts.append(f"{DEFAULT} has {kilobytes} kB: rows of months without a partition")
    if parts:
        return warning("; ".join(parts))
    return Seen(f"{len(months)} months, the newest {max(months)}")
