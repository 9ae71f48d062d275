-- callgate_take_due_v1: take one due call, whose lock the caller holds: publish it, or lend it for p_lent.
--
-- Returns   kind null: nothing is left to do for it.
CREATE FUNCTION callgate_take_due_v1(c llm_call, p_lent interval, OUT kind text, OUT state text, OUT attempt_id uuid)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    a ai_call_log%ROWTYPE;
BEGIN
    IF c.state IN ('queued', 'waiting') THEN
        kind := 'publish';
        state := 'queued';
        UPDATE llm_call l SET state = 'queued', due_at = now(), wait_reason = NULL,
               sweeps = l.sweeps + CASE c.state WHEN 'queued' THEN 1 ELSE 0 END
         WHERE l.call_id = c.call_id AND l.generation = c.generation;
        RETURN;
    END IF;
    state := c.state;
    SELECT * INTO a FROM ai_call_log x
     WHERE x.call_id = c.call_id AND x.generation = c.generation
       AND x.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')
       AND x.posted_nano_usd IS NULL;
    IF FOUND THEN
        kind := CASE a.status WHEN 'answered' THEN 'settle' ELSE 'expired' END;
        attempt_id := a.attempt_id;
    END IF;
    UPDATE llm_call l
       SET due_at = CASE WHEN kind IS NOT NULL OR c.state = 'running' THEN now() + p_lent END,
           -- From here on its claim cannot be renewed: it may become unknown at any moment.
           error = CASE WHEN kind = 'expired' AND c.state = 'running'
                        THEN json_build_object('code', 'worker_lost',
                                               'message', 'the worker vanished before it recorded an outcome')::text
                        ELSE l.error END
     WHERE l.call_id = c.call_id AND l.generation = c.generation;
END $$;
