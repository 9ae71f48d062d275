-- callgate_recent_ends_v1: how the newest calls of each organisation ended without an answer, by state and reason.
--
-- Organisations are found one by one in the index, by name; so the cost does not grow with the number of calls.
-- p_orgs_max   so many organisations are looked at.
-- p_calls_max  so many of the newest calls of each.
-- p_age_s      calls that were submitted earlier are left out.
-- Locks     none.
-- Returns   calls: how many were found. orgs: of how many organisations. org_id: the one with the most; provider, model
--           and error_fingerprint are of calls of it. fingerprints: how many there are in all. needed: the largest hold
--           that a budget refused.
CREATE FUNCTION callgate_recent_ends_v1(p_orgs_max int, p_calls_max int, p_age_s float8)
RETURNS TABLE (
    state text, reason text, calls int, orgs int, org_id text, provider text, model text, error_fingerprint text,
    fingerprints int, needed_nano_usd bigint)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
    WITH RECURSIVE org (org_id, n) AS (
        (SELECT l.org_id, 1 FROM llm_call l WHERE l.generation >= 0 ORDER BY l.org_id LIMIT 1)
         UNION ALL
        SELECT (SELECT l.org_id FROM llm_call l WHERE l.generation >= 0 AND l.org_id > o.org_id
                 ORDER BY l.org_id LIMIT 1), o.n + 1
          FROM org o WHERE o.org_id IS NOT NULL AND o.n < p_orgs_max
    ), ended AS MATERIALIZED (
        SELECT o.org_id, c.state, c.end_reason, count(*)::int AS calls, min(c.provider COLLATE "C") AS provider,
               min(c.model COLLATE "C") AS model,
               array_agg(DISTINCT c.error_fingerprint) FILTER (WHERE c.error_fingerprint IS NOT NULL) AS fingerprints,
               max(CASE WHEN c.end_reason LIKE 'budget%' AND c.error IS JSON OBJECT
                        THEN (c.error::json ->> 'requested_nano_usd')::bigint END) AS needed
          FROM org o
         CROSS JOIN LATERAL (SELECT l.state, l.end_reason, l.provider, l.model, l.error_fingerprint, l.error
                               FROM llm_call l
                              WHERE l.generation >= 0 AND l.org_id = o.org_id
                                AND l.created_at > now() - make_interval(secs => p_age_s)
                              ORDER BY l.created_at DESC LIMIT p_calls_max) c
         WHERE c.state IN ('dead', 'rejected')
         GROUP BY 1, 2, 3
    )
    SELECT e.state, e.end_reason, sum(e.calls)::int, count(*)::int,
           (array_agg(e.org_id ORDER BY e.calls DESC, e.org_id COLLATE "C"))[1],
           (array_agg(e.provider ORDER BY e.calls DESC, e.org_id COLLATE "C"))[1],
           (array_agg(e.model ORDER BY e.calls DESC, e.org_id COLLATE "C"))[1],
           (array_agg(e.fingerprints[1] ORDER BY e.calls DESC, e.org_id COLLATE "C"))[1],
           (SELECT count(DISTINCT f)::int FROM ended x CROSS JOIN LATERAL unnest(x.fingerprints) f
             WHERE x.state = e.state AND x.end_reason = e.end_reason),
           max(e.needed)
      FROM ended e GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
$$;
