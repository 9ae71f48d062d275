-- callgate_provider_health_v1: how the newest attempts at each provider and model ended, and how long replies took.
--
-- The ids of attempts sort by time, so the newest are read without an index of their own.
-- p_age_s         attempts that began earlier are left out.
-- p_attempts_max  at most so many of the newest attempts are read, of all providers together.
-- Locks           none.
-- Returns         most attempts first. p50_ms, p95_ms: of replies; null if there is none.
CREATE FUNCTION callgate_provider_health_v1(p_age_s float8, p_attempts_max int)
RETURNS TABLE (provider text, model text, attempts int, succeeded int, failed int, unknown int, p50_ms int, p95_ms int)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH newest AS MATERIALIZED (
        SELECT a.provider, a.model, a.status, a.latency_ms FROM ai_call_log a
         WHERE a.attempt_id >= callgate_uuid_floor_v1(now() - make_interval(secs => p_age_s))
         ORDER BY a.attempt_id DESC LIMIT p_attempts_max
    )
    SELECT n.provider, n.model, count(*)::int, count(*) FILTER (WHERE n.status = 'succeeded')::int,
           count(*) FILTER (WHERE n.status = 'failed')::int, count(*) FILTER (WHERE n.status = 'unknown')::int,
           percentile_disc(0.5) WITHIN GROUP (ORDER BY n.latency_ms),
           percentile_disc(0.95) WITHIN GROUP (ORDER BY n.latency_ms)
      FROM newest n GROUP BY n.provider, n.model ORDER BY 3 DESC, 1, 2
$$;
