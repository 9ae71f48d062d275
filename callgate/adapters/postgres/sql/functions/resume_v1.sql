-- callgate_resume_v1: end a pause or a freeze, make calls due that no other pause covers, and log the action.
--
-- A thousand calls are made due, by rank. take_due_v1 makes the others due, as many at a time as it takes.
-- p_seen_at  when the operator saw that it began; null: in any case.
-- Locks      the pause, then waiting calls: SKIP LOCKED.
-- Returns    whether there was such a pause. Null, and nothing is changed: there is one that began at another time.
CREATE FUNCTION callgate_resume_v1(
    p_provider text, p_model text, p_call_type text, p_org_id text, p_is_freeze boolean,
    p_seen_at timestamptz, p_operator text, p_reason text
) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM pause p
     WHERE p.provider = p_provider AND p.model = p_model AND p.call_type = p_call_type AND p.org_id = p_org_id
       AND p.is_freeze = p_is_freeze AND (p_seen_at IS NULL OR p.at = p_seen_at);
    IF NOT FOUND THEN
        IF EXISTS (SELECT 1 FROM pause p
                    WHERE p.provider = p_provider AND p.model = p_model AND p.call_type = p_call_type
                      AND p.org_id = p_org_id AND p.is_freeze = p_is_freeze) THEN
            RETURN NULL;
        END IF;
        RETURN false;
    END IF;
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, CASE WHEN p_is_freeze THEN 'unfreeze' ELSE 'resume' END, nullif(p_org_id, ''),
        callgate_pause_name_v1(p_provider, p_model, p_call_type, p_org_id), '{}');
    PERFORM callgate_free_paused_v1(1000);
    RETURN true;
END $$;
