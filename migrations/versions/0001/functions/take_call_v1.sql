-- callgate_take_call_v1: take one due call: publish it; or, if it has an unposted attempt, hide it from other callers
-- for p_hidden_for.
--
-- If the call cannot be updated, it is deferred by an hour, and the server's log names it. So it does not stop other
-- calls.
-- Locks     nothing. The caller holds the call.
-- Returns   kind: publish | settle | expired; null: nothing is left to do for it, or it was deferred (is_refused).
CREATE FUNCTION callgate_take_call_v1(
    c llm_call, p_hidden_for interval, OUT kind text, OUT state text, OUT attempt_id uuid, OUT is_refused boolean
)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    a ai_call_log%ROWTYPE;
BEGIN
    is_refused := false;
    state := c.state;
    IF c.state IN ('queued', 'waiting') THEN
        UPDATE llm_call l SET state = 'queued', due_at = now(), wait_reason = NULL,
               sweeps = l.sweeps + CASE c.state WHEN 'queued' THEN 1 ELSE 0 END
         WHERE l.call_id = c.call_id AND l.generation = c.generation;
        kind := 'publish';
        state := 'queued';
        RETURN;
    END IF;
    SELECT * INTO a FROM ai_call_log x
     WHERE x.call_id = c.call_id AND x.generation = c.generation
       AND x.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')
       AND x.posted_nano_usd IS NULL;
    IF FOUND THEN
        kind := CASE a.status WHEN 'answered' THEN 'settle' ELSE 'expired' END;
        attempt_id := a.attempt_id;
    END IF;
    UPDATE llm_call l
       SET due_at = CASE WHEN kind IS NOT NULL OR c.state = 'running' THEN now() + p_hidden_for END,
           -- From here on its claim cannot be renewed: the attempt may become unknown at any moment.
           error = CASE WHEN kind = 'expired' AND c.state = 'running'
                        THEN json_build_object('code', 'worker_lost',
                                               'message', 'the worker vanished before it recorded an outcome')::text
                        ELSE l.error END
     WHERE l.call_id = c.call_id AND l.generation = c.generation;
EXCEPTION WHEN integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
    kind := NULL;
    is_refused := true;
    PERFORM callgate_defer_call_v1(c.call_id, c.generation, SQLERRM);
END $$;
