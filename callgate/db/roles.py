"""
Who may do what in the database: the one list, and the statements that make it so.

No role writes a table: what changes the ledger is a function that runs with its owner's rights, and a role may or may
not execute it. A function that is not listed here is nobody's but the owner's. Logins are made by whoever runs the
database, and get their rights by membership: `GRANT callgate_worker TO ...`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

CLIENT = "callgate_client"
"""Submits, reads and cancels calls of the organisations its login was granted (`callgate tenants`), no others."""
WORKER = "callgate_worker"
"""Runs calls of all organisations; sets no budget, cancels nothing, deletes nothing."""
DASHBOARD = "callgate_dashboard"
"""Reads everything but what callers wrote and providers answered."""
ROLES = (CLIENT, WORKER, DASHBOARD)

MAY_EXECUTE: Mapping[str, Sequence[str]] = {
    "callgate_tenant_orgs_v1": (CLIENT,),
    "callgate_submit_v1": (CLIENT,),
    "callgate_end_v1": (CLIENT,),
    "callgate_reserve_v1": (WORKER,),
    "callgate_record_v1": (WORKER,),
    "callgate_settle_v1": (WORKER,),
    "callgate_due_v1": (WORKER,),
    "callgate_deliver_v1": (WORKER,),
    "callgate_renew_lease_v1": (WORKER,),
    "callgate_release_leases_v1": (WORKER,),
    "callgate_expire_leases_v1": (WORKER,),
    "callgate_purge_v1": (WORKER,),
}
"""Each runs with the rights of its owner."""
MAY_EXECUTE_AS_DECLARED: Mapping[str, Sequence[str]] = {
    "callgate_read_v1": (CLIENT, WORKER),
    "callgate_uuid_floor_v1": (CLIENT, WORKER),
    "callgate_make_partitions_v1": (WORKER,),
    "callgate_archive_month_v1": (WORKER,),
}
"""The first two run with their caller's rights, and show what that one may see; the others with their owner's."""

MAY_SELECT: Mapping[str, Sequence[str]] = {
    "llm_call": (CLIENT, WORKER),
    "ai_call_log": (CLIENT, WORKER),
    "submission": (CLIENT,),
    "budget": (CLIENT, DASHBOARD),
    "ai_call_log_archive": (CLIENT, DASHBOARD),
    "ai_call_log_sums": (CLIENT, DASHBOARD),
    "dead_letter": (DASHBOARD,),
}
MAY_SELECT_EXCEPT: Mapping[str, Sequence[str]] = {
    "llm_call": ("request",),
    "ai_call_log": ("reply",),
    "submission": ("link",),
    "stray_message": ("raw",),
}
"""Columns of bodies; the dashboard may read the others."""
MAY_INSERT: Mapping[str, tuple[str, Sequence[str]]] = {
    "stray_message": (WORKER, ("queue", "reason", "raw")),
}

PER_TENANT = ("llm_call", "submission", "ai_call_log", "ai_call_log_archive", "budget")
"""Tables under row-level security: a client sees rows of its organisations, worker and dashboard see all."""


def who_may(refusal: str) -> str:
    """
    Name the logins that may do what Postgres refused.

    Only a function that is refused names roles: what reads one table reads others too, and may need them all.
    """
    executors = {**MAY_EXECUTE, **MAY_EXECUTE_AS_DECLARED}
    roles = next((roles for name, roles in executors.items() if name in refusal), ())
    members = f", or a member of {' or '.join(roles)}" if roles else ""
    return f"the login that owns the tables{members}"


def grants(
    schema: str, functions: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """
    Make it so.

    Args:
        functions: Every function of callgate's in the schema.
        columns: Of every table, all of them.
    """
    yield f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {', '.join(ROLES)}"
    for function in functions:
        yield f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"
    for function, roles in MAY_EXECUTE.items():
        # Temporary tables come last, or a caller could put its own in the place of ours.
        yield f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path = {schema}, pg_temp"
        yield f"GRANT EXECUTE ON FUNCTION {function} TO {', '.join(roles)}"
    for function, roles in MAY_EXECUTE_AS_DECLARED.items():
        yield f"GRANT EXECUTE ON FUNCTION {function} TO {', '.join(roles)}"
    for relation, readers in MAY_SELECT.items():
        yield f"GRANT SELECT ON {relation} TO {', '.join(readers)}"
    for table, bodies in MAY_SELECT_EXCEPT.items():
        yield f"GRANT SELECT ({_names(set(columns[table]) - set(bodies))}) ON {table} TO {DASHBOARD}"
    for table, (role, written) in MAY_INSERT.items():
        yield f"GRANT INSERT ({_names(written)}) ON {table} TO {role}"
    for table in PER_TENANT:
        yield from _row_security(table)


def take_back(schema: str) -> Iterator[str]:
    """Undo what `grants` did, but for the functions of the client that 0002 drops."""
    for table in PER_TENANT:
        yield f"DROP POLICY own_orgs ON {table}"
        yield f"DROP POLICY all_orgs ON {table}"
        yield f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
        yield f"ALTER TABLE {table} ALTER COLUMN org_id SET STATISTICS -1"
    for relation in {*MAY_SELECT, *MAY_SELECT_EXCEPT}:
        yield f"REVOKE ALL ON {relation} FROM {', '.join(ROLES)}"
    for function in MAY_EXECUTE:
        yield f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path"
    for function in (*MAY_EXECUTE, *MAY_EXECUTE_AS_DECLARED):
        yield f"REVOKE ALL ON FUNCTION {function} FROM {', '.join(ROLES)}"
    yield f"REVOKE USAGE ON SCHEMA {schema} FROM {', '.join(ROLES)}"


def _row_security(table: str) -> Iterator[str]:
    """The owner is not held to policies; worker and dashboard are let through by one, not by a right to bypass all."""
    yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
    yield (
        f"CREATE POLICY own_orgs ON {table} FOR SELECT TO {CLIENT}"
        " USING (org_id = ANY ((SELECT callgate_tenant_orgs_v1())::text[]))"
    )
    # EXPLAIN shows anybody who may read a table what the statistics say: how many rows a competitor has, by name.
    yield f"ALTER TABLE {table} ALTER COLUMN org_id SET STATISTICS 0"
    yield f"CREATE POLICY all_orgs ON {table} FOR SELECT TO {WORKER}, {DASHBOARD} USING (true)"


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in sorted(columns))
