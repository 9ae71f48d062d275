-- callgate_end_groups_v1: group calls that ended without an answer, the group that was added to last first. A call with
-- a later generation is left out.
--
-- p_state   dead: grouped by the fingerprint of their error. rejected: by their end reason.
-- p_name    null, or the one group that is asked for.
-- p_org_id  null: all.
-- p_since, p_until  only calls that were submitted then.
-- p_groups_max  so many groups that were added to last.
-- p_looked_max  so many calls are looked at; each group has its share of them, 100 at least.
-- p_paid_max    of so many of them, the newest of each group, it is summed up what they have posted.
-- Returns   is_more: older calls of the group were not looked at. first_at: when the first one was submitted that ended
--           so in any time and organisation. last_at: when one of them last ended. uncounted: calls with attempts
--           whose amounts are not in the sum. again: how many had a generation before that ended alike.
CREATE FUNCTION callgate_end_groups_v1(
    p_state text, p_name text, p_org_id text, p_since timestamptz, p_until timestamptz, p_groups_max int,
    p_looked_max int, p_paid_max int
) RETURNS TABLE (
    name text, reason text, providers text[], models text[], sample_error text, count int, is_more boolean, orgs int,
    first_at timestamptz, last_at timestamptz, posted_nano_usd bigint, uncounted int, again int)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    names text[];
    each int := least(p_looked_max, 100000);
BEGIN
    IF p_name IS NOT NULL THEN
        names := ARRAY[p_name];
    ELSIF p_org_id IS NULL THEN
        names := callgate_end_names_v1(
            p_state, coalesce(p_since, '-infinity'), coalesce(p_until, 'infinity'), least(p_groups_max, 1000));
        each := greatest(100, each / greatest(cardinality(names), 1));
    END IF;
    RETURN QUERY
    WITH looked AS MATERIALIZED (
        SELECT * FROM callgate_ended_v1(p_state, names, p_org_id, p_since, p_until, each, NULL, NULL, NULL, NULL)
    ), cut AS (
        SELECT CASE WHEN p_org_id IS NULL THEN l.name END AS name FROM looked l GROUP BY 1 HAVING count(*) >= each
    ), unreplaced AS MATERIALIZED (
        SELECT l.*, row_number() OVER (PARTITION BY l.name ORDER BY l.created_at DESC, l.call_id DESC) AS place,
               l.generation > 1 AND callgate_ended_before_v1(p_state, l.name, l.call_id, l.generation) AS is_again
          FROM looked l
         WHERE NOT EXISTS (SELECT 1 FROM llm_call n WHERE n.call_id = l.call_id AND n.generation > l.generation)
    ), paid AS (
        SELECT l.name, count(*)::int AS paid_calls, sum(m.posted)::bigint AS posted, max(m.ended_at) AS ended_at
          FROM unreplaced l
         CROSS JOIN LATERAL (
               SELECT sum(a.posted_nano_usd) AS posted, max(a.posted_at) AS ended_at FROM ai_call_log a
                WHERE a.call_id = l.call_id AND a.generation = l.generation
                  AND a.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
                  AND a.attempt_id <= ANY (ARRAY[coalesce(l.attempt_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff')])) m
         WHERE l.attempt > 0 AND l.place <= greatest(10, p_paid_max / (SELECT count(DISTINCT g.name) FROM unreplaced g))
         GROUP BY l.name
    ), grouped AS (
        SELECT l.name, (array_agg(l.end_reason ORDER BY l.place))[1] AS reason,
               (array_agg(DISTINCT l.provider))[1:5] AS providers, (array_agg(DISTINCT l.model))[1:5] AS models,
               (array_agg(l.error ORDER BY l.place))[1] AS sample_error, count(*)::int AS count,
               count(DISTINCT l.org_id)::int AS orgs, max(l.created_at) AS created_at,
               (count(*) FILTER (WHERE l.is_again))::int AS again, (count(*) FILTER (WHERE l.attempt > 0))::int AS tried
          FROM unreplaced l GROUP BY l.name
    )
    SELECT g.name, g.reason, g.providers, g.models, g.sample_error, g.count,
           EXISTS (SELECT 1 FROM cut WHERE cut.name = g.name OR cut.name IS NULL), g.orgs,
           callgate_first_ended_v1(p_state, g.name), greatest(g.created_at, p.ended_at), coalesce(p.posted, 0),
           g.tried - coalesce(p.paid_calls, 0), g.again
      FROM grouped g LEFT JOIN paid p USING (name)
     ORDER BY greatest(g.created_at, p.ended_at) DESC, g.name LIMIT p_groups_max;
END $$;
