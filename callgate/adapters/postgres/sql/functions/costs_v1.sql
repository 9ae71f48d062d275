-- callgate_costs_v1: sum up what was used, by organisation, call type, provider and model.
--
-- A collapsed submission saved the amount that its call posted, if the call succeeded. Sums include dropped partitions.
-- Percentiles are of the attempts that are still in the log.
-- Locks     ai_call_log, shared, before it reads. So a partition that is being dropped is counted once, as rows or as
--           sums.
CREATE FUNCTION callgate_costs_v1(p_org_id text)
RETURNS TABLE (
    org_id text, call_type text, provider text, model text, calls int, attempts int, succeeded int,
    collapsed int, input_tokens bigint, cached_input_tokens bigint, output_tokens bigint,
    spent_nano_usd bigint, saved_nano_usd bigint, latency_ms_p50 int, latency_ms_p95 int)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(p_org_id);
BEGIN
    LOCK TABLE ai_call_log IN ACCESS SHARE MODE;
    RETURN QUERY
    WITH call_sums AS (
        SELECT c.org_id, c.call_type, c.provider, c.model, c.state,
               coalesce(a.posted, 0) AS posted, coalesce(s.collapsed, 0) AS collapsed
          FROM llm_call c
          LEFT JOIN (SELECT call_id, generation, sum(posted_nano_usd) AS posted
                       FROM ai_call_log GROUP BY call_id, generation) a
            ON a.call_id = c.call_id AND a.generation = c.generation
          LEFT JOIN (SELECT call_id, generation, count(*) AS collapsed FROM submission
                      WHERE outcome IN ('joined', 'replayed', 'failed') GROUP BY call_id, generation) s
            ON s.call_id = c.call_id AND s.generation = c.generation
         WHERE orgs IS NULL OR c.org_id = ANY (orgs)
    ), attempt_sums AS (
        SELECT org_id, call_type, provider, model, sum(attempts) AS attempts,
               sum(input_tokens) AS input_tokens, sum(cached_input_tokens) AS cached_input_tokens,
               sum(output_tokens) AS output_tokens, sum(posted_nano_usd) AS spent,
               percentile_disc(0.5) WITHIN GROUP (ORDER BY latency_ms) AS p50,
               percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_ms) AS p95
          FROM ai_call_log_sums
         WHERE orgs IS NULL OR org_id = ANY (orgs)
         GROUP BY org_id, call_type, provider, model
    ), archive AS (
        SELECT org_id, call_type, provider, model, sum(saved_nano_usd) AS saved
          FROM ai_call_log_archive
         WHERE orgs IS NULL OR org_id = ANY (orgs)
         GROUP BY org_id, call_type, provider, model
    )
    SELECT c.org_id, c.call_type, c.provider, c.model, count(*)::int,
           coalesce(max(t.attempts), 0)::int,
           count(*) FILTER (WHERE c.state = 'succeeded')::int,
           sum(c.collapsed)::int,
           coalesce(max(t.input_tokens), 0)::bigint,
           coalesce(max(t.cached_input_tokens), 0)::bigint,
           coalesce(max(t.output_tokens), 0)::bigint,
           coalesce(max(t.spent), 0)::bigint,
           (coalesce(sum(c.posted * c.collapsed) FILTER (WHERE c.state = 'succeeded'), 0)
               + coalesce(max(x.saved), 0))::bigint,
           max(t.p50)::int, max(t.p95)::int
      FROM call_sums c
      LEFT JOIN attempt_sums t USING (org_id, call_type, provider, model)
      LEFT JOIN archive x USING (org_id, call_type, provider, model)
     GROUP BY c.org_id, c.call_type, c.provider, c.model
     ORDER BY 1, 2, 3, 4;
END $$;
