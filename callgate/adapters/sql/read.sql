-- read: calls with one attempt each, by (call_id, generation[, attempt_id]), in the order asked for.
-- Bodies travel only when wanted: a reply only of a call that has ended, unless the attempt was named.
-- An unknown attempt was lost if nobody ever recorded an answer to it. Errors are not looked into: a broken one in one
-- row would fail every batch that row is in.
SELECT k.ord::int, c.call_id, c.generation, c.org_id, c.input_hash, c.state, c.due_at, c.attempt, c.call_type,
       c.provider, c.model, c.input_token_bound, c.error, c.created_at, c.request IS NULL AS is_purged,
       CASE WHEN %(with_request)s THEN c.request END AS request,
       coalesce(t.posted, 0)::bigint AS posted_nano_usd, coalesce(t.lost, 0)::int AS lost_attempts,
       a.attempt_id, a.attempt AS a_attempt, a.status, a.hold_nano_usd, a.posted_nano_usd AS a_posted,
       a.input_tokens, a.cached_input_tokens, a.cache_write_tokens, a.output_tokens, a.reasoning_tokens,
       a.price_source, a.service_tier, a.latency_ms, a.queue_ms, a.provider_request_id, a.error_json,
       CASE WHEN %(with_reply)s AND (k.attempt_id IS NOT NULL
                                  OR c.state IN ('succeeded', 'dead', 'rejected')) THEN a.reply END AS reply,
       a.worker_id, a.started_at, a.finished_at
  FROM unnest(%(call_ids)s::uuid[], %(generations)s::int[], %(attempt_ids)s::uuid[])
       WITH ORDINALITY AS k(call_id, generation, attempt_id, ord)
  JOIN llm_call c ON c.call_id = k.call_id AND c.generation = k.generation
  LEFT JOIN ai_call_log a ON a.attempt_id = coalesce(k.attempt_id, c.attempt_id)
                         AND a.call_id = c.call_id AND a.generation = c.generation
  LEFT JOIN LATERAL (
       SELECT sum(x.posted_nano_usd) AS posted,
              count(*) FILTER (WHERE x.status = 'unknown' AND x.finished_at IS NULL) AS lost
         FROM ai_call_log x
        WHERE c.attempt > 0 AND x.call_id = c.call_id AND x.generation = c.generation
  ) t ON true
