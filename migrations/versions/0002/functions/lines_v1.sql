-- callgate_lines_v1: the call types of which calls of an organisation wait for a place, or were woken and do not run yet.
--
-- A hundred types at most, by name: callers choose them. Those of the others follow when these have no calls that wait.
-- Source    one look into the index for each type ("loose index scan"; Postgres wiki).
CREATE FUNCTION callgate_lines_v1(p_org_id text) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    WITH RECURSIVE line (call_type, n) AS (
        (SELECT l.call_type, 1 FROM llm_call l
          WHERE l.is_in_line AND l.state IN ('queued', 'waiting') AND l.org_id = p_org_id
          ORDER BY l.call_type LIMIT 1)
        UNION ALL
        SELECT (SELECT l.call_type FROM llm_call l
                 WHERE l.is_in_line AND l.state IN ('queued', 'waiting') AND l.org_id = p_org_id
                   AND l.call_type > x.call_type
                 ORDER BY l.call_type LIMIT 1), x.n + 1
          FROM line x WHERE x.call_type IS NOT NULL AND x.n < 100
    )
    SELECT x.call_type FROM line x WHERE x.call_type IS NOT NULL;
END $$;
