-- callgate_clear_due_at_v1: clear the due_at of ended calls whose attempts are all posted. Links to deliver have their
-- own time, in undelivered_call.
--
-- `due_at IS NOT NULL` is not a condition here, although it would save writes that change nothing. With it the planner
-- chooses ix_llm_call_due while few calls are due, and keeps that plan when a hundred thousand are.
-- Locks     nothing. The caller holds the calls.
CREATE FUNCTION callgate_clear_due_at_v1(p_call_ids uuid[], p_generations int[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    UPDATE llm_call l SET due_at = NULL
     WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(p_call_ids, p_generations))
       AND l.state IN ('succeeded', 'dead', 'rejected')
       AND NOT EXISTS (SELECT 1 FROM ai_call_log a
                        WHERE a.call_id = l.call_id AND a.generation = l.generation
                          AND a.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
                          AND a.posted_nano_usd IS NULL
                       -- Asked for each call by itself: a join may scan all partitions.
                       OFFSET 0);
END $$;
