-- costs: what was used, by organisation, call type, provider and model.
-- A collapsed submission saved what its call was posted at, if that succeeded. Sums include dropped partitions;
-- percentiles are those of the attempts that are still in the log.
WITH calls AS (
    SELECT c.org_id, c.call_type, c.provider, c.model, c.state,
           coalesce(a.posted, 0) AS posted, coalesce(s.collapsed, 0) AS collapsed
      FROM llm_call c
      LEFT JOIN (SELECT call_id, generation, sum(posted_nano_usd) AS posted
                   FROM ai_call_log GROUP BY call_id, generation) a
        ON a.call_id = c.call_id AND a.generation = c.generation
      LEFT JOIN (SELECT call_id, generation, count(*) AS collapsed FROM submission
                  WHERE outcome IN ('joined', 'replayed', 'failed') GROUP BY call_id, generation) s
        ON s.call_id = c.call_id AND s.generation = c.generation
     WHERE %(org_id)s::text IS NULL OR c.org_id = %(org_id)s
), attempts AS (
    SELECT org_id, call_type, provider, model, sum(attempts) AS attempts,
           sum(input_tokens) AS input_tokens, sum(cached_input_tokens) AS cached_input_tokens,
           sum(output_tokens) AS output_tokens, sum(posted_nano_usd) AS spent,
           percentile_disc(0.5) WITHIN GROUP (ORDER BY latency_ms) AS p50,
           percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95
      FROM ai_call_log_sums
     WHERE %(org_id)s::text IS NULL OR org_id = %(org_id)s
     GROUP BY org_id, call_type, provider, model
), archive AS (
    SELECT org_id, call_type, provider, model, sum(saved_nano_usd) AS saved
      FROM ai_call_log_archive GROUP BY org_id, call_type, provider, model
)
SELECT c.org_id, c.call_type, c.provider, c.model, count(*)::int AS calls,
       coalesce(max(t.attempts), 0)::int AS attempts,
       count(*) FILTER (WHERE c.state = 'succeeded')::int AS succeeded,
       sum(c.collapsed)::int AS collapsed,
       coalesce(max(t.input_tokens), 0)::bigint AS input_tokens,
       coalesce(max(t.cached_input_tokens), 0)::bigint AS cached_input_tokens,
       coalesce(max(t.output_tokens), 0)::bigint AS output_tokens,
       coalesce(max(t.spent), 0)::bigint AS spent_nano_usd,
       (coalesce(sum(c.posted * c.collapsed) FILTER (WHERE c.state = 'succeeded'), 0)
           + coalesce(max(x.saved), 0))::bigint AS saved_nano_usd,
       max(t.p50)::int AS latency_ms_p50, max(t.p95)::int AS latency_ms_p95
  FROM calls c
  LEFT JOIN attempts t USING (org_id, call_type, provider, model)
  LEFT JOIN archive x USING (org_id, call_type, provider, model)
 GROUP BY c.org_id, c.call_type, c.provider, c.model
 ORDER BY 1, 2, 3, 4
