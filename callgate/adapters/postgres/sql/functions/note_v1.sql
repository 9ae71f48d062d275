-- callgate_note_v1: write a note of an operator to the action log: what was done elsewhere, or is about to be done.
--
-- p_org_id  whom it concerns; null: everybody.
-- Locks     no existing row. It adds a row to operator_action.
CREATE FUNCTION callgate_note_v1(p_operator text, p_reason text, p_org_id text) RETURNS void
LANGUAGE sql AS $$
    SELECT callgate_log_action_v1(p_operator, p_reason, 'note', p_org_id, coalesce(p_org_id, 'everybody'), '{}')
$$;
