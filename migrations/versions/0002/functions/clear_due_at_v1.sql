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
       -- OFFSET 0: attempts are found by call, and then asked whether they are posted. Otherwise a plan that was made while
       -- a month was empty reads all attempts under way (ix_ai_call_log_in_flight) for each call.
       AND NOT EXISTS (
           SELECT 1 FROM (
               -- The only attempt of a call is found by its id; those of others are looked for in each month since.
               SELECT x.posted_nano_usd FROM ai_call_log x WHERE l.attempt = 1 AND x.attempt_id = l.attempt_id
                UNION ALL
               SELECT x.posted_nano_usd FROM ai_call_log x
                WHERE l.attempt > 1 AND x.call_id = l.call_id AND x.generation = l.generation
                  AND x.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
               OFFSET 0) a
            WHERE a.posted_nano_usd IS NULL OFFSET 0);
END $$;
