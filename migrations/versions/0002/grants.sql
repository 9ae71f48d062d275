-- Who may do what with what is new; see grants.sql of 0001.
GRANT USAGE ON SCHEMA {schema} TO callgate_operator, callgate_body_reader;

DO $$
DECLARE
    t regclass;
BEGIN
    FOREACH t IN ARRAY ARRAY['flow_catalogue', 'flow_rule', 'flow_limit', 'flow_note', 'flow_share', 'flow_open',
                              'flow_concurrency', 'flow_org', 'pause', 'ledger_figures', 'attempt_delta', 'quarter_sum',
                              'day_sum', 'budget_sum', 'sum_seal', 'sum_gap', 'dropped_month', 'alert',
                              'alert_delivery', 'alert_watch', 'redrive', 'redrive_call']::regclass[]
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('GRANT SELECT ON %s TO callgate_dashboard', t);
        EXECUTE format('CREATE POLICY all_orgs ON %s FOR SELECT TO callgate_dashboard USING (true)', t);
    END LOOP;
END $$;

DO $$
DECLARE
    f regprocedure;
    executable record;
BEGIN
    FOR f IN
        SELECT p.oid::regprocedure FROM pg_proc p
         WHERE p.pronamespace = '{schema}'::regnamespace AND p.proname = ANY (ARRAY[
            -- new functions
            'callgate_affected_v1', 'callgate_ahead_max_v1', 'callgate_ahead_v1', 'callgate_alerts_v1',
            'callgate_attempts_of_call_v1', 'callgate_audit_bounds_v1', 'callgate_audit_budgets_v1',
            'callgate_audit_calls_v1', 'callgate_audit_sums_v1', 'callgate_block_key_v1',
            'callgate_breaker_after_v2', 'callgate_breakers_v2', 'callgate_budget_alerts_v1',
            'callgate_budget_names_v1', 'callgate_budget_periods_v1', 'callgate_budget_states_v1',
            'callgate_call_cost_v1', 'callgate_call_ids_v1', 'callgate_calls_v2', 'callgate_cancel_v1',
            'callgate_cause_v1', 'callgate_change_budget_v1', 'callgate_change_redrive_v1',
            'callgate_check_limits_v1', 'callgate_collapsed_v1', 'callgate_compare_sums_v1',
            'callgate_concurrency_max_v1', 'callgate_concurrency_refusal_v1', 'callgate_concurrency_v1',
            'callgate_correct_sums_v1', 'callgate_cost_series_v1', 'callgate_costs_v2',
            'callgate_current_figures_v1', 'callgate_discard_v1', 'callgate_end_groups_v1',
            'callgate_end_names_v1', 'callgate_end_savings_v1', 'callgate_ended_before_v1',
            'callgate_ended_calls_v1', 'callgate_ended_v1', 'callgate_expire_leases_v2',
            'callgate_expired_leases_v1', 'callgate_faded_share_v1', 'callgate_fails_often_v1',
            'callgate_figures_of_attempts_v1', 'callgate_figures_of_budgets_v1',
            'callgate_figures_of_calls_v1', 'callgate_figures_of_keys_v1', 'callgate_fill_sums_v1',
            'callgate_first_ended_v1', 'callgate_first_queued_v1', 'callgate_flow_headroom_v1',
            'callgate_fold_sums_v1', 'callgate_forget_alerts_v1', 'callgate_forget_redrives_v1',
            'callgate_free_concurrency_waiters_v1', 'callgate_free_paused_v1', 'callgate_fullest_budgets_v1',
            'callgate_gives_way_v1', 'callgate_has_freed_slot_v1', 'callgate_has_rivals_v1',
            'callgate_has_waiters_v1', 'callgate_in_flight_max_v1', 'callgate_in_flight_v1',
            'callgate_in_line_v1', 'callgate_is_congested_v1', 'callgate_is_held_back_v1',
            'callgate_is_raised_v1', 'callgate_keep_alert_outcomes_v1', 'callgate_keep_limits_v1',
            'callgate_keep_sums_v1', 'callgate_lane_again_v1', 'callgate_lane_v1', 'callgate_learn_limits_v1',
            'callgate_like_v1', 'callgate_limit_applies_v1', 'callgate_limit_at_v1',
            'callgate_limit_capacity_v1', 'callgate_limit_name_v1', 'callgate_limit_need_v1',
            'callgate_limit_publishers_v1', 'callgate_limit_refill_v1', 'callgate_limit_wait_v1',
            'callgate_limits_of_v1', 'callgate_limits_v1', 'callgate_lines_v1', 'callgate_lock_attempts_v1',
            'callgate_lock_limits_v1', 'callgate_lock_newest_v1', 'callgate_lock_orgs_v1',
            'callgate_look_for_alerts_v1', 'callgate_money_waiters_v1', 'callgate_note_collapsed_v1',
            'callgate_note_health_v2', 'callgate_note_posting_v1', 'callgate_note_redrive_v1',
            'callgate_note_shares_v1', 'callgate_note_used_v1', 'callgate_note_v1',
            'callgate_observe_limit_v1', 'callgate_open_calls_v1', 'callgate_open_lines_v1',
            'callgate_org_work_v1', 'callgate_overview_v1', 'callgate_pause_name_v1', 'callgate_pause_of_v1',
            'callgate_pause_v1', 'callgate_paused_types_v1', 'callgate_pauses_v1', 'callgate_plan_redrive_v1',
            'callgate_posted_v1', 'callgate_price_redrive_v1', 'callgate_prove_sums_v1',
            'callgate_provider_health_v1', 'callgate_provider_refusal_v1', 'callgate_publish_fingerprint_v1',
            'callgate_publish_limits_v1', 'callgate_quarantined_v1', 'callgate_quarter_v1',
            'callgate_queued_v1', 'callgate_raise_alert_v1', 'callgate_raise_call_v1',
            'callgate_read_figures_v1', 'callgate_read_v2', 'callgate_recent_ends_v1',
            'callgate_redrive_room_v1', 'callgate_refuse_claim_v2', 'callgate_refuse_frozen_v1',
            'callgate_refusing_limit_v1', 'callgate_release_backlog_v1', 'callgate_release_redrive_v1',
            'callgate_released_v1', 'callgate_remove_budget_v1', 'callgate_renew_lease_v2',
            'callgate_replay_alerts_v1', 'callgate_reserve_v2', 'callgate_resume_v1',
            'callgate_retry_links_v1', 'callgate_rule_makes_v1', 'callgate_running_v1', 'callgate_schema_v1',
            'callgate_set_breaker_v2', 'callgate_settle_v2', 'callgate_show_body_v1',
            'callgate_slot_share_v1', 'callgate_slots_v1', 'callgate_spending_v1',
            'callgate_spent_by_quarter_v1', 'callgate_spent_drift_v1', 'callgate_start_attempt_v2',
            'callgate_start_redrive_v1', 'callgate_state_alerts_v1', 'callgate_store_submissions_v1',
            'callgate_submissions_of_call_v1', 'callgate_submit_v2', 'callgate_sum_days_v1',
            'callgate_sum_orgs_v1', 'callgate_take_alerts_v1', 'callgate_take_due_v2',
            'callgate_take_limit_v1', 'callgate_take_lost_messages_v2', 'callgate_take_redrive_v1',
            'callgate_take_sums_v1', 'callgate_test_alert_v1', 'callgate_undelivered_links_v1',
            'callgate_unknown_page_v1', 'callgate_unknown_sums_v1', 'callgate_unprocessable_v1',
            'callgate_views_v1', 'callgate_wait_for_key_v1', 'callgate_walk_v1', 'callgate_watch_redrive_v1',
            'callgate_worker_lines_v1', 'callgate_workers_differ_v1', 'callgate_workers_v1'
         ])
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    FOR executable IN SELECT * FROM (VALUES
        ('callgate_submit_v2', 'callgate_client'),
        ('callgate_read_v2', 'callgate_client, callgate_worker'),
        ('callgate_spending_v1', 'callgate_client'),
        ('callgate_take_due_v2', 'callgate_worker'),
        ('callgate_take_lost_messages_v2', 'callgate_worker'),
        ('callgate_reserve_v2', 'callgate_worker'),
        ('callgate_settle_v2', 'callgate_worker'),
        ('callgate_publish_limits_v1', 'callgate_worker'),
        ('callgate_renew_lease_v2', 'callgate_worker'),
        ('callgate_learn_limits_v1', 'callgate_worker'),
        ('callgate_schema_v1', 'callgate_client, callgate_worker, callgate_dashboard, callgate_operator,'
                               'callgate_body_reader'),
        ('callgate_publish_fingerprint_v1', 'callgate_worker'),
        ('callgate_workers_v1', 'callgate_worker, callgate_dashboard'),
        ('callgate_breakers_v2', 'callgate_dashboard'),
        ('callgate_limits_v1', 'callgate_dashboard'),
        ('callgate_concurrency_v1', 'callgate_dashboard'),
        ('callgate_ahead_v1', 'callgate_dashboard'),
        ('callgate_pauses_v1', 'callgate_dashboard'),
        ('callgate_limit_publishers_v1', 'callgate_dashboard'),
        ('callgate_read_figures_v1', 'callgate_worker, callgate_dashboard'),
        ('callgate_costs_v2', 'callgate_client, callgate_dashboard'),
        ('callgate_calls_v2', 'callgate_client, callgate_dashboard'),
        ('callgate_call_ids_v1', 'callgate_client, callgate_dashboard'),
        ('callgate_views_v1', 'callgate_client, callgate_dashboard'),
        ('callgate_attempts_of_call_v1', 'callgate_client, callgate_dashboard'),
        ('callgate_submissions_of_call_v1', 'callgate_client, callgate_dashboard'),
        ('callgate_cancel_v1', 'callgate_operator'),
        ('callgate_show_body_v1', 'callgate_body_reader'),
        ('callgate_link_failures_v1', 'callgate_dashboard'),
        ('callgate_audit_bounds_v1', 'callgate_dashboard'),
        ('callgate_audit_budgets_v1', 'callgate_dashboard'),
        ('callgate_audit_calls_v1', 'callgate_dashboard'),
        ('callgate_audit_sums_v1', 'callgate_dashboard'),
        ('callgate_sum_days_v1', 'callgate_dashboard, callgate_worker'),
        ('callgate_prove_sums_v1', 'callgate_dashboard, callgate_worker'),
        ('callgate_fold_sums_v1', 'callgate_worker'),
        ('callgate_fill_sums_v1', 'callgate_worker'),
        ('callgate_current_figures_v1', 'callgate_worker, callgate_dashboard'),
        ('callgate_expired_leases_v1', 'callgate_worker, callgate_dashboard'),
        ('callgate_recent_ends_v1', 'callgate_worker, callgate_dashboard'),
        ('callgate_expire_leases_v2', 'callgate_worker'),
        ('callgate_look_for_alerts_v1', 'callgate_worker'),
        ('callgate_take_alerts_v1', 'callgate_worker'),
        ('callgate_keep_alert_outcomes_v1', 'callgate_worker'),
        ('callgate_forget_alerts_v1', 'callgate_worker'),
        ('callgate_end_groups_v1', 'callgate_dashboard'),
        ('callgate_ended_calls_v1', 'callgate_dashboard'),
        ('callgate_undelivered_links_v1', 'callgate_dashboard'),
        ('callgate_unprocessable_v1', 'callgate_dashboard'),
        ('callgate_cost_series_v1', 'callgate_dashboard'),
        ('callgate_worker_lines_v1', 'callgate_dashboard'),
        ('callgate_open_lines_v1', 'callgate_dashboard'),
        ('callgate_quarantined_v1', 'callgate_dashboard'),
        ('callgate_alerts_v1', 'callgate_dashboard'),
        ('callgate_take_redrive_v1', 'callgate_worker'),
        ('callgate_price_redrive_v1', 'callgate_worker'),
        ('callgate_release_redrive_v1', 'callgate_worker'),
        ('callgate_forget_redrives_v1', 'callgate_worker'),
        ('callgate_set_breaker_v2', 'callgate_operator'),
        ('callgate_change_budget_v1', 'callgate_operator'),
        ('callgate_remove_budget_v1', 'callgate_operator'),
        ('callgate_note_v1', 'callgate_operator'),
        ('callgate_overview_v1', 'callgate_dashboard'),
        ('callgate_provider_health_v1', 'callgate_dashboard'),
        ('callgate_pause_v1', 'callgate_operator'),
        ('callgate_resume_v1', 'callgate_operator'),
        ('callgate_settle_unknown_v1', 'callgate_operator'),
        ('callgate_replay_alerts_v1', 'callgate_operator'),
        ('callgate_test_alert_v1', 'callgate_operator'),
        ('callgate_plan_redrive_v1', 'callgate_operator'),
        ('callgate_start_redrive_v1', 'callgate_operator'),
        ('callgate_change_redrive_v1', 'callgate_operator'),
        ('callgate_discard_v1', 'callgate_operator'),
        ('callgate_retry_links_v1', 'callgate_operator'),
        ('callgate_budget_names_v1', 'callgate_dashboard'),
        ('callgate_fullest_budgets_v1', 'callgate_dashboard'),
        ('callgate_budget_states_v1', 'callgate_dashboard'),
        ('callgate_budget_periods_v1', 'callgate_dashboard'),
        ('callgate_spent_by_quarter_v1', 'callgate_dashboard'),
        ('callgate_money_waiters_v1', 'callgate_dashboard'),
        ('callgate_affected_v1', 'callgate_dashboard'),
        ('callgate_unknown_page_v1', 'callgate_dashboard'),
        ('callgate_unknown_sums_v1', 'callgate_dashboard')
    ) AS e(name, roles)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', executable.name, executable.roles);
    END LOOP;
END $$;

GRANT SELECT (output_token_bound, priority, rank_at, start_before, lane, is_in_line, traceparent) ON llm_call TO callgate_dashboard;
GRANT SELECT (limit_ids, output_token_bound, health, cache_write_1h_tokens) ON ai_call_log TO callgate_dashboard;
GRANT SELECT ON ai_call_log_sums, call_without_bodies TO callgate_dashboard;
