-- callgate_take_limit_v1: a limit after an attempt has taken what it needs: `Limit.taken`.
--
-- Locks     nothing: it reads and writes no table.
CREATE FUNCTION callgate_take_limit_v1(l flow_limit, p_input_tokens bigint, p_output_tokens bigint) RETURNS flow_limit
LANGUAGE plpgsql AS $$
DECLARE
    units CONSTANT bigint := callgate_limit_need_v1(l.measure, p_input_tokens, p_output_tokens);
BEGIN
    IF l.measure <> 'concurrency' THEN
        l.level := CASE WHEN units > l.amount / 2.0 THEN callgate_limit_capacity_v1(l.amount, l.window_s, l.largest)
                        ELSE l.level END - units;
        l.granted_at := now();
    END IF;
    RETURN l;
END $$;
