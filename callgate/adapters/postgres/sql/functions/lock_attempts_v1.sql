-- callgate_lock_attempts_v1: lock attempts, by id.
--
-- Each is looked up by itself, so its partition is found at once. A join may scan all partitions, if the planner takes
-- them for small.
CREATE FUNCTION callgate_lock_attempts_v1(p_attempt_ids uuid[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM 1 FROM (SELECT u.attempt_id FROM unnest(p_attempt_ids) AS u(attempt_id) ORDER BY u.attempt_id) k
      CROSS JOIN LATERAL (SELECT 1 FROM ai_call_log l WHERE l.attempt_id = k.attempt_id FOR UPDATE) a;
END $$;
