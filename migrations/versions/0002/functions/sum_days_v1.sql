-- callgate_sum_days_v1: the days in UTC whose sums are to be proven, oldest first: each since the log began, or only those
-- that are not wholly sealed or have deltas. Days of dropped months have no rows to be compared with.
CREATE FUNCTION callgate_sum_days_v1(p_all boolean) RETURNS SETOF date
LANGUAGE plpgsql STABLE SET timezone = 'UTC' SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    orgs CONSTANT text[] := callgate_sum_orgs_v1();
    first_at timestamptz;
    last_at timestamptz;
BEGIN
    SELECT greatest(min(x.at), (SELECT max(m.ends_at) FROM dropped_month m)), greatest(max(x.last_at), now())
      INTO first_at, last_at
      FROM unnest(orgs) AS o(org_id)
     CROSS JOIN LATERAL (
           SELECT least((SELECT a.started_at FROM ai_call_log a WHERE a.org_id = o.org_id ORDER BY a.started_at LIMIT
                  1),
                        (SELECT c.created_at FROM llm_call c WHERE c.generation >= 0 AND c.org_id = o.org_id
                          ORDER BY c.created_at LIMIT 1),
                        (SELECT d.day::timestamptz FROM day_sum d WHERE d.org_id = o.org_id ORDER BY d.day LIMIT 1),
                        (SELECT min(d.starts_at) FROM attempt_delta d WHERE d.org_id = o.org_id)) AS at,
                  (SELECT d.day::timestamptz FROM day_sum d WHERE d.org_id = o.org_id ORDER BY d.day DESC LIMIT 1) AS
                         last_at
      ) x;
    RETURN QUERY
    SELECT y.day::date
      FROM generate_series(first_at::date::timestamptz, last_at, interval '1 day') AS y(day)
      LEFT JOIN (SELECT date_trunc('day', s.starts_at) AS day, count(*) AS sealed FROM sum_seal s GROUP BY 1) s USING
             (day)
     WHERE p_all OR coalesce(s.sealed, 0) < 96
        OR y.day = ANY (ARRAY(SELECT DISTINCT date_trunc('day', d.starts_at) FROM attempt_delta d))
     ORDER BY y.day;
END $$;
