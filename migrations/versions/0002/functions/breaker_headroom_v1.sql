-- callgate_breaker_headroom_v1: how many more attempts of an organisation two breakers let through: `Guard.headroom`.
--
-- p_everybody  the shared breaker.
-- p_own        the organisation's own breaker; null if it has none.
-- p_org_id     empty for an organisation that has no attempt under way.
CREATE FUNCTION callgate_breaker_headroom_v1(p_everybody breaker, p_own breaker, p_org_id text) RETURNS int
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT CASE
        WHEN (p_own).is_open AND ((p_own).probe_at <= now() AND (p_own).trial_ids = '{}') IS NOT TRUE THEN 0
        ELSE least(CASE WHEN (p_own).is_open THEN 1 ELSE 200 END, CASE
            WHEN (p_everybody).is_open THEN
                CASE WHEN (p_everybody).probe_at <= now() AND (p_everybody).trial_ids = '{}' THEN 1 ELSE 0 END
            WHEN (p_everybody).proven_at > now() - interval '60 s' THEN 200
            -- Failures and trials together are three at most; of each other organisation two of them count.
            ELSE greatest(0, 3 - (
                SELECT coalesce(sum(CASE WHEN k.org_id = p_org_id THEN k.n ELSE least(k.n, 2) END), 0)
                  FROM (SELECT u.org_id, count(*) AS n
                          FROM (SELECT unnest((p_everybody).failed_orgs) AS org_id
                                 UNION ALL
                                SELECT a.org_id
                                  FROM unnest((p_everybody).trial_ids) AS t(attempt_id)
                                 CROSS JOIN LATERAL (
                                       SELECT * FROM ai_call_log l WHERE l.attempt_id = t.attempt_id LIMIT 1) a
                                 WHERE a.started_at > now() - interval '10 s') u
                         GROUP BY u.org_id) k))::int END) END
$$;
