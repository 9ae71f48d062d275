-- callgate_views_v1: what read_v2 returns of calls, without any body. So it is for logins that may read none.
--
-- Locks  none.
CREATE FUNCTION callgate_views_v1(p_call_ids uuid[], p_generations int[]) RETURNS TABLE (
    ord int, call_id uuid, generation int, org_id text, input_hash bytea, state text, due_at timestamptz,
    attempt int, call_type text, provider text, model text, input_token_bound int, error text,
    created_at timestamptz, is_purged boolean, request_bytes int, request bytea, posted_nano_usd bigint, worker_losses int,
    unknown_attempts int, paid_failures int, free_probes int, repairs int,
    broken_id uuid, broken_bytes int, wait_reason text, end_reason text, sweeps int,
    attempt_id uuid, a_attempt int, status text, hold_nano_usd bigint, a_posted bigint, input_tokens int,
    cached_input_tokens int, cache_write_tokens int, output_tokens int, reasoning_tokens int,
    cache_write_1h_tokens int,
    price_source text, service_tier text, latency_ms int, queue_ms int, provider_request_id text,
    error_json text, reply bytea, worker_id text, started_at timestamptz, finished_at timestamptz,
    kind text, credential text, anomalies text[], trace_id text, priority smallint, start_before timestamptz,
    traceparent text, bytes int, bytes_so_far bigint)
LANGUAGE sql STABLE AS $$
    SELECT * FROM callgate_read_v2(
        p_call_ids, p_generations, array_fill(NULL::uuid, ARRAY[cardinality(p_call_ids)]), -1, false, 67108864)
$$;
