-- callgate_undelivered_links_v1: list links that the broker refused and that are not delivered.
--
-- p_given_up  true: those that were given up, newest first. false: those that are tried again, the next one first; only
--             links of 1,000 calls are looked at, those whose turn is next.
-- p_before, p_before_id  null, or given_up_at and id of the link after which the list goes on.
-- Returns   at most 1,000. is_purged: its content was removed.
CREATE FUNCTION callgate_undelivered_links_v1(
    p_org_id text, p_given_up boolean, p_before timestamptz, p_before_id uuid, p_limit int
) RETURNS TABLE (
    submission_id uuid, call_id uuid, generation int, org_id text, state text, tries int, why text,
    try_at timestamptz, given_up_at timestamptz, is_purged boolean)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    IF p_given_up THEN
        RETURN QUERY
        SELECT s.submission_id, s.call_id, s.generation, s.org_id, c.state, s.tries, coalesce(s.failure, ''),
               NULL::timestamptz, s.given_up_at, s.link IS NULL
          FROM (SELECT x.* FROM submission x
                 WHERE x.given_up_at IS NOT NULL AND x.given_up_at <= coalesce(p_before, 'infinity')
                   AND (p_before IS NULL OR (x.given_up_at, x.submission_id) < (p_before, p_before_id))
                   AND (p_org_id IS NULL OR x.org_id = p_org_id)
                 ORDER BY x.given_up_at DESC, x.submission_id DESC LIMIT least(p_limit, 1000)) s
          JOIN llm_call c ON c.call_id = s.call_id AND c.generation = s.generation
         ORDER BY s.given_up_at DESC, s.submission_id DESC;
    ELSE
        RETURN QUERY
        SELECT s.submission_id, u.call_id, u.generation, u.org_id, c.state, s.tries, s.failure, s.try_at,
               NULL::timestamptz, s.link IS NULL
          FROM (SELECT x.* FROM undelivered_call x
                 WHERE p_org_id IS NULL OR x.org_id = p_org_id ORDER BY x.deliver_at LIMIT 1000) u
         CROSS JOIN LATERAL (
               SELECT y.* FROM submission y
                WHERE y.call_id = u.call_id AND y.generation = u.generation
                  AND y.link IS NOT NULL AND y.delivered_at IS NULL AND y.given_up_at IS NULL
                  AND y.failure IS NOT NULL
                ORDER BY y.try_at LIMIT 100) s
          JOIN llm_call c ON c.call_id = u.call_id AND c.generation = u.generation
         ORDER BY s.try_at, s.submission_id LIMIT least(p_limit, 1000);
    END IF;
END $$;
