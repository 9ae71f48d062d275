-- callgate_collapsed_v1: sum up the submissions of some organisations that were collapsed in a time, as attempt_delta would
-- have them. A part of posted_v1.
--
-- note_collapsed_v1 computes the same for one row. What a submission has saved is what its call costs now; it is counted
-- only with p_with_savings. Each organisation is looked up by itself, by index.
CREATE FUNCTION callgate_collapsed_v1(
    p_orgs text[], p_from timestamptz, p_until timestamptz, p_with_savings boolean)
RETURNS SETOF attempt_delta
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN QUERY
    SELECT NULL::bigint, callgate_quarter_v1(s.created_at), c.org_id, NULL::text, c.call_type, c.provider, c.model,
           NULL::text, 'collapsed', s.outcome, '{}'::bigint[], 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint,
                  0::bigint, 0::bigint,
           0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, count(*),
           coalesce(sum(k.cost), 0)::bigint
      FROM unnest(p_orgs) AS o(org_id)
     CROSS JOIN LATERAL (
           SELECT x.call_id, x.generation, x.created_at, x.outcome FROM submission x
            WHERE x.org_id = o.org_id AND x.created_at >= p_from AND x.created_at < p_until
              AND x.outcome IN ('joined', 'replayed', 'failed')
           OFFSET 0
      ) s
      JOIN llm_call c ON c.call_id = s.call_id AND c.generation = s.generation
      LEFT JOIN LATERAL (
           SELECT sum(a.posted_nano_usd) AS cost FROM ai_call_log a
            WHERE a.call_id = c.call_id AND a.generation = c.generation
              AND a.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')
           OFFSET 0
      ) k ON p_with_savings AND c.state = 'succeeded' AND s.outcome <> 'failed'
     GROUP BY 2, c.org_id, c.call_type, c.provider, c.model, s.outcome;
END $$;
