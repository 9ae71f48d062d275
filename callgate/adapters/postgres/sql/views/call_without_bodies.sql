-- call_without_bodies: a row for each generation of a call, with what its attempts used, and none of the columns that hold
-- what callers wrote or providers answered. So SELECT * works for a reader who may not see these. Months of attempts that
-- retention has dropped count as nothing.
CREATE VIEW call_without_bodies WITH (security_invoker = true) AS
SELECT c.org_id, c.call_id, c.generation, c.call_type, c.provider, c.model, c.state, c.wait_reason, c.end_reason,
       c.error_fingerprint, c.priority, c.created_at, c.due_at,
       a.attempts, a.unknown_attempts, a.posted_nano_usd, round(a.posted_nano_usd / 1000000000.0, 9) AS cost_usd,
       a.input_tokens, a.cached_input_tokens, a.output_tokens, a.reasoning_tokens,
       a.first_started_at, a.last_finished_at, w.latency_ms, w.queue_ms, w.service_tier
  FROM llm_call c
 CROSS JOIN LATERAL (
       SELECT count(*) AS attempts, count(*) FILTER (WHERE l.status = 'unknown') AS unknown_attempts,
              coalesce(sum(l.posted_nano_usd), 0)::bigint AS posted_nano_usd,
              coalesce(sum(l.input_tokens), 0) AS input_tokens,
              coalesce(sum(l.cached_input_tokens), 0) AS cached_input_tokens,
              coalesce(sum(l.output_tokens), 0) AS output_tokens,
              coalesce(sum(l.reasoning_tokens), 0) AS reasoning_tokens,
              min(l.started_at) AS first_started_at, max(l.finished_at) AS last_finished_at
         FROM ai_call_log l
        WHERE l.call_id = c.call_id AND l.generation = c.generation) a
  LEFT JOIN ai_call_log w ON w.attempt_id = c.attempt_id;
