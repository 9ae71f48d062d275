-- callgate_error_code_v1: the code of an error (JSON); 'unspecified' if it has none.
--
-- The same as `error_code` in callgate/domain/bounds.py. It is written in plpgsql because the planner would inline an
-- SQL function, and could then parse text that is not JSON.
CREATE FUNCTION callgate_error_code_v1(p_error text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_error IS JSON OBJECT THEN
        RETURN coalesce(nullif(left(p_error::json ->> 'code', 128), ''), 'unspecified');
    END IF;
    RETURN 'unspecified';
END $$;
