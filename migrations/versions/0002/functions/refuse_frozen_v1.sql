-- callgate_refuse_frozen_v1: raise an error if an organisation is frozen. Its SQLSTATE, P0F01, is only ours.
--
-- The error names the organisation. So the caller must have checked that the session's login may act for it.
CREATE FUNCTION callgate_refuse_frozen_v1(p_org_id text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    why text;
BEGIN
    SELECT p.reason INTO why FROM pause p WHERE p.is_freeze AND p.org_id = p_org_id;
    IF FOUND THEN
        RAISE EXCEPTION 'organisation % is frozen (%): submit again when an operator has unfrozen it', p_org_id, why
            USING ERRCODE = 'P0F01';
    END IF;
END $$;
