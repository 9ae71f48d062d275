-- callgate_defer_call_v1: defer a call that takes no change for an hour, and write so into the server's log.
CREATE FUNCTION callgate_defer_call_v1(p_call_id uuid, p_generation int, p_why text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    RAISE WARNING 'call %.% cannot be taken: %', p_call_id, p_generation, p_why;
    UPDATE llm_call l SET due_at = now() + interval '1 hour'
     WHERE l.call_id = p_call_id AND l.generation = p_generation;
EXCEPTION WHEN integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
    -- It takes no change at all.
    RETURN;
END $$;
