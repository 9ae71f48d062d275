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
