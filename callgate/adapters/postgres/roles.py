"""
Who may do what in the database: the one list, and the statements that make it so.

No role writes a table, and but for the dashboard none reads one: clients and workers have functions that run with their
owner's rights, and a role may or may not execute them. A function that is not listed here is nobody's but the owner's.
Logins are made by whoever runs the database, and get their rights by membership: `GRANT callgate_worker TO ...`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

CLIENT = "callgate_client"
"""Submits, reads and cancels calls of the organisations its login was granted (`callgate tenants`), no others."""
WORKER = "callgate_worker"
"""Runs calls of all organisations, and forgets what is too old; sets no budget, cancels nothing."""
DASHBOARD = "callgate_dashboard"
"""Reads everything but what callers wrote and providers answered."""
ROLES = (CLIENT, WORKER, DASHBOARD)

MAY_EXECUTE: Mapping[str, Sequence[str]] = {
    "callgate_tenant_orgs_v1": (CLIENT,),
    "callgate_submit_v1": (CLIENT,),
    "callgate_end_v1": (CLIENT,),
    "callgate_read_v1": (CLIENT, WORKER),
    "callgate_calls_v1": (CLIENT,),
    "callgate_dead_groups_v1": (CLIENT,),
    "callgate_link_failures_v1": (CLIENT,),
    "callgate_costs_v1": (CLIENT, DASHBOARD),
    "callgate_budgets_v1": (CLIENT, DASHBOARD),
    "callgate_audit_v1": (DASHBOARD,),
    "callgate_breakers_v1": (DASHBOARD,),
    "callgate_unknown_v1": (DASHBOARD,),
    "callgate_unknown_days_v1": (DASHBOARD,),
    "callgate_reserve_v1": (WORKER,),
    "callgate_record_v1": (WORKER,),
    "callgate_settle_v1": (WORKER,),
    "callgate_due_v1": (WORKER,),
    "callgate_links_v1": (WORKER,),
    "callgate_deliver_v1": (WORKER,),
    "callgate_renew_lease_v1": (WORKER,),
    "callgate_release_leases_v1": (WORKER,),
    "callgate_expire_leases_v1": (WORKER,),
    "callgate_end_lock_hoarders_v1": (WORKER,),
    "callgate_purge_v1": (WORKER,),
    "callgate_forget_breakers_v1": (WORKER,),
    "callgate_make_partitions_v1": (WORKER,),
    "callgate_archive_month_v1": (WORKER,),
}
"""Each runs with the rights of its owner, and itself asks which organisations a client's login acts for."""

MAY_SELECT: Mapping[str, Sequence[str]] = {
    "budget": (DASHBOARD,),
    "breaker": (DASHBOARD,),
    "operator_action": (DASHBOARD,),
    "ai_call_log_archive": (DASHBOARD,),
    "ai_call_log_sums": (DASHBOARD,),
    "dead_letter": (DASHBOARD,),
}
VIEWS = frozenset({"ai_call_log_sums", "dead_letter"})
MAY_SELECT_EXCEPT: Mapping[str, Sequence[str]] = {
    "llm_call": ("request",),
    "ai_call_log": ("reply",),
    "submission": ("link",),
    "unprocessable_message": ("raw",),
}
"""Columns of bodies; the dashboard may read the others."""
MAY_INSERT: Mapping[str, tuple[str, Sequence[str]]] = {
    "unprocessable_message": (WORKER, ("queue", "reason", "raw")),
}


def who_may(refusal: str) -> str:
    """
    Name the logins that may do what Postgres refused.

    Only a function that is refused names roles: what reads one table reads others too, and may need them all.
    """
    roles = next((roles for name, roles in MAY_EXECUTE.items() if name in refusal), ())
    members = f", or a member of {' or '.join(roles)}" if roles else ""
    return f"the login that owns the tables{members}"


def grants(
    schema: str, functions: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """
    Make it so; granting again is harmless. A migration grants what there is at its time.

    Args:
        functions: Every function of callgate's in the schema, with its arguments.
        columns: Of every table, all of them; partitions are tables.
    """
    yield f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {', '.join(ROLES)}"
    # Postgres plans before it asks whether somebody may read, and logs the plan, estimates and all, to whoever sets
    # debug_print_plan. A table without a policy for them is planned as empty.
    for table in columns:
        yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
    for function in functions:
        yield f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC"
    for function, roles in _executable(functions).items():
        # Temporary tables come last, or a caller could put its own in the place of ours. And the plans that are made
        # inside are not logged to the caller.
        yield (
            f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path = {schema}, pg_temp"
            " SET client_min_messages = notice"
        )
        yield f"GRANT EXECUTE ON FUNCTION {function} TO {', '.join(roles)}"
    for relation in _readable(columns):
        readers = MAY_SELECT[relation]
        yield f"GRANT SELECT ON {relation} TO {', '.join(readers)}"
    for table, bodies in MAY_SELECT_EXCEPT.items():
        yield f"GRANT SELECT ({_names(set(columns[table]) - set(bodies))}) ON {table} TO {DASHBOARD}"
    for table in _read_tables(columns):
        yield f"DROP POLICY IF EXISTS all_orgs ON {table}"
        yield f"CREATE POLICY all_orgs ON {table} FOR SELECT TO {DASHBOARD} USING (true)"
    for table, (role, written) in MAY_INSERT.items():
        yield f"GRANT INSERT ({_names(written)}) ON {table} TO {role}"
        yield f"DROP POLICY IF EXISTS any_row ON {table}"
        yield f"CREATE POLICY any_row ON {table} FOR INSERT TO {role} WITH CHECK (true)"


def take_back(
    schema: str, functions: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Undo what `grants` did, but for the functions of the client that 0002 drops."""
    for table in _read_tables(columns):
        yield f"DROP POLICY all_orgs ON {table}"
    for table in MAY_INSERT:
        yield f"DROP POLICY any_row ON {table}"
    for table in columns:
        yield f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
    for relation in {*_readable(columns), *MAY_SELECT_EXCEPT}:
        yield f"REVOKE ALL ON {relation} FROM {', '.join(ROLES)}"
    for function in _executable(functions):
        yield f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path RESET client_min_messages"
        yield f"REVOKE ALL ON FUNCTION {function} FROM {', '.join(ROLES)}"
    yield f"REVOKE USAGE ON SCHEMA {schema} FROM {', '.join(ROLES)}"


def _executable(functions: Sequence[str]) -> dict[str, Sequence[str]]:
    """The functions of `MAY_EXECUTE` that there are."""
    names = {function.partition("(")[0].rpartition(".")[2] for function in functions}
    return {name: roles for name, roles in MAY_EXECUTE.items() if name in names}


def _readable(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The relations of `MAY_SELECT` that there are."""
    return [name for name in MAY_SELECT if name in columns or name in VIEWS]


def _read_tables(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Tables, and no views: those show what the tables would."""
    return sorted({*MAY_SELECT, *MAY_SELECT_EXCEPT} & set(columns))


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{column}"' for column in sorted(columns))
