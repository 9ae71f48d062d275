-- callgate_has_waiters_v1: whether calls that are not paused wait for a key, or were released and are not claimed yet.
--
-- p_breaker_id  the shared breaker of the key.
CREATE FUNCTION callgate_has_waiters_v1(p_breaker_id bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM llm_call l WHERE l.breaker_id = p_breaker_id) THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT 1 FROM pause) OR EXISTS (
        SELECT 1 FROM callgate_waiting_orgs_v1(p_breaker_id) AS o(org_id)
         CROSS JOIN LATERAL (SELECT callgate_paused_types_v1(p_breaker_id, o.org_id) AS paused OFFSET 0) t
         CROSS JOIN LATERAL (SELECT 1 FROM llm_call l
                              WHERE l.breaker_id = p_breaker_id AND l.org_id = o.org_id
                                AND l.call_type <> ALL (t.paused) LIMIT 1) l);
END $$;
