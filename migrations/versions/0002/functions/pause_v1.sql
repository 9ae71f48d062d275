-- callgate_pause_v1: keep calls from being sent, or freeze an organisation, and log the action.
--
-- The names say which calls; an empty one covers any. From the commit on, reserve_v2 refuses them.
-- p_is_new  if there is such a pause already, change nothing. Else it gets the new operator and reason.
-- Locks     the pause.
-- Returns   the pause, as pauses_v1 does. No row: with p_is_new there was one already.
CREATE FUNCTION callgate_pause_v1(
    p_provider text, p_model text, p_call_type text, p_org_id text, p_is_freeze boolean, p_is_new boolean,
    p_operator text, p_reason text
) RETURNS TABLE (
    provider text, model text, call_type text, org_id text, is_freeze boolean, operator text, reason text,
    at timestamptz, waiting int)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO pause (provider, model, call_type, org_id, is_freeze, operator, reason)
    VALUES (p_provider, p_model, p_call_type, p_org_id, p_is_freeze, p_operator, p_reason)
    ON CONFLICT (provider, model, call_type, org_id, is_freeze)
    DO UPDATE SET operator = excluded.operator, reason = excluded.reason, at = excluded.at WHERE NOT p_is_new;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, CASE WHEN p_is_freeze THEN 'freeze' ELSE 'pause' END, nullif(p_org_id, ''),
        callgate_pause_name_v1(p_provider, p_model, p_call_type, p_org_id), '{}');
    RETURN QUERY SELECT * FROM callgate_pauses_v1() x
      WHERE x.provider = p_provider AND x.model = p_model AND x.call_type = p_call_type AND x.org_id = p_org_id
        AND x.is_freeze = p_is_freeze;
END $$;
