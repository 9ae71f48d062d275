-- callgate_raise_alert_v1: raise one alert, unless one with this key is there and not resolved.
--
-- Locks     no existing row. It adds a row to alert.
-- Returns   the id of the alert; NULL if it was there.
CREATE FUNCTION callgate_raise_alert_v1(p_kind text, p_key text, p_org_id text, p_subject text, p_detail jsonb)
RETURNS bigint
LANGUAGE sql AS $$
    INSERT INTO alert (kind, key, org_id, subject, detail) VALUES (p_kind, p_key, p_org_id, p_subject, p_detail)
    ON CONFLICT (key) WHERE resolved_at IS NULL DO NOTHING
    RETURNING id
$$;
