-- callgate_raise_call_v1: give a call the higher class and the latest deadline of two submissions.
--
-- A call that was not woken then waits until the new deadline, or the end of its wait. A retry, and a call that waits for
-- money, keep the time at which they are tried again.
-- Locks     nothing. The caller holds the call, if it is raised.
-- Returns   whether a queued call is now interactive, and is to be published once more.
CREATE FUNCTION callgate_raise_call_v1(c llm_call, p_priority smallint, p_start_before timestamptz) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    backlog_wait CONSTANT interval := '1 day';
    latest CONSTANT timestamptz := CASE WHEN c.start_before IS NOT NULL AND p_start_before IS NOT NULL
                                        THEN greatest(c.start_before, p_start_before) END;
BEGIN
    IF NOT callgate_is_raised_v1(c, p_priority, p_start_before) THEN
        RETURN false;
    END IF;
    UPDATE llm_call l
       SET priority = greatest(l.priority, p_priority),
           rank_at = l.rank_at - greatest(0, p_priority - l.priority) * interval '6 h',
           start_before = latest,
           due_at = CASE WHEN l.due_at <= now() THEN l.due_at
                         WHEN l.wait_reason = 'backlog' THEN least(l.created_at + backlog_wait, latest)
                         WHEN l.wait_reason IN ('provider', 'rate_limited', 'paused', 'concurrency_limited')
                         THEN least(coalesce(l.wait_until, l.due_at), latest)
                         ELSE l.due_at END
     WHERE l.call_id = c.call_id AND l.generation = c.generation;
    RETURN c.state = 'queued' AND p_priority = 2 AND c.priority < 2;
END $$;
