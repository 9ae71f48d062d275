-- callgate_costs_v2: sum up what was used, out of the sums and of the deltas that are not in them yet.
--
-- Whole days in UTC come from day_sum, the quarter hours before and after them from quarter_sum. Only the filters that
-- are not null apply; '' as project or tier means none. Filters compare an expression (column || ''): see calls_v2.
-- p_since, p_until  whole quarter hours; infinite: without limit.
-- p_by              the columns to group by; the others are null in the result.
-- Returns           one row per group; calls: attempts that were the first of their call; timed: attempts whose latency is
--                   known, latency_ms: their sum; saved_nano_usd: what collapsed submissions would have cost.
--                   succeeded: attempts with a result; failed, retry and repair: what such attempts have posted.
--                   gaps: days of before the sums were kept that are not summed up yet.
CREATE FUNCTION callgate_costs_v2(
    p_org_id text, p_since timestamptz, p_until timestamptz, p_by text[], p_project text, p_call_type text,
    p_provider text, p_model text, p_tier text, p_kind text, p_outcome text
) RETURNS TABLE (
    day date, org_id text, project text, call_type text, provider text, model text, tier text, kind text, outcome text,
    attempts bigint, calls bigint, posted_nano_usd bigint, unknown_bills bigint, unknown_nano_usd bigint,
    without_tokens bigint, input_tokens bigint, cached_input_tokens bigint, cache_write_tokens bigint,
    cache_write_1h_tokens bigint, output_tokens bigint, reasoning_tokens bigint, latency_ms bigint, timed bigint,
    collapsed bigint, saved_nano_usd bigint,
    succeeded bigint, failed_nano_usd bigint, retry_nano_usd bigint, repair_nano_usd bigint,
    gaps int)
LANGUAGE plpgsql STABLE SET timezone = 'UTC' SET work_mem = '32MB' SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(p_org_id);
    -- The whole days. If there are none, first_day is not before last_day.
    first_day CONSTANT timestamptz := date_trunc('day', p_since + interval '1 day' - interval '1 us');
    last_day CONSTANT timestamptz := date_trunc('day', p_until);
    has_days CONSTANT boolean := first_day < last_day;
BEGIN
    RETURN QUERY
    WITH used AS (
        SELECT d.day, d.org_id, d.project, d.call_type, d.provider, d.model, d.tier, d.kind, d.outcome,
               d.attempts, d.calls, d.posted_nano_usd, d.unknown_bills, d.unknown_nano_usd, d.without_tokens,
               d.input_tokens, d.cached_input_tokens, d.cache_write_tokens, d.cache_write_1h_tokens,
               d.output_tokens, d.reasoning_tokens, d.latency_ms, d.timed, d.collapsed, d.saved_nano_usd
          FROM day_sum d
         WHERE has_days AND d.day >= first_day::date AND d.day < last_day::date 
           AND (orgs IS NULL OR d.org_id = ANY (orgs))
        UNION ALL
        SELECT q.starts_at::date, q.org_id, q.project, q.call_type, q.provider, q.model, q.tier, q.kind, q.outcome,
               q.attempts, q.calls, q.posted_nano_usd, q.unknown_bills, q.unknown_nano_usd, q.without_tokens,
               q.input_tokens, q.cached_input_tokens, q.cache_write_tokens, q.cache_write_1h_tokens,
               q.output_tokens, q.reasoning_tokens, q.latency_ms, q.timed, q.collapsed, q.saved_nano_usd
          FROM quarter_sum q
         WHERE (NOT has_days AND q.starts_at >= p_since AND q.starts_at < p_until
                OR has_days AND q.starts_at >= p_since AND q.starts_at < first_day
                OR has_days AND q.starts_at >= last_day AND q.starts_at < p_until)
           AND (orgs IS NULL OR q.org_id = ANY (orgs))
        UNION ALL
        SELECT e.starts_at::date, e.org_id, e.project, e.call_type, e.provider, e.model, e.tier, e.kind, e.outcome,
               e.attempts, e.calls, e.posted_nano_usd, e.unknown_bills, e.unknown_nano_usd, e.without_tokens,
               e.input_tokens, e.cached_input_tokens, e.cache_write_tokens, e.cache_write_1h_tokens,
               e.output_tokens, e.reasoning_tokens, e.latency_ms, e.timed, e.collapsed, e.saved_nano_usd
          FROM attempt_delta e
         WHERE e.starts_at >= p_since AND e.starts_at < p_until AND (orgs IS NULL OR e.org_id = ANY (orgs))
    )
    SELECT CASE WHEN 'day' = ANY (p_by) THEN u.day END,
           CASE WHEN 'org_id' = ANY (p_by) THEN u.org_id END, CASE WHEN 'project' = ANY (p_by) THEN u.project END,
           CASE WHEN 'call_type' = ANY (p_by) THEN u.call_type END, CASE WHEN 'provider' = ANY (p_by) THEN
           u.provider END, CASE WHEN 'model' = ANY (p_by) THEN u.model END, CASE WHEN 'tier' = ANY (p_by) THEN
           u.tier END, CASE WHEN 'kind' = ANY (p_by) THEN u.kind END, CASE WHEN 'outcome' = ANY (p_by) THEN
           u.outcome END,
           sum(u.attempts)::bigint, sum(u.calls)::bigint, sum(u.posted_nano_usd)::bigint,
           sum(u.unknown_bills)::bigint, sum(u.unknown_nano_usd)::bigint, sum(u.without_tokens)::bigint,
           sum(u.input_tokens)::bigint, sum(u.cached_input_tokens)::bigint, sum(u.cache_write_tokens)::bigint,
           sum(u.cache_write_1h_tokens)::bigint, sum(u.output_tokens)::bigint, sum(u.reasoning_tokens)::bigint,
           sum(u.latency_ms)::bigint, sum(u.timed)::bigint, sum(u.collapsed)::bigint, sum(u.saved_nano_usd)::bigint,
           coalesce(sum(u.attempts) FILTER (WHERE u.outcome = 'succeeded'), 0)::bigint,
           coalesce(sum(u.posted_nano_usd) FILTER (WHERE u.outcome = 'failed'), 0)::bigint,
           coalesce(sum(u.posted_nano_usd) FILTER (WHERE u.kind = 'retry'), 0)::bigint,
           coalesce(sum(u.posted_nano_usd) FILTER (WHERE u.kind = 'repair'), 0)::bigint,
           (SELECT count(*) FROM sum_gap g WHERE g.day >= p_since::date AND g.day < p_until)::int
      FROM used u
     WHERE (p_project IS NULL OR coalesce(u.project, '') || '' = p_project)
       AND (p_call_type IS NULL OR u.call_type || '' = p_call_type)
       AND (p_provider IS NULL OR u.provider || '' = p_provider)
       AND (p_model IS NULL OR u.model || '' = p_model)
       AND (p_tier IS NULL OR coalesce(u.tier, '') || '' = p_tier)
       AND (p_kind IS NULL OR u.kind || '' = p_kind)
       AND (p_outcome IS NULL OR u.outcome || '' = p_outcome)
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
    HAVING sum(u.attempts) <> 0 OR sum(u.collapsed) <> 0 OR sum(u.posted_nano_usd) <> 0
     ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9;
END $$;
