-- callgate_raise_call_v1: give a call the higher class and the latest deadline of two submissions.
--
-- Locks     nothing. The caller holds the call, if it is raised.
-- Returns   whether a queued call is now interactive, and is to be published once more.
CREATE FUNCTION callgate_raise_call_v1(c llm_call, p_priority smallint, p_start_before timestamptz) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    IF NOT callgate_is_raised_v1(c, p_priority, p_start_before) THEN
        RETURN false;
    END IF;
    UPDATE llm_call l
       SET priority = greatest(l.priority, p_priority),
           turn_at = l.turn_at - greatest(0, p_priority - l.priority) * interval '6 h',
           start_before = CASE WHEN l.start_before IS NOT NULL AND p_start_before IS NOT NULL
                               THEN greatest(l.start_before, p_start_before) END
     WHERE l.call_id = c.call_id AND l.generation = c.generation;
    RETURN c.state = 'queued' AND p_priority = 2 AND c.priority < 2;
END $$;
