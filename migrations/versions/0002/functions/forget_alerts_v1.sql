-- callgate_forget_alerts_v1: delete alerts that are older than p_age_s and have been resolved, or cannot be, with their
-- deliveries.
--
-- p_states  kinds whose alerts are kept until they are resolved.
-- Locks     those rows: SKIP LOCKED.
-- Returns   how many alerts were deleted; at most p_limit.
CREATE FUNCTION callgate_forget_alerts_v1(p_age_s float8, p_states text[], p_limit int) RETURNS int
LANGUAGE sql SET enable_seqscan = off AS $$
    WITH old AS (
        SELECT a.id FROM alert a
         WHERE a.at <= now() - make_interval(secs => p_age_s) AND (a.resolved_at IS NOT NULL OR a.kind <> ALL (p_states))
         ORDER BY a.at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), deliveries AS (
        DELETE FROM alert_delivery d USING old WHERE d.alert_id = old.id
    ), forgotten AS (
        DELETE FROM alert a USING old WHERE a.id = old.id RETURNING 1
    )
    SELECT count(*)::int FROM forgotten
$$;
