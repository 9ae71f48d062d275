-- Who may do what with what is new; see grants.sql of 0001.

DO $$
DECLARE
    t regclass;
BEGIN
    FOREACH t IN ARRAY ARRAY['flow_catalogue', 'flow_rule', 'flow_limit', 'flow_note', 'flow_share', 'flow_open',
                              'flow_concurrency', 'flow_org', 'pause']::regclass[]
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
            'callgate_breaker_after_v2', 'callgate_check_limits_v1', 'callgate_close_key_v1',
            'callgate_concurrency_max_v1', 'callgate_concurrency_refusal_v1', 'callgate_concurrency_v1',
            'callgate_faded_share_v1', 'callgate_fails_often_v1', 'callgate_flow_headroom_v1',
            'callgate_free_concurrency_waiters_v1', 'callgate_free_paused_v1', 'callgate_has_freed_slot_v1',
            'callgate_has_waiters_v1', 'callgate_in_flight_max_v1', 'callgate_in_flight_v1',
            'callgate_in_line_v1', 'callgate_is_congested_v1', 'callgate_is_raised_v1',
            'callgate_keep_limits_v1', 'callgate_lane_again_v1', 'callgate_lane_v1',
            'callgate_learn_limits_v1', 'callgate_like_v1', 'callgate_limit_applies_v1',
            'callgate_limit_at_v1', 'callgate_limit_capacity_v1', 'callgate_limit_name_v1',
            'callgate_limit_need_v1', 'callgate_limit_publishers_v1', 'callgate_limit_refill_v1',
            'callgate_limit_wait_v1', 'callgate_limits_of_v1', 'callgate_limits_v1', 'callgate_lines_v1',
            'callgate_lock_attempts_v1', 'callgate_lock_limits_v1', 'callgate_lock_newest_v1',
            'callgate_lock_orgs_v1', 'callgate_note_health_v2', 'callgate_note_shares_v1',
            'callgate_note_used_v1', 'callgate_observe_limit_v1', 'callgate_open_calls_v1',
            'callgate_pause_name_v1', 'callgate_pause_of_v1', 'callgate_pause_v1', 'callgate_paused_types_v1',
            'callgate_pauses_v1', 'callgate_provider_refusal_v1', 'callgate_publish_limits_v1',
            'callgate_queued_v1', 'callgate_raise_call_v1', 'callgate_read_v2', 'callgate_refuse_claim_v2',
            'callgate_refuse_frozen_v1', 'callgate_refusing_limit_v1', 'callgate_release_backlog_v1',
            'callgate_reserve_v2', 'callgate_resume_v1', 'callgate_rule_makes_v1', 'callgate_running_v1',
            'callgate_settle_v2', 'callgate_spending_v1', 'callgate_start_attempt_v2', 'callgate_submit_v2',
            'callgate_take_due_v2', 'callgate_take_limit_v1', 'callgate_take_lost_messages_v2',
            'callgate_wait_for_key_v1'
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
        ('callgate_learn_limits_v1', 'callgate_worker'),
        ('callgate_limits_v1', 'callgate_dashboard'),
        ('callgate_concurrency_v1', 'callgate_dashboard'),
        ('callgate_pauses_v1', 'callgate_dashboard'),
        ('callgate_limit_publishers_v1', 'callgate_dashboard')
    ) AS e(name, roles)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', executable.name, executable.roles);
    END LOOP;
END $$;

GRANT SELECT (output_token_bound, priority, turn_at, start_before, lane, is_in_line) ON llm_call TO callgate_dashboard;
GRANT SELECT (limit_ids, output_token_bound, health, cache_write_1h_tokens) ON ai_call_log TO callgate_dashboard;
