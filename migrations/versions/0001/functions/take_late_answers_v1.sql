-- callgate_take_late_answers_v1: take late answers that were recorded but not settled, oldest first.
--
-- They are recognised by finished_at > posted_at. finished_at of a taken one is set to now, so that no other caller
-- takes it for p_hidden_for. If an attempt cannot be updated, it is skipped, and the server's log names it.
-- Locks     the attempts: SKIP LOCKED.
CREATE FUNCTION callgate_take_late_answers_v1(p_limit int, p_hidden_for interval)
RETURNS TABLE (call_id uuid, generation int, state text, attempt_id uuid)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    a ai_call_log%ROWTYPE;
BEGIN
    FOR a IN
        SELECT * FROM ai_call_log x
         WHERE x.status = 'unknown' AND x.finished_at > x.posted_at AND x.finished_at <= now() - p_hidden_for
         ORDER BY x.finished_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        call_id := a.call_id; generation := a.generation; attempt_id := a.attempt_id;
        SELECT l.state INTO state FROM llm_call l
         WHERE l.call_id = a.call_id AND l.generation = a.generation;
        BEGIN
            UPDATE ai_call_log x SET finished_at = clock_timestamp() WHERE x.attempt_id = a.attempt_id;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
            RAISE WARNING 'attempt % cannot be taken: %', a.attempt_id, SQLERRM;
            CONTINUE;
        END;
        RETURN NEXT;
    END LOOP;
END $$;
