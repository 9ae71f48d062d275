-- Drop what 0002 created.

UPDATE llm_call SET wait_reason = 'retry', breaker_id = NULL, wait_until = NULL, due_at = now()
 WHERE wait_reason IN ('rate_limited', 'backlog', 'paused', 'concurrency_limited');
UPDATE ai_call_log SET kind = 'call' WHERE kind IN ('first', 'retry', 'repair');
UPDATE breaker SET is_open = false, reason = NULL, probe_at = NULL, trial_ids = '{}' WHERE reason = 'rate_limited';

DO $$
DECLARE
    f regprocedure;
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
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END $$;

DROP INDEX ix_llm_call_paused;
COMMENT ON COLUMN llm_call.wait_until IS 'until when it may wait for its provider';
DROP INDEX ix_llm_call_breaker;
DROP INDEX ix_llm_call_backlog;
DROP INDEX ix_llm_call_open_org;
DROP INDEX ix_llm_call_in_line;
DROP INDEX ix_llm_call_woken;
CREATE INDEX ix_llm_call_breaker ON llm_call (breaker_id, org_id, attempt, created_at) WHERE breaker_id IS NOT NULL;
ALTER TABLE llm_call DROP COLUMN output_token_bound, DROP COLUMN priority, DROP COLUMN turn_at, DROP COLUMN start_before, DROP COLUMN lane, DROP COLUMN is_in_line,
    DROP CONSTRAINT ck_llm_call_wait_reason,
    ADD CONSTRAINT ck_llm_call_wait_reason CHECK (wait_reason IN ('retry', 'budget_held', 'budget_exhausted', 'provider',
        'quarantine', 'memory', 'locked'));
DROP INDEX ix_ai_call_log_in_flight;
ALTER TABLE ai_call_log DROP COLUMN limit_ids, DROP COLUMN output_token_bound, DROP COLUMN health,
    DROP COLUMN cache_write_1h_tokens,
    DROP CONSTRAINT ck_ai_call_log_kind,
    ADD CONSTRAINT ck_ai_call_log_kind CHECK (kind IN ('call', 'probe'));
ALTER TABLE ai_call_log_archive DROP COLUMN cache_write_1h_tokens;
ALTER TABLE breaker DROP COLUMN in_flight_max, DROP COLUMN grown_at;
ALTER TABLE worker_lease DROP COLUMN limits_digest;
DROP TABLE flow_catalogue, flow_rule, flow_limit, flow_note, flow_share, flow_open, flow_concurrency, flow_org, pause;
