-- callgate_costs_v1: sum up what was used, by organisation, call type, provider and model.
--
-- For processes of 0.1.0: out of the sums, which know no percentiles.
CREATE FUNCTION callgate_costs_v1(p_org_id text)
RETURNS TABLE (
    org_id text, call_type text, provider text, model text, calls int, attempts int, succeeded int,
    collapsed int, input_tokens bigint, cached_input_tokens bigint, output_tokens bigint,
    spent_nano_usd bigint, saved_nano_usd bigint, latency_ms_p50 int, latency_ms_p95 int)
LANGUAGE sql STABLE AS $$
    SELECT c.org_id, c.call_type, c.provider, c.model, sum(c.calls)::int, sum(c.attempts)::int,
           coalesce(sum(c.attempts) FILTER (WHERE c.outcome = 'succeeded'), 0)::int, sum(c.collapsed)::int,
           sum(c.input_tokens)::bigint, sum(c.cached_input_tokens)::bigint, sum(c.output_tokens)::bigint,
           sum(c.posted_nano_usd)::bigint, sum(c.saved_nano_usd)::bigint, NULL::int, NULL::int
      FROM callgate_costs_v2(p_org_id, '-infinity', 'infinity', '{org_id,call_type,provider,model,outcome}',
                             NULL, NULL, NULL, NULL, NULL, NULL, NULL) c
     GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
$$;
