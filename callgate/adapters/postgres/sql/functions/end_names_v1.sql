-- callgate_end_names_v1: by what calls that ended without an answer are grouped, those that were added to last first.
--
-- It steps through an index from one name to the next, and reads two entries of each. A part of end_groups_v1.
-- p_state   dead: the names are fingerprints of errors. rejected: they are end reasons.
-- p_since, p_until  only names of calls that were submitted then.
-- p_names_max  at most so many.
CREATE FUNCTION callgate_end_names_v1(p_state text, p_since timestamptz, p_until timestamptz, p_names_max int)
RETURNS text[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
BEGIN
    IF p_state = 'dead' THEN
        RETURN ARRAY(
            WITH RECURSIVE names AS (
                (SELECT coalesce(c.error_fingerprint, '') AS name, 1 AS n FROM llm_call c
                  WHERE c.state = 'dead' AND c.generation > 0 ORDER BY coalesce(c.error_fingerprint, '') LIMIT 1)
                UNION ALL
                SELECT (SELECT coalesce(c.error_fingerprint, '') FROM llm_call c
                         WHERE c.state = 'dead' AND c.generation > 0 AND coalesce(c.error_fingerprint, '') > x.name
                         ORDER BY coalesce(c.error_fingerprint, '') LIMIT 1), x.n + 1
                  FROM names x WHERE x.name IS NOT NULL AND x.n < 10000
            )
            SELECT x.name FROM names x CROSS JOIN LATERAL (
                SELECT c.created_at FROM llm_call c
                 WHERE c.state = 'dead' AND c.generation > 0 AND coalesce(c.error_fingerprint, '') = x.name
                   AND c.created_at >= p_since AND c.created_at < p_until
                 ORDER BY c.created_at DESC LIMIT 1) newest
             ORDER BY newest.created_at DESC, x.name LIMIT p_names_max);
    END IF;
    RETURN ARRAY(
        WITH RECURSIVE names AS (
            (SELECT c.end_reason AS name, 1 AS n FROM llm_call c
              WHERE c.state = 'rejected' AND c.generation > 0 ORDER BY c.end_reason LIMIT 1)
            UNION ALL
            SELECT (SELECT c.end_reason FROM llm_call c
                     WHERE c.state = 'rejected' AND c.generation > 0 AND c.end_reason > x.name ORDER BY c.end_reason LIMIT 1), x.n + 1
              FROM names x WHERE x.name IS NOT NULL AND x.n < 10000
        )
        SELECT x.name FROM names x CROSS JOIN LATERAL (
            SELECT c.created_at FROM llm_call c
             WHERE c.state = 'rejected' AND c.generation > 0 AND c.end_reason = x.name
               AND c.created_at >= p_since AND c.created_at < p_until
             ORDER BY c.created_at DESC LIMIT 1) newest
         ORDER BY newest.created_at DESC, x.name LIMIT p_names_max);
END $$;
