-- callgate_breaker_room_v1: how many more attempts a breaker lets through: callgate/domain/breaker.py, `Breaker.room`.
CREATE FUNCTION callgate_breaker_room_v1(b breaker) RETURNS int
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT CASE
        WHEN b.is_open THEN CASE WHEN b.probe_at <= now() AND b.trial_ids = '{}' THEN 1 ELSE 0 END
        WHEN b.proven_at > now() - interval '60 s' THEN 200
        ELSE greatest(0, 3 - b.failures - (
            SELECT count(*) FROM unnest(b.trial_ids) AS t(attempt_id) JOIN ai_call_log a USING (attempt_id)
             WHERE a.started_at > now() - interval '10 s'))::int END
$$;
