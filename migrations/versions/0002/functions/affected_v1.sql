-- callgate_affected_v1: how many open calls a pause, a freeze or a breaker would concern now.
--
-- Names say which calls; an empty one covers any.
-- p_read_max  at most so many calls of each state are looked at.
-- Returns     held_nano_usd: what those that run hold. orgs: of so many organisations. is_more: whether not all were
--             looked at.
CREATE FUNCTION callgate_affected_v1(
    p_provider text, p_model text, p_call_type text, p_org_id text, p_read_max int
) RETURNS TABLE (running int, held_nano_usd bigint, queued int, waiting int, orgs int, is_more boolean)
LANGUAGE plpgsql STABLE SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH read AS MATERIALIZED (
        SELECT x.* FROM unnest(ARRAY['running', 'queued', 'waiting']) AS s(state)
         CROSS JOIN LATERAL (
            SELECT l.state, l.org_id, l.call_type, l.provider, l.model, l.attempt_id FROM llm_call l
             WHERE l.state = s.state AND (p_org_id = '' OR l.org_id = p_org_id)
               AND l.state IN ('queued', 'running', 'waiting')
             LIMIT p_read_max) x
    ), covered AS MATERIALIZED (
        SELECT r.* FROM read r
         WHERE p_provider IN ('', r.provider) AND p_model IN ('', r.model) AND p_call_type IN ('', r.call_type)
    )
    SELECT (count(*) FILTER (WHERE c.state = 'running'))::int,
           (SELECT coalesce(sum(h.hold_nano_usd), 0) FROM covered r
             CROSS JOIN LATERAL (SELECT a.hold_nano_usd FROM ai_call_log a
                                  WHERE a.attempt_id = r.attempt_id AND a.posted_nano_usd IS NULL) h
             WHERE r.state = 'running')::bigint,
           (count(*) FILTER (WHERE c.state = 'queued'))::int, (count(*) FILTER (WHERE c.state = 'waiting'))::int,
           count(DISTINCT c.org_id)::int,
           EXISTS (SELECT 1 FROM read r GROUP BY r.state HAVING count(*) >= p_read_max)
      FROM covered c;
END $$;
