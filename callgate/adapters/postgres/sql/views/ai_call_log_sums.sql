-- ai_call_log_sums: what attempts used, by quarter hour (UTC) and each dimension: the sums, and the deltas that are not in
-- them yet. Several rows may be of one key: sum them up. A reader sees what the tables would show.
CREATE VIEW ai_call_log_sums WITH (security_invoker = true) AS
SELECT q.starts_at, q.org_id, q.project, q.call_type, q.provider, q.model, q.tier, q.kind, q.outcome,
       q.attempts, q.calls, q.posted_nano_usd, q.unknown_bills, q.unknown_nano_usd, q.without_tokens,
       q.input_tokens, q.cached_input_tokens, q.cache_write_tokens, q.cache_write_1h_tokens, q.output_tokens,
       q.reasoning_tokens, q.latency_ms, q.timed, q.collapsed, q.saved_nano_usd
  FROM quarter_sum q
UNION ALL
SELECT d.starts_at, d.org_id, d.project, d.call_type, d.provider, d.model, d.tier, d.kind, d.outcome,
       d.attempts, d.calls, d.posted_nano_usd, d.unknown_bills, d.unknown_nano_usd, d.without_tokens,
       d.input_tokens, d.cached_input_tokens, d.cache_write_tokens, d.cache_write_1h_tokens, d.output_tokens,
       d.reasoning_tokens, d.latency_ms, d.timed, d.collapsed, d.saved_nano_usd
  FROM attempt_delta d;
