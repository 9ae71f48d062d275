-- callgate_read_v2: read calls with one attempt each, by (call_id, generation[, attempt_id]), in the order asked for.
--
-- A request is returned if it has at most p_request_max_bytes bytes. With p_with_reply a reply is returned, if the call
-- has ended or the attempt was named. Calls of organisations that the login may not read are left out. The plan is
-- kept, because planning this look-up costs more with each partition.
-- repairs: those that were answered, or may have been. broken_id: the newest failed attempt with a reply.
-- Returns   the first calls: as many as have p_max_bytes bytes together, but at least one. Postgres knows the length of
--           a column without reading the column.
CREATE FUNCTION callgate_read_v2(
    p_call_ids uuid[], p_generations int[], p_attempt_ids uuid[], p_request_max_bytes int, p_with_reply boolean,
    p_max_bytes bigint
) RETURNS TABLE (
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
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(NULL);
BEGIN
    IF cardinality(p_call_ids) > 1000 THEN
        RAISE EXCEPTION 'at most 1000 calls at a time are read' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN QUERY
    SELECT * FROM (
    SELECT k.ord::int, c.call_id, c.generation, c.org_id, c.input_hash, c.state, c.due_at, c.attempt, c.call_type,
           c.provider, c.model, c.input_token_bound, c.error, c.created_at, c.request IS NULL,
           coalesce(octet_length(c.request), 0), CASE WHEN w.request THEN c.request END,
           coalesce(t.posted, 0)::bigint, coalesce(t.lost, 0)::int,
           coalesce(t.unknown, 0)::int, coalesce(t.paid, 0)::int, coalesce(t.free, 0)::int, coalesce(t.repairs, 0)::int,
           t.broken_id, t.broken_bytes, c.wait_reason, c.end_reason,
           c.sweeps,
           a.attempt_id, a.attempt, a.status, a.hold_nano_usd, a.posted_nano_usd,
           a.input_tokens, a.cached_input_tokens, a.cache_write_tokens, a.output_tokens, a.reasoning_tokens,
           a.cache_write_1h_tokens,
           a.price_source, a.service_tier, a.latency_ms, a.queue_ms, a.provider_request_id, a.error_json,
           CASE WHEN w.reply THEN a.reply END, a.worker_id, a.started_at, a.finished_at,
           a.kind, a.credential, a.anomalies, a.trace_id, c.priority, c.start_before, c.traceparent,
           b.bytes, sum(b.bytes) OVER (ORDER BY k.ord) AS bytes_so_far
      FROM unnest(p_call_ids, p_generations, p_attempt_ids)
           WITH ORDINALITY AS k(call_id, generation, attempt_id, ord)
      JOIN llm_call c ON c.call_id = k.call_id AND c.generation = k.generation
       AND (orgs IS NULL OR c.org_id = ANY (orgs))
      -- LIMIT makes it a query of its own, so that the attempt's id is known before a partition is chosen.
      LEFT JOIN LATERAL (
           SELECT * FROM ai_call_log x
            WHERE x.attempt_id = coalesce(k.attempt_id, c.attempt_id)
              AND x.call_id = c.call_id AND x.generation = c.generation
            LIMIT 1
      ) a ON true
      LEFT JOIN LATERAL (
           SELECT sum(x.posted_nano_usd) AS posted,
                  -- Lost: no answer was recorded. Errors are not read here: a broken one would fail every batch.
                  count(*) FILTER (WHERE x.status = 'unknown' AND x.finished_at IS NULL) AS lost,
                  count(*) FILTER (WHERE x.status = 'unknown' AND x.finished_at IS NOT NULL) AS unknown,
                  count(*) FILTER (WHERE x.status = 'failed'
                                     AND (x.reply IS NOT NULL OR x.posted_nano_usd > 0)) AS paid,
                  count(*) FILTER (WHERE x.status = 'failed' AND (x.kind = 'probe' OR x.health = 'limited')
                                     AND x.posted_nano_usd = 0) AS free,
                  count(*) FILTER (WHERE x.kind = 'repair' AND NOT (x.status = 'failed' AND x.reply IS NULL
                                                                    AND x.posted_nano_usd = 0)) AS repairs,
                  (array_agg(x.attempt_id ORDER BY x.attempt DESC)
                      FILTER (WHERE x.status = 'failed' AND x.reply IS NOT NULL))[1] AS broken_id,
                  (array_agg(octet_length(x.reply) ORDER BY x.attempt DESC)
                      FILTER (WHERE x.status = 'failed' AND x.reply IS NOT NULL))[1] AS broken_bytes
             -- The only attempt of a call was read above. The attempts of others are looked for in each month since.
             FROM (SELECT a.attempt_id, a.attempt, a.kind, a.status, a.health, a.finished_at, a.posted_nano_usd, a.reply
                    WHERE c.attempt = 1 AND a.attempt_id IS NOT NULL
                    UNION ALL
                   SELECT l.attempt_id, l.attempt, l.kind, l.status, l.health, l.finished_at, l.posted_nano_usd, l.reply
                     FROM ai_call_log l
                    WHERE (c.attempt > 1 OR c.attempt = 1 AND a.attempt_id IS NULL)
                      AND l.call_id = c.call_id AND l.generation = c.generation
                      AND l.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')) x
      ) t ON true
     CROSS JOIN LATERAL (
           SELECT octet_length(c.request) <= p_request_max_bytes AS request,
                  p_with_reply AND (k.attempt_id IS NOT NULL OR c.state IN ('succeeded', 'dead', 'rejected')) AS reply
      ) w
     CROSS JOIN LATERAL (
           -- The columns without a bound of a few hundred bytes; 4 kB for all the others.
           SELECT 4096 + coalesce(octet_length(c.error), 0) + coalesce(octet_length(a.error_json), 0)
                + CASE WHEN w.request THEN octet_length(c.request) ELSE 0 END
                + CASE WHEN w.reply THEN coalesce(octet_length(a.reply), 0) ELSE 0 END AS bytes
      ) b
    ) v WHERE v.bytes_so_far <= greatest(p_max_bytes, v.bytes);
END $$;
