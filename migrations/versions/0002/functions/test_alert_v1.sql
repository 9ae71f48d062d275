-- callgate_test_alert_v1: raise an alert that only shows that alerts arrive. Each has a key of its own.
--
-- Locks     no existing row. It adds a row to alert.
-- Returns   its id.
CREATE FUNCTION callgate_test_alert_v1(p_operator text) RETURNS bigint
LANGUAGE sql AS $$
    SELECT callgate_raise_alert_v1(
        'test', concat_ws(':', 'test', gen_random_uuid()), '', 'test', jsonb_build_object('operator', left(p_operator, 200)))
$$;
