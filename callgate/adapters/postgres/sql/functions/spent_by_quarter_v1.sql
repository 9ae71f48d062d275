-- callgate_spent_by_quarter_v1: what attempts of an organisation, or of one of its call types, have posted, by the
-- quarter hour in which they began, oldest first; deltas that are not in the sums yet are counted.
--
-- p_call_type  null: all.
-- p_since      a quarter hour.
CREATE FUNCTION callgate_spent_by_quarter_v1(p_org_id text, p_call_type text, p_since timestamptz)
RETURNS TABLE (starts_at timestamptz, posted_nano_usd bigint)
LANGUAGE sql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT x.starts_at, sum(x.posted_nano_usd)::bigint
      FROM (SELECT q.starts_at, q.call_type, q.posted_nano_usd FROM quarter_sum q
             WHERE q.org_id = p_org_id AND q.starts_at >= p_since
             UNION ALL
            SELECT d.starts_at, d.call_type, d.posted_nano_usd FROM attempt_delta d
             WHERE d.org_id = p_org_id AND d.starts_at >= p_since) x
     WHERE p_call_type IS NULL OR x.call_type = p_call_type
     GROUP BY x.starts_at HAVING sum(x.posted_nano_usd) <> 0 ORDER BY x.starts_at
$$;
