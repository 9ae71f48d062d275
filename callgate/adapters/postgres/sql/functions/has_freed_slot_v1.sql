-- callgate_has_freed_slot_v1: whether attempts that were posted now were counted as under way, and calls wait for that.
--
-- p_rows    the attempts, by index, that were posted now.
CREATE FUNCTION callgate_has_freed_slot_v1(p_attempt_ids uuid[], p_rows int[]) RETURNS boolean
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    -- Mostly no call waits for any provider.
    IF NOT EXISTS (SELECT 1 FROM llm_call w WHERE w.breaker_id IS NOT NULL) THEN
        RETURN false;
    END IF;
    RETURN EXISTS (
        SELECT 1 FROM unnest(p_rows) AS k(row_no)
         CROSS JOIN LATERAL (SELECT * FROM ai_call_log x WHERE x.attempt_id = p_attempt_ids[k.row_no] LIMIT 1) a
          JOIN breaker b ON b.provider = a.provider AND b.model = a.model AND b.credential = a.credential
                        AND b.org_id = ''
         WHERE (b.in_flight_max IS NOT NULL
                OR EXISTS (SELECT 1 FROM flow_limit l WHERE l.id = ANY (a.limit_ids) AND l.measure = 'concurrency'))
           AND EXISTS (SELECT 1 FROM llm_call w WHERE w.breaker_id = b.id AND w.due_at > now()));
END $$;
