-- callgate_resume_v1: end a pause or a freeze, make calls due that no other pause covers, and log the action.
--
-- A thousand calls are made due, by their turn. take_due_v1 makes the others due, as many at a time as it takes.
-- Locks     the pause, then waiting calls: SKIP LOCKED.
-- Returns   whether there was such a pause.
CREATE FUNCTION callgate_resume_v1(
    p_provider text, p_model text, p_call_type text, p_org_id text, p_is_freeze boolean, p_operator text, p_reason text
) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pause p
     WHERE p.provider = p_provider AND p.model = p_model AND p.call_type = p_call_type AND p.org_id = p_org_id
       AND p.is_freeze = p_is_freeze;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, CASE WHEN p_is_freeze THEN 'unfreeze' ELSE 'resume' END, nullif(p_org_id, ''),
        callgate_pause_name_v1(p_provider, p_model, p_call_type, p_org_id), '{}');
    PERFORM callgate_free_paused_v1(1000);
    RETURN true;
END $$;
