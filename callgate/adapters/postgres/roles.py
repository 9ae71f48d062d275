"""
The roles of the database, and what each may do. The migrations grant it; tests compare the database with these lists.

Clients and workers read and write no table (workers insert unprocessable messages). They execute functions, which run
with the rights of their owner. Only the owner may execute a function that is not listed here. An administrator creates
the logins, and gives them rights by membership: `GRANT callgate_worker TO ...`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CLIENT = "callgate_client"
"""Submits, reads and cancels calls of the organisations that its login was granted (`callgate tenants`)."""
WORKER = "callgate_worker"
"""Runs calls of all organisations and deletes what is too old. Sets no budget and cancels nothing."""
DASHBOARD = "callgate_dashboard"
"""Reads everything but bodies: what callers wrote and what providers answered."""
ROLES = (CLIENT, WORKER, DASHBOARD)

MAY_EXECUTE: Mapping[str, Sequence[str]] = {
    "callgate_tenant_orgs_v1": (CLIENT,),
    "callgate_submit_v2": (CLIENT,),
    "callgate_end_v1": (CLIENT,),
    "callgate_read_v2": (CLIENT, WORKER),
    "callgate_calls_v1": (CLIENT,),
    "callgate_dead_groups_v1": (CLIENT,),
    "callgate_link_failures_v1": (CLIENT,),
    "callgate_costs_v1": (CLIENT, DASHBOARD),
    "callgate_budgets_v1": (CLIENT, DASHBOARD),
    "callgate_spending_v1": (CLIENT,),
    "callgate_audit_v1": (DASHBOARD,),
    "callgate_breakers_v1": (DASHBOARD,),
    "callgate_unknown_v1": (DASHBOARD,),
    "callgate_unknown_days_v1": (DASHBOARD,),
    "callgate_reserve_v2": (WORKER,),
    "callgate_publish_limits_v1": (WORKER,),
    "callgate_learn_limits_v1": (WORKER,),
    "callgate_limits_v1": (DASHBOARD,),
    "callgate_concurrency_v1": (DASHBOARD,),
    "callgate_pauses_v1": (DASHBOARD,),
    "callgate_limit_publishers_v1": (DASHBOARD,),
    "callgate_record_v1": (WORKER,),
    "callgate_settle_v2": (WORKER,),
    "callgate_take_due_v2": (WORKER,),
    "callgate_take_lost_messages_v2": (WORKER,),
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
    # Of clients and workers of 0.1.0.
    "callgate_submit_v1": (CLIENT,),
    "callgate_read_v1": (CLIENT, WORKER),
    "callgate_take_due_v1": (WORKER,),
    "callgate_take_lost_messages_v1": (WORKER,),
    "callgate_reserve_v1": (WORKER,),
    "callgate_settle_v1": (WORKER,),
}
"""Each runs with the rights of its owner, and checks by itself which organisations a client's login acts for."""

MAY_SELECT: Mapping[str, Sequence[str]] = {
    "budget": (DASHBOARD,),
    "breaker": (DASHBOARD,),
    "operator_action": (DASHBOARD,),
    "ai_call_log_archive": (DASHBOARD,),
    "ai_call_log_sums": (DASHBOARD,),
    "dead_letter": (DASHBOARD,),
    "flow_catalogue": (DASHBOARD,),
    "flow_rule": (DASHBOARD,),
    "flow_limit": (DASHBOARD,),
    "flow_note": (DASHBOARD,),
    "flow_share": (DASHBOARD,),
    "flow_open": (DASHBOARD,),
    "flow_concurrency": (DASHBOARD,),
    "flow_org": (DASHBOARD,),
    "pause": (DASHBOARD,),
}
VIEWS = frozenset({"ai_call_log_sums", "dead_letter"})
MAY_SELECT_EXCEPT: Mapping[str, Sequence[str]] = {
    "llm_call": ("request",),
    "ai_call_log": ("reply",),
    "submission": ("link",),
    "unprocessable_message": ("raw",),
}
"""The columns of bodies. The dashboard may read the others."""
MAY_INSERT: Mapping[str, tuple[str, Sequence[str]]] = {
    "unprocessable_message": (WORKER, ("queue", "reason", "raw")),
}


def who_may(refusal: str) -> str:
    """
    Name the logins that may do what Postgres refused.

    Roles are named only for a function. A statement that reads one table reads others too, and may need all of them.
    """
    roles = next((roles for name, roles in MAY_EXECUTE.items() if name in refusal), ())
    members = f", or a member of {' or '.join(roles)}" if roles else ""
    return f"the login that owns the tables{members}"
