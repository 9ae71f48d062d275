-- callgate_unknown_days_v1: sum up unknown bills by day (UTC) and model, newest first, beside the known bills of the
-- same day and model. Only the filters that are not null apply.
--
-- p_with_past  see unknown_v1.
CREATE FUNCTION callgate_unknown_days_v1(
    p_org_id text, p_provider text, p_model text, p_since timestamptz, p_before timestamptz, p_with_past boolean
) RETURNS TABLE (
    day date, provider text, model text, attempts int, posted_nano_usd bigint, known_attempts int,
    known_nano_usd bigint)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(p_org_id);
    unknown_ids CONSTANT uuid[] := ARRAY(
        SELECT u.attempt_id FROM callgate_unknown_v1(
            p_org_id, p_provider, p_model, p_since, p_before, p_with_past, NULL, NULL) u);
BEGIN
    RETURN QUERY
    WITH unknown AS (
        SELECT (a.started_at AT TIME ZONE 'UTC')::date AS day, a.provider, a.model, count(*) AS attempts,
               sum(a.posted_nano_usd) AS posted
          FROM ai_call_log a WHERE a.attempt_id = ANY (unknown_ids)
         GROUP BY 1, 2, 3
    ), since AS (
        SELECT min(u.day)::timestamp AT TIME ZONE 'UTC' AS at FROM unknown u
    ), known AS (
        SELECT (a.started_at AT TIME ZONE 'UTC')::date AS day, a.provider, a.model, count(*) AS attempts,
               sum(a.posted_nano_usd) AS posted
          FROM ai_call_log a
         WHERE a.posted_nano_usd IS NOT NULL
           AND a.started_at >= (SELECT since.at FROM since)
           AND a.attempt_id >= callgate_uuid_floor_v1((SELECT since.at FROM since) - interval '1 day')
           AND (orgs IS NULL OR a.org_id = ANY (orgs))
           AND (p_since IS NULL OR a.started_at >= p_since)
           AND (p_before IS NULL OR a.started_at < p_before)
           AND a.attempt_id <> ALL (unknown_ids)
         GROUP BY 1, 2, 3
    )
    SELECT u.day, u.provider, u.model, u.attempts::int, u.posted::bigint, coalesce(k.attempts, 0)::int,
           coalesce(k.posted, 0)::bigint
      FROM unknown u LEFT JOIN known k USING (day, provider, model)
     ORDER BY 1 DESC, 2, 3;
END $$;
