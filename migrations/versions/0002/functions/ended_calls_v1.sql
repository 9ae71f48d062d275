-- callgate_ended_calls_v1: list the calls of one group of end_groups_v1, newest first. A call with a later generation is
-- left out.
--
-- p_name    the group: of dead calls the fingerprint, of rejected ones the end reason. The others as in ended_v1.
-- Returns   at most 1,000, of at most 30,000 that are looked at. ended_at: when its last attempt was posted.
CREATE FUNCTION callgate_ended_calls_v1(
    p_state text, p_name text, p_org_id text, p_since timestamptz, p_until timestamptz, p_before timestamptz,
    p_before_id uuid, p_before_generation int, p_limit int
) RETURNS TABLE (
    call_id uuid, generation int, org_id text, call_type text, provider text, model text, attempts int,
    created_at timestamptz, ended_at timestamptz, error text, posted_nano_usd bigint, unknown_attempts int,
    is_again boolean)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT l.call_id, l.generation, l.org_id, l.call_type, l.provider, l.model, l.attempt, l.created_at, m.ended_at,
           l.error, m.posted, m.unknown, callgate_ended_before_v1(p_state, p_name, l.call_id, l.generation)
      FROM callgate_ended_v1(p_state, ARRAY[p_name], p_org_id, p_since, p_until, 30000, least(p_limit, 1000),
                             p_before, p_before_id, p_before_generation) l
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(a.posted_nano_usd), 0)::bigint AS posted, max(a.posted_at) AS ended_at,
                  (count(*) FILTER (WHERE a.status = 'unknown'))::int AS unknown
             FROM ai_call_log a
            WHERE a.call_id = l.call_id AND a.generation = l.generation AND l.attempt > 0
              AND a.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
              AND a.attempt_id <= ANY (ARRAY[coalesce(l.attempt_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')])) m
     ORDER BY l.created_at DESC, l.call_id DESC, l.generation DESC;
END $$;
