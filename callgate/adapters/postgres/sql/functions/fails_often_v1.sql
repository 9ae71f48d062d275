-- callgate_fails_often_v1: whether half of a provider's last results, or more, are failures.
--
-- Rules     `fails_often` in callgate/domain/breaker.py. For the shared breaker the organisation with most failures does
--           not count.
-- b         a closed breaker. Attempts that were made before it last changed do not count.
-- Bounded   to the last thousand attempts of all keys within a minute.
CREATE FUNCTION callgate_fails_often_v1(b breaker) RETURNS boolean
LANGUAGE sql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    WITH results AS (
        SELECT a.org_id, count(*) FILTER (WHERE a.health = 'failed') AS failed, count(*) AS n
          FROM (SELECT * FROM ai_call_log x
                 WHERE x.attempt_id >= callgate_uuid_floor_v1(now() - interval '60 s')
                 ORDER BY x.attempt_id DESC LIMIT 1000) a
         WHERE a.provider = b.provider AND a.model = b.model AND a.credential = b.credential
           AND b.org_id IN ('', a.org_id) AND a.health IN ('alive', 'failed') AND a.started_at >= b.changed_at
         GROUP BY a.org_id
    ), counted AS (
        SELECT r.failed, r.n FROM results r ORDER BY r.failed DESC, r.org_id COLLATE "C"
        OFFSET CASE b.org_id WHEN '' THEN 1 ELSE 0 END
    )
    SELECT coalesce(sum(c.n) >= 20 AND 2 * sum(c.failed) >= sum(c.n), false) FROM counted c
$$;
