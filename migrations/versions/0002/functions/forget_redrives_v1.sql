-- callgate_forget_redrives_v1: delete redrives that ended more than p_age_s ago, with their calls. The action log stays.
--
-- Locks     those rows: SKIP LOCKED.
-- Returns   how many were deleted; at most p_limit.
CREATE FUNCTION callgate_forget_redrives_v1(p_age_s float8, p_limit int) RETURNS int
LANGUAGE sql SET enable_seqscan = off AS $$
    WITH old AS (
        SELECT r.id FROM redrive r WHERE r.ended_at <= now() - make_interval(secs => p_age_s)
         ORDER BY r.ended_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), calls AS (
        DELETE FROM redrive_call c USING old WHERE c.redrive_id = old.id
    ), forgotten AS (
        DELETE FROM redrive r USING old WHERE r.id = old.id RETURNING 1
    )
    SELECT count(*)::int FROM forgotten
$$;
