"""
The roles of the database, and what each may do. The migrations grant it; tests compare the database with these lists.

Clients, workers and operators read and write no table (workers insert unprocessable messages). They execute functions,
which run with the rights of their owner. Only the owner may execute a function that is not listed here. An
administrator creates the logins, and gives them rights by membership: `GRANT callgate_worker TO ...`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CLIENT = "callgate_client"
"""Submits, reads and cancels calls of the organisations that its login was granted (`callgate tenants`)."""
WORKER = "callgate_worker"
"""Runs calls of all organisations and deletes what is too old. Sets no budget and cancels nothing."""
DASHBOARD = "callgate_dashboard"
"""Reads everything but bodies: what callers wrote and what providers answered."""
OPERATOR = "callgate_operator"
"""Changes what operators change, for a reason that the action log keeps. Its logins are the dashboard's as well."""
BODY_READER = "callgate_body_reader"
"""Reads the bodies of one call at a time; the action log keeps who and why. Its logins are the dashboard's as well."""
ROLES = (CLIENT, WORKER, DASHBOARD, OPERATOR, BODY_READER)

MAY_EXECUTE: Mapping[str, Sequence[str]] = {
    "callgate_tenant_orgs_v1": (CLIENT,),
    "callgate_submit_v2": (CLIENT,),
    "callgate_end_v1": (CLIENT,),
    "callgate_read_v2": (CLIENT, WORKER),
    "callgate_calls_v2": (CLIENT, DASHBOARD),
    "callgate_call_ids_v1": (CLIENT, DASHBOARD),
    "callgate_views_v1": (CLIENT, DASHBOARD),
    "callgate_attempts_of_call_v1": (CLIENT, DASHBOARD),
    "callgate_submissions_of_call_v1": (CLIENT, DASHBOARD),
    "callgate_dead_groups_v1": (CLIENT,),
    "callgate_link_failures_v1": (CLIENT, DASHBOARD),
    "callgate_costs_v2": (CLIENT, DASHBOARD),
    "callgate_budgets_v1": (CLIENT, DASHBOARD),
    "callgate_spending_v1": (CLIENT,),
    "callgate_audit_bounds_v1": (DASHBOARD,),
    "callgate_audit_budgets_v1": (DASHBOARD,),
    "callgate_audit_calls_v1": (DASHBOARD,),
    "callgate_audit_sums_v1": (DASHBOARD,),
    "callgate_sum_days_v1": (DASHBOARD, WORKER),
    "callgate_prove_sums_v1": (DASHBOARD, WORKER),
    "callgate_breakers_v2": (DASHBOARD,),
    "callgate_unknown_v1": (DASHBOARD,),
    "callgate_unknown_days_v1": (DASHBOARD,),
    "callgate_budget_names_v1": (DASHBOARD,),
    "callgate_fullest_budgets_v1": (DASHBOARD,),
    "callgate_budget_states_v1": (DASHBOARD,),
    "callgate_budget_periods_v1": (DASHBOARD,),
    "callgate_spent_by_quarter_v1": (DASHBOARD,),
    "callgate_money_waiters_v1": (DASHBOARD,),
    "callgate_affected_v1": (DASHBOARD,),
    "callgate_unknown_page_v1": (DASHBOARD,),
    "callgate_unknown_sums_v1": (DASHBOARD,),
    "callgate_overview_v1": (DASHBOARD,),
    "callgate_provider_health_v1": (DASHBOARD,),
    "callgate_reserve_v2": (WORKER,),
    "callgate_publish_limits_v1": (WORKER,),
    "callgate_learn_limits_v1": (WORKER,),
    "callgate_schema_v1": ROLES,
    "callgate_publish_fingerprint_v1": (WORKER,),
    "callgate_workers_v1": (WORKER, DASHBOARD),
    "callgate_expired_leases_v1": (WORKER, DASHBOARD),
    "callgate_current_figures_v1": (WORKER, DASHBOARD),
    "callgate_recent_ends_v1": (WORKER, DASHBOARD),
    "callgate_limits_v1": (DASHBOARD,),
    "callgate_concurrency_v1": (DASHBOARD,),
    "callgate_ahead_v1": (DASHBOARD,),
    "callgate_pauses_v1": (DASHBOARD,),
    "callgate_limit_publishers_v1": (DASHBOARD,),
    "callgate_read_figures_v1": (WORKER, DASHBOARD),
    "callgate_record_v1": (WORKER,),
    "callgate_settle_v2": (WORKER,),
    "callgate_take_due_v2": (WORKER,),
    "callgate_take_lost_messages_v2": (WORKER,),
    "callgate_links_v1": (WORKER,),
    "callgate_deliver_v1": (WORKER,),
    "callgate_renew_lease_v2": (WORKER,),
    "callgate_release_leases_v1": (WORKER,),
    "callgate_expire_leases_v2": (WORKER,),
    "callgate_look_for_alerts_v1": (WORKER,),
    "callgate_take_alerts_v1": (WORKER,),
    "callgate_keep_alert_outcomes_v1": (WORKER,),
    "callgate_forget_alerts_v1": (WORKER,),
    "callgate_alerts_v1": (DASHBOARD,),
    "callgate_take_redrive_v1": (WORKER,),
    "callgate_price_redrive_v1": (WORKER,),
    "callgate_release_redrive_v1": (WORKER,),
    "callgate_forget_redrives_v1": (WORKER,),
    "callgate_end_groups_v1": (DASHBOARD,),
    "callgate_ended_calls_v1": (DASHBOARD,),
    "callgate_undelivered_links_v1": (DASHBOARD,),
    "callgate_unprocessable_v1": (DASHBOARD,),
    "callgate_cost_series_v1": (DASHBOARD,),
    "callgate_worker_lines_v1": (DASHBOARD,),
    "callgate_open_lines_v1": (DASHBOARD,),
    "callgate_quarantined_v1": (DASHBOARD,),
    "callgate_end_lock_hoarders_v1": (WORKER,),
    "callgate_purge_v1": (WORKER,),
    "callgate_forget_breakers_v1": (WORKER,),
    "callgate_make_partitions_v1": (WORKER,),
    "callgate_archive_month_v1": (WORKER,),
    "callgate_fold_sums_v1": (WORKER,),
    "callgate_fill_sums_v1": (WORKER,),
    "callgate_cancel_v1": (OPERATOR,),
    "callgate_show_body_v1": (BODY_READER,),
    "callgate_set_breaker_v2": (OPERATOR,),
    "callgate_change_budget_v1": (OPERATOR,),
    "callgate_remove_budget_v1": (OPERATOR,),
    "callgate_note_v1": (OPERATOR,),
    "callgate_pause_v1": (OPERATOR,),
    "callgate_resume_v1": (OPERATOR,),
    "callgate_settle_unknown_v1": (OPERATOR,),
    "callgate_replay_alerts_v1": (OPERATOR,),
    "callgate_test_alert_v1": (OPERATOR,),
    "callgate_plan_redrive_v1": (OPERATOR,),
    "callgate_start_redrive_v1": (OPERATOR,),
    "callgate_change_redrive_v1": (OPERATOR,),
    "callgate_discard_v1": (OPERATOR,),
    "callgate_retry_links_v1": (OPERATOR,),
    # Of clients and workers of 0.1.0.
    "callgate_submit_v1": (CLIENT,),
    "callgate_read_v1": (CLIENT, WORKER),
    "callgate_calls_v1": (CLIENT,),
    "callgate_costs_v1": (CLIENT, DASHBOARD),
    "callgate_audit_v1": (DASHBOARD,),
    "callgate_breakers_v1": (DASHBOARD,),
    "callgate_take_due_v1": (WORKER,),
    "callgate_take_lost_messages_v1": (WORKER,),
    "callgate_reserve_v1": (WORKER,),
    "callgate_renew_lease_v1": (WORKER,),
    "callgate_expire_leases_v1": (WORKER,),
    "callgate_settle_v1": (WORKER,),
}
"""
Each runs with the rights of its owner, and checks by itself which organisations a client's login acts for. Each of an
operator takes who changes it and why, and writes a row of `operator_action`.
"""

