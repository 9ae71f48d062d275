-- callgate_clear_due_at_v1: clear the due_at of ended calls whose attempts are all posted. Links that wait have a time of
-- their own, in undelivered_call.
--
-- The caller holds the calls' locks. `due_at IS NOT NULL` is no condition here, though it would spare an idle write: with
-- it the planner, while few calls are due, takes ix_llm_call_due, and keeps that plan when the index holds a hundred
-- thousand.
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
                          AND a.posted_nano_usd IS NULL);
END $$;
