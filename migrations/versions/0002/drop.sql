-- Drop what 0002 created.

REVOKE USAGE ON SCHEMA {schema} FROM callgate_operator, callgate_body_reader;
REVOKE EXECUTE ON FUNCTION callgate_settle_unknown_v1 FROM callgate_operator;
REVOKE EXECUTE ON FUNCTION callgate_link_failures_v1 FROM callgate_dashboard;
ALTER FUNCTION callgate_settle_unknown_v1 SECURITY INVOKER RESET ALL;

UPDATE llm_call SET wait_reason = 'retry', breaker_id = NULL, wait_until = NULL, due_at = now()
 WHERE wait_reason IN ('rate_limited', 'backlog', 'paused', 'concurrency_limited');
UPDATE ai_call_log SET kind = 'call' WHERE kind IN ('first', 'retry', 'repair');
UPDATE breaker SET is_open = false, reason = NULL, probe_at = NULL, trial_ids = '{}' WHERE reason = 'rate_limited';

DROP TRIGGER note_posting ON ai_call_log;
DROP TRIGGER note_collapsed ON submission;
DROP TRIGGER note_collapsed_later ON submission;
DROP VIEW ai_call_log_sums;
DROP VIEW call_without_bodies;

DO $$
DECLARE
    f regprocedure;
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
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END $$;

DROP INDEX ix_budget_ends_at;
DROP INDEX ix_llm_call_paused;
COMMENT ON COLUMN llm_call.wait_until IS 'until when it may wait for its provider';
DROP INDEX ix_llm_call_breaker;
DROP INDEX ix_llm_call_backlog;
DROP INDEX ix_llm_call_open_org;
DROP INDEX ix_llm_call_in_line;
DROP INDEX ix_llm_call_woken;
DROP INDEX ix_llm_call_org;
CREATE INDEX ix_llm_call_org ON llm_call (org_id, created_at DESC);
DROP INDEX ix_llm_call_created;
DROP INDEX ix_llm_call_stuck;
DROP INDEX ix_llm_call_stuck_org;
DROP INDEX ix_llm_call_reason;
DROP INDEX ix_llm_call_fingerprint;
DROP INDEX ix_operator_action_subject;
CREATE INDEX ix_llm_call_breaker ON llm_call (breaker_id, org_id, attempt, created_at) WHERE breaker_id IS NOT NULL;
ALTER TABLE llm_call DROP COLUMN output_token_bound, DROP COLUMN priority, DROP COLUMN rank_at, DROP COLUMN start_before, DROP COLUMN lane, DROP COLUMN is_in_line,
    DROP COLUMN traceparent,
    DROP CONSTRAINT ck_llm_call_wait_reason,
    ADD CONSTRAINT ck_llm_call_wait_reason CHECK (wait_reason IN ('retry', 'budget_held', 'budget_exhausted', 'provider',
        'quarantine', 'memory', 'locked'));
DROP INDEX ix_ai_call_log_in_flight;
DROP INDEX ix_ai_call_log_trace;
ALTER TABLE ai_call_log DROP COLUMN limit_ids, DROP COLUMN output_token_bound, DROP COLUMN health,
    DROP COLUMN cache_write_1h_tokens,
    DROP CONSTRAINT ck_ai_call_log_kind,
    ADD CONSTRAINT ck_ai_call_log_kind CHECK (kind IN ('call', 'probe'));
ALTER TABLE breaker DROP COLUMN in_flight_max, DROP COLUMN grown_at, DROP COLUMN cause, DROP COLUMN error_fingerprint;
ALTER TABLE worker_lease DROP COLUMN limits_digest, DROP COLUMN slots;
ALTER TABLE worker_lease DROP COLUMN version, DROP COLUMN schema_revision, DROP COLUMN settings_digest,
    DROP COLUMN catalogue_digest, DROP COLUMN catalogue_sections;
DROP TABLE flow_catalogue, flow_rule, flow_limit, flow_note, flow_share, flow_open, flow_concurrency, flow_org, pause,
    ledger_figures, alert, alert_delivery, alert_watch, redrive, redrive_call;
DROP INDEX ix_llm_call_dead_attempt;
DROP INDEX ix_operator_action_operator;
DROP INDEX ix_llm_call_dead_group, ix_llm_call_discarded_group, ix_llm_call_rejected_group, ix_submission_given_up;
DROP TABLE attempt_delta, quarter_sum, day_sum, budget_sum, sum_seal, sum_gap, dropped_month;
DROP INDEX ix_submission_collapsed;

CREATE TABLE ai_call_log_archive (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    partition_name TEXT NOT NULL,
    ends_at TIMESTAMP WITH TIME ZONE NOT NULL,
    org_id TEXT NOT NULL,
    call_type TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL,
    budget_ids BIGINT[] NOT NULL,
    attempts BIGINT NOT NULL,
    posted_nano_usd BIGINT NOT NULL,
    saved_nano_usd BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    CONSTRAINT pk_ai_call_log_archive PRIMARY KEY (id),
    CONSTRAINT ck_ai_call_log_archive_status CHECK (status IN ('succeeded', 'failed', 'unknown'))
);
COMMENT ON COLUMN ai_call_log_archive.partition_name IS 'the partition that was dropped';
COMMENT ON COLUMN ai_call_log_archive.ends_at IS 'its attempts are older than this';
COMMENT ON COLUMN ai_call_log_archive.saved_nano_usd IS 'posted times the collapsed submissions of its succeeded call';
ALTER TABLE ai_call_log_archive ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON ai_call_log_archive TO callgate_dashboard;
CREATE POLICY all_orgs ON ai_call_log_archive FOR SELECT TO callgate_dashboard USING (true);
-- ai_call_log_sums: all attempts: a row for each one in the log, and the sums of dropped partitions. A reader sees what
-- the tables would show.
CREATE VIEW ai_call_log_sums WITH (security_invoker = true) AS
SELECT l.org_id, l.call_type, l.provider, l.model, l.status, l.budget_ids, 1::bigint AS attempts,
       CASE WHEN l.posted_nano_usd IS NULL THEN l.hold_nano_usd ELSE 0 END AS held_nano_usd,
       coalesce(l.posted_nano_usd, 0) AS posted_nano_usd, coalesce(l.input_tokens, 0)::bigint AS input_tokens,
       coalesce(l.cached_input_tokens, 0)::bigint AS cached_input_tokens,
       coalesce(l.output_tokens, 0)::bigint AS output_tokens,
       CASE WHEN l.status = 'succeeded' THEN l.latency_ms END AS latency_ms
  FROM ai_call_log l
UNION ALL
SELECT x.org_id, x.call_type, x.provider, x.model, x.status, x.budget_ids, x.attempts, 0, x.posted_nano_usd,
       x.input_tokens, x.cached_input_tokens, x.output_tokens, NULL
  FROM ai_call_log_archive x;
GRANT SELECT ON ai_call_log_sums TO callgate_dashboard;
