-- callgate_ended_v1: the newest calls that ended without an answer, by what they are grouped by. A part of end_groups_v1
-- and ended_calls_v1.
--
-- p_state   dead or rejected.
-- p_names   of these groups only; null, with p_org_id: of all.
-- p_org_id  null: of all organisations. Of one with very many calls only the newest 30,000 are looked at.
-- p_each    at most so many of each group are looked at; of one organisation so many in all groups together.
-- p_page    null: calls that a later generation has replaced are returned too. Otherwise they are left out, and at most
--           so many others are returned.
-- p_before  null, or the call after which the list goes on: its created_at, call_id and generation.
CREATE FUNCTION callgate_ended_v1(
    p_state text, p_names text[], p_org_id text, p_since timestamptz, p_until timestamptz, p_each int, p_page int,
    p_before timestamptz, p_before_id uuid, p_before_generation int
) RETURNS TABLE (
    name text, call_id uuid, generation int, org_id text, call_type text, provider text, model text, attempt int,
    attempt_id uuid, created_at timestamptz, error text, end_reason text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    since CONSTANT timestamptz := coalesce(p_since, '-infinity');
    until CONSTANT timestamptz := least(coalesce(p_until, 'infinity'), p_before + interval '1 us');
BEGIN
    IF p_org_id IS NOT NULL THEN
        RETURN QUERY
        SELECT x.name, x.call_id, x.generation, x.org_id, x.call_type, x.provider, x.model, x.attempt, x.attempt_id,
               x.created_at, x.error, x.end_reason
          FROM (SELECT y.*
                  FROM (SELECT c.*, coalesce(c.error_fingerprint, '') AS name
                          FROM llm_call c
                         WHERE p_state = 'dead' AND c.state = 'dead' AND c.generation > 0 AND c.org_id = p_org_id
                           AND c.created_at >= since AND c.created_at < until
                         UNION ALL
                        SELECT c.*, c.end_reason
                          FROM (SELECT l.* FROM llm_call l
                                 WHERE p_state = 'rejected' AND l.generation >= 0 AND l.org_id = p_org_id
                                   AND l.created_at >= since AND l.created_at < until
                                 ORDER BY l.created_at DESC LIMIT 30000) c
                         WHERE c.state = 'rejected') y
                 WHERE (p_names IS NULL OR y.name = ANY (p_names))
                   AND (p_before IS NULL
                        OR (y.created_at, y.call_id, y.generation) < (p_before, p_before_id, p_before_generation))
                 ORDER BY y.created_at DESC, y.call_id DESC, y.generation DESC LIMIT p_each) x
         WHERE p_page IS NULL OR NOT EXISTS (
               SELECT 1 FROM llm_call n WHERE n.call_id = x.call_id AND n.generation > x.generation)
         LIMIT p_page;
    ELSIF p_state = 'dead' THEN
        RETURN QUERY
        SELECT n.name, c.call_id, c.generation, c.org_id, c.call_type, c.provider, c.model, c.attempt, c.attempt_id,
               c.created_at, c.error, c.end_reason
          FROM unnest(p_names) AS n(name) CROSS JOIN LATERAL (
               SELECT x.*
                 FROM (SELECT l.* FROM llm_call l
                        WHERE l.state = 'dead' AND l.generation > 0 AND coalesce(l.error_fingerprint, '') = n.name
                          AND l.created_at >= since AND l.created_at < until
                          AND (p_before IS NULL
                               OR (l.created_at, l.call_id, l.generation) < (p_before, p_before_id, p_before_generation))
                        ORDER BY l.created_at DESC, l.call_id DESC, l.generation DESC LIMIT p_each) x
                WHERE p_page IS NULL OR NOT EXISTS (
                      SELECT 1 FROM llm_call n WHERE n.call_id = x.call_id AND n.generation > x.generation)
                LIMIT p_page) c;
    ELSE
        RETURN QUERY
        SELECT n.name, c.call_id, c.generation, c.org_id, c.call_type, c.provider, c.model, c.attempt, c.attempt_id,
               c.created_at, c.error, c.end_reason
          FROM unnest(p_names) AS n(name) CROSS JOIN LATERAL (
               SELECT x.*
                 FROM (SELECT l.* FROM llm_call l
                        WHERE l.state = 'rejected' AND l.generation > 0 AND l.end_reason = n.name
                          AND l.created_at >= since AND l.created_at < until
                          AND (p_before IS NULL
                               OR (l.created_at, l.call_id, l.generation) < (p_before, p_before_id, p_before_generation))
                        ORDER BY l.created_at DESC, l.call_id DESC, l.generation DESC LIMIT p_each) x
                WHERE p_page IS NULL OR NOT EXISTS (
                      SELECT 1 FROM llm_call n WHERE n.call_id = x.call_id AND n.generation > x.generation)
                LIMIT p_page) c;
    END IF;
END $$;
