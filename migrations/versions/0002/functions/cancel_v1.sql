-- callgate_cancel_v1: cancel a queued or waiting call, and log who did it and why.
--
-- p_error   why, as JSON; see end_v1.
-- Locks     those of end_v1. It adds a row to operator_action.
-- Returns   whether it was cancelled. If not, nothing was changed.
CREATE FUNCTION callgate_cancel_v1(
    p_call_id uuid, p_generation int, p_error text, p_operator text, p_reason text
) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM callgate_end_v1(ARRAY[p_call_id], ARRAY[p_generation], p_error, ARRAY['queued', 'waiting']);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, 'call.cancel', (SELECT c.org_id FROM llm_call c
                                               WHERE c.call_id = p_call_id AND c.generation = p_generation),
        p_call_id || '.' || p_generation, '{}');
    RETURN true;
END $$;
