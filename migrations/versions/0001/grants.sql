-- Who may do what. Roles execute functions; only the dashboard reads tables. See callgate/adapters/postgres/roles.py.

REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC;
GRANT USAGE ON SCHEMA {schema} TO callgate_client, callgate_worker, callgate_dashboard;

-- A table without a policy for a role is planned as empty. Otherwise debug_print_plan would log the estimates of a
-- table to a role that may not read it: Postgres plans before it checks permissions.
DO $$
DECLARE
    t regclass;
BEGIN
    FOREACH t IN ARRAY ARRAY[
        'callgate_version', 'llm_call', 'submission', 'undelivered_call', 'ai_call_log', 'ai_call_log_default',
        'ai_call_log_archive', 'budget', 'breaker', 'operator_action', 'unprocessable_message', 'worker_lease',
        'tenant_login']::regclass[]
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t);
    END LOOP;
END $$;

-- Only the owner may execute a function that is not listed below.
-- search_path: pg_temp is last, or a caller could put a temporary table in the place of ours.
-- client_min_messages: plans that are made inside are not logged to the caller.
DO $$
DECLARE
    f regprocedure;
    executable record;
BEGIN
    FOR f IN
        SELECT p.oid::regprocedure FROM pg_proc p
         WHERE p.pronamespace = '{schema}'::regnamespace AND p.proname LIKE 'callgate\_%'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    FOR executable IN SELECT * FROM (VALUES
        ('callgate_tenant_orgs_v1', 'callgate_client'),
        ('callgate_submit_v1', 'callgate_client'),
        ('callgate_end_v1', 'callgate_client'),
        ('callgate_read_v1', 'callgate_client, callgate_worker'),
        ('callgate_calls_v1', 'callgate_client'),
        ('callgate_dead_groups_v1', 'callgate_client'),
        ('callgate_link_failures_v1', 'callgate_client'),
        ('callgate_costs_v1', 'callgate_client, callgate_dashboard'),
        ('callgate_budgets_v1', 'callgate_client, callgate_dashboard'),
        ('callgate_audit_v1', 'callgate_dashboard'),
        ('callgate_breakers_v1', 'callgate_dashboard'),
        ('callgate_unknown_v1', 'callgate_dashboard'),
        ('callgate_unknown_days_v1', 'callgate_dashboard'),
        ('callgate_reserve_v1', 'callgate_worker'),
        ('callgate_record_v1', 'callgate_worker'),
        ('callgate_settle_v1', 'callgate_worker'),
        ('callgate_take_due_v1', 'callgate_worker'),
        ('callgate_take_lost_messages_v1', 'callgate_worker'),
        ('callgate_links_v1', 'callgate_worker'),
        ('callgate_deliver_v1', 'callgate_worker'),
        ('callgate_renew_lease_v1', 'callgate_worker'),
        ('callgate_release_leases_v1', 'callgate_worker'),
        ('callgate_expire_leases_v1', 'callgate_worker'),
        ('callgate_end_lock_hoarders_v1', 'callgate_worker'),
        ('callgate_purge_v1', 'callgate_worker'),
        ('callgate_forget_breakers_v1', 'callgate_worker'),
        ('callgate_make_partitions_v1', 'callgate_worker'),
        ('callgate_archive_month_v1', 'callgate_worker')
    ) AS e(name, roles)
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = {schema}, pg_temp'
                       ' SET client_min_messages = notice', executable.name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', executable.name, executable.roles);
    END LOOP;
END $$;

GRANT SELECT ON budget TO callgate_dashboard;
GRANT SELECT ON breaker TO callgate_dashboard;
GRANT SELECT ON operator_action TO callgate_dashboard;
GRANT SELECT ON ai_call_log_archive TO callgate_dashboard;
GRANT SELECT ON ai_call_log_sums TO callgate_dashboard;
GRANT SELECT ON dead_letter TO callgate_dashboard;

-- All columns but the bodies.
GRANT SELECT (call_id, generation, org_id, input_hash, state, due_at, attempt, attempt_id, call_type, provider, model,
    input_token_bound, error, error_fingerprint, requested_hold_nano_usd, sweeps, created_at, wait_reason, end_reason,
    breaker_id, wait_until) ON llm_call TO callgate_dashboard;
GRANT SELECT (attempt_id, call_id, generation, attempt, org_id, input_hash, call_type, provider, model, status,
    hold_nano_usd, posted_nano_usd, cost_usd, budget_ids, input_tokens, cached_input_tokens, cache_write_tokens,
    output_tokens, reasoning_tokens, price_source, service_tier, latency_ms, queue_ms, provider_request_id, trace_id,
    error_json, worker_id, started_at, finished_at, posted_at, kind, credential, anomalies, settled_by_hand_at) ON
    ai_call_log TO callgate_dashboard;
GRANT SELECT (submission_id, org_id, call_id, generation, outcome, idempotency_key, delivered_at, created_at, tries,
    failure, try_at, given_up_at) ON submission TO callgate_dashboard;
GRANT SELECT (id, at, queue, reason) ON unprocessable_message TO callgate_dashboard;

-- A view needs no policy: it shows what its tables show.
CREATE POLICY all_orgs ON ai_call_log FOR SELECT TO callgate_dashboard USING (true);
CREATE POLICY all_orgs ON ai_call_log_archive FOR SELECT TO callgate_dashboard USING (true);
CREATE POLICY all_orgs ON breaker FOR SELECT TO callgate_dashboard USING (true);
CREATE POLICY all_orgs ON budget FOR SELECT TO callgate_dashboard USING (true);
CREATE POLICY all_orgs ON llm_call FOR SELECT TO callgate_dashboard USING (true);
CREATE POLICY all_orgs ON operator_action FOR SELECT TO callgate_dashboard USING (true);
CREATE POLICY all_orgs ON submission FOR SELECT TO callgate_dashboard USING (true);
CREATE POLICY all_orgs ON unprocessable_message FOR SELECT TO callgate_dashboard USING (true);

GRANT INSERT (queue, reason, raw) ON unprocessable_message TO callgate_worker;
CREATE POLICY any_row ON unprocessable_message FOR INSERT TO callgate_worker WITH CHECK (true);

-- Nobody changes the action log, its owner included.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_action
    FOR EACH STATEMENT EXECUTE FUNCTION callgate_refuse_change_v1();
