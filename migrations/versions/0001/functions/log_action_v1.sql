-- callgate_log_action_v1: write to the action log what an operator changed and why, in the transaction of the change.
--
-- p_subject  what was changed. p_detail: how, as JSON.
-- Locks      no existing row. It adds a row to operator_action.
CREATE FUNCTION callgate_log_action_v1(
    p_operator text, p_reason text, p_action text, p_org_id text, p_subject text, p_detail jsonb
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO operator_action (operator, reason, action, org_id, subject, detail)
    VALUES (p_operator, p_reason, p_action, p_org_id, p_subject, p_detail)
$$;
