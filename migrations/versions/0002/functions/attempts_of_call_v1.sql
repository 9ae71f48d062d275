-- callgate_attempts_of_call_v1: the attempts of a call, the newest p_limit (1000 at most), oldest first, without replies.
--
-- The login must be allowed to read the call's organisation; otherwise no row is returned.
-- Locks    none.
-- Returns  reply_bytes: the size of its reply; null: it has none, or it was purged.
CREATE FUNCTION callgate_attempts_of_call_v1(p_call_id uuid, p_generation int, p_limit int) RETURNS TABLE (
    attempt_id uuid, a_attempt int, status text, hold_nano_usd bigint, a_posted bigint, input_tokens int,
    cached_input_tokens int, cache_write_tokens int, output_tokens int, reasoning_tokens int,
    cache_write_1h_tokens int, price_source text, service_tier text, latency_ms int, queue_ms int,
    provider_request_id text, error_json text, reply bytea, worker_id text, started_at timestamptz,
    finished_at timestamptz, kind text, credential text, anomalies text[], trace_id text, posted_at timestamptz,
    settled_by_hand_at timestamptz, reply_bytes int)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(NULL);
    first_id CONSTANT uuid := (SELECT callgate_uuid_floor_v1(c.created_at - interval '1 day') FROM llm_call c
                                WHERE c.call_id = p_call_id AND c.generation = p_generation
                                  AND (orgs IS NULL OR c.org_id = ANY (orgs)));
BEGIN
    RETURN QUERY
    SELECT x.* FROM (
        SELECT a.attempt_id, a.attempt, a.status, a.hold_nano_usd, a.posted_nano_usd, a.input_tokens,
               a.cached_input_tokens, a.cache_write_tokens, a.output_tokens, a.reasoning_tokens,
               a.cache_write_1h_tokens, a.price_source, a.service_tier, a.latency_ms, a.queue_ms,
               a.provider_request_id, a.error_json, NULL::bytea, a.worker_id, a.started_at, a.finished_at, a.kind,
               a.credential, a.anomalies, a.trace_id, a.posted_at, a.settled_by_hand_at, octet_length(a.reply)
          FROM ai_call_log a
         WHERE a.call_id = p_call_id AND a.generation = p_generation AND a.attempt_id >= first_id
         ORDER BY a.attempt DESC LIMIT least(p_limit, 1000)) x
     ORDER BY 2;
END $$;
