-- callgate_cost_series_v1: sum up what was used, by step of time and value of one dimension.
--
-- Filters as in costs_v2.
-- p_since, p_until  whole quarter hours; with p_by_day whole days.
-- p_starts  when each step begins, in order; the first is not after p_since. At most 2,000.
-- p_by_day  true: out of day_sum, if steps are days in UTC or longer. false: out of quarter_sum. The deltas that are not
--           in them yet are added.
-- p_by      the dimension.
-- p_top_max so many values, those with the largest amounts; what others used has the name null.
-- Returns   one row per step and value with something in it. An empty name: the value is not known.
CREATE FUNCTION callgate_cost_series_v1(
    p_org_id text, p_since timestamptz, p_until timestamptz, p_starts timestamptz[], p_by_day boolean, p_by text,
    p_top_max int, p_project text, p_call_type text, p_provider text, p_model text, p_tier text, p_kind text,
    p_outcome text
) RETURNS TABLE (
    starts_at timestamptz, name text, posted_nano_usd bigint, saved_nano_usd bigint, attempts bigint)
LANGUAGE plpgsql STABLE SET timezone = 'UTC' SET work_mem = '32MB' SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(p_org_id);
BEGIN
    IF cardinality(p_starts) > 2000 THEN
        RAISE EXCEPTION 'at most 2000 steps are summed up' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN QUERY
    WITH used AS (
        SELECT d.day::timestamptz AS starts_at, d.org_id, d.project, d.call_type, d.provider, d.model, d.tier, d.kind,
               d.outcome, d.posted_nano_usd, d.saved_nano_usd, d.attempts
          FROM day_sum d
         WHERE p_by_day AND d.day >= p_since::date AND d.day < p_until AND (orgs IS NULL OR d.org_id = ANY (orgs))
        UNION ALL
        SELECT q.starts_at, q.org_id, q.project, q.call_type, q.provider, q.model, q.tier, q.kind,
               q.outcome, q.posted_nano_usd, q.saved_nano_usd, q.attempts
          FROM quarter_sum q
         WHERE NOT p_by_day AND q.starts_at >= p_since AND q.starts_at < p_until
           AND (orgs IS NULL OR q.org_id = ANY (orgs))
        UNION ALL
        SELECT e.starts_at, e.org_id, e.project, e.call_type, e.provider, e.model, e.tier, e.kind,
               e.outcome, e.posted_nano_usd, e.saved_nano_usd, e.attempts
          FROM attempt_delta e
         WHERE e.starts_at >= CASE WHEN p_by_day THEN date_trunc('day', p_since) ELSE p_since END
           AND e.starts_at < p_until AND (orgs IS NULL OR e.org_id = ANY (orgs))
    ), steps AS MATERIALIZED (
        SELECT width_bucket(u.starts_at, p_starts) AS step,
               coalesce(CASE p_by WHEN 'org_id' THEN u.org_id WHEN 'project' THEN u.project
                        WHEN 'call_type' THEN u.call_type WHEN 'provider' THEN u.provider WHEN 'model' THEN u.model
                        WHEN 'tier' THEN u.tier WHEN 'kind' THEN u.kind WHEN 'outcome' THEN u.outcome END, '') AS name,
               sum(u.posted_nano_usd) AS posted, sum(u.saved_nano_usd) AS saved, sum(u.attempts) AS attempts
          FROM used u
         WHERE (p_project IS NULL OR coalesce(u.project, '') || '' = p_project)
           AND (p_call_type IS NULL OR u.call_type || '' = p_call_type)
           AND (p_provider IS NULL OR u.provider || '' = p_provider)
           AND (p_model IS NULL OR u.model || '' = p_model)
           AND (p_tier IS NULL OR coalesce(u.tier, '') || '' = p_tier)
           AND (p_kind IS NULL OR u.kind || '' = p_kind)
           AND (p_outcome IS NULL OR u.outcome || '' = p_outcome)
         GROUP BY 1, 2
    ), ranked AS (
        SELECT s.name, row_number() OVER (ORDER BY sum(s.posted) DESC, s.name COLLATE "C") AS place
          FROM steps s GROUP BY s.name
    ), named AS (
        SELECT s.step, CASE WHEN r.place <= p_top_max THEN s.name END AS name, least(r.place, p_top_max + 1) AS place,
               s.posted, s.saved, s.attempts
          FROM steps s JOIN ranked r USING (name)
    )
    SELECT p_starts[n.step], n.name, sum(n.posted)::bigint, sum(n.saved)::bigint, sum(n.attempts)::bigint
      FROM named n
     WHERE n.step > 0
     GROUP BY n.step, n.place, n.name
    HAVING sum(n.posted) <> 0 OR sum(n.saved) <> 0 OR sum(n.attempts) <> 0
     ORDER BY n.step, n.place;
END $$;
