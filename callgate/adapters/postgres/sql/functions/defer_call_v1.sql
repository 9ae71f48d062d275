-- callgate_defer_call_v1: defer a call by an hour because an update of it failed, and write a warning with p_why to the
-- server's log.
--
-- Locks     nothing. The caller holds the call.
CREATE FUNCTION callgate_defer_call_v1(p_call_id uuid, p_generation int, p_why text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    RAISE WARNING 'call %.% cannot be taken: %', p_call_id, p_generation, p_why;
    UPDATE llm_call l SET due_at = now() + interval '1 hour'
     WHERE l.call_id = p_call_id AND l.generation = p_generation;
EXCEPTION WHEN integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
    -- This update fails too: the call is left as it is.
    RETURN;
END $$;