MAY_SELECT: Mapping[str, Sequence[str]] = {
    "budget": (DASHBOARD,),
    "breaker": (DASHBOARD,),
    "operator_action": (DASHBOARD,),
    "attempt_delta": (DASHBOARD,),
    "quarter_sum": (DASHBOARD,),
    "day_sum": (DASHBOARD,),
    "budget_sum": (DASHBOARD,),
    "sum_seal": (DASHBOARD,),
    "sum_gap": (DASHBOARD,),
    "dropped_month": (DASHBOARD,),
    "ai_call_log_sums": (DASHBOARD,),
    "dead_letter": (DASHBOARD,),
    "call_without_bodies": (DASHBOARD,),
    "flow_catalogue": (DASHBOARD,),
    "flow_rule": (DASHBOARD,),
    "flow_limit": (DASHBOARD,),
    "flow_note": (DASHBOARD,),
    "flow_share": (DASHBOARD,),
    "flow_open": (DASHBOARD,),
    "flow_concurrency": (DASHBOARD,),
    "flow_org": (DASHBOARD,),
    "pause": (DASHBOARD,),
    "ledger_figures": (DASHBOARD,),
    "alert": (DASHBOARD,),
    "alert_delivery": (DASHBOARD,),
    "alert_watch": (DASHBOARD,),
    "redrive": (DASHBOARD,),
    "redrive_call": (DASHBOARD,),
}
VIEWS = frozenset({"ai_call_log_sums", "call_without_bodies", "dead_letter"})
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
